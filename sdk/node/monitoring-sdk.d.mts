export * from './monitoring-sdk.js';
