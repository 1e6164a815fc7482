import sdkModule = require('monitoring-sdk');
import monitoringTransport = require('monitoring-sdk/pino');

const sdk = new sdkModule.MonitoringSDK('types');
sdk.logEvent('info', 'message');
monitoringTransport({ service: 'types', url: 'tcp://127.0.0.1:1' }).end();
