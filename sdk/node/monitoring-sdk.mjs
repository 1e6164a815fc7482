// The same module for `import`: one copy of the SDK in a process, however it is loaded.
import sdk from './monitoring-sdk.js';

export const { MonitoringSDK } = sdk;
