import { Writable } from 'node:stream';
import { MonitoringSDK, Options } from './monitoring-sdk.js';

declare namespace monitoringTransport {
  interface TransportOptions extends Options {
    /** The SDK to log with, in this thread; else a new one is made of `service` and the other options. */
    sdk?: MonitoringSDK;
    service?: string;
    /** The key of a record's message; `msg` by default, as pino has it. */
    messageKey?: string;
  }
}

/** A stream that takes pino's lines and logs each as an event, with the record's own time. */
declare function monitoringTransport(options?: monitoringTransport.TransportOptions): Writable;

export = monitoringTransport;
