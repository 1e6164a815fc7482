/**
 * pino's records as events.
 *
 * As a transport, in a thread of its own with an SDK of its own:
 *
 *     pino(pino.transport({ target: 'monitoring-sdk/pino', options: { service: 'file-receiver' } }))
 *
 * or as a stream in the thread of the caller, where records fall into the current span of a given SDK:
 *
 *     pino({}, require('monitoring-sdk/pino')({ sdk }))
 */
'use strict';

const { Writable } = require('node:stream');

const { MonitoringSDK } = require('./monitoring-sdk.js');

// pino's numbers, which are not those of Python's logging; a level between two counts as the lower one.
const LEVELS = [[60, 'critical'], [50, 'error'], [40, 'warning'], [30, 'info'], [-Infinity, 'debug']];
const NAMES = { trace: 'debug', debug: 'debug', info: 'info', warn: 'warning', error: 'error', fatal: 'critical' };

function levelOf(level) {
  if (typeof level === 'number') return LEVELS.find(([least]) => level >= least)[1];
  return NAMES[String(level).toLowerCase()] ?? 'info';
}

function log(sdk, line, messageKey) {
  let record;
  try {
    record = JSON.parse(line);
  } catch {
    record = null;
  }
  if (typeof record !== 'object' || record === null) {
    sdk.logEvent('info', line); // not pino's, but somebody wanted it logged
    return;
  }
  const { level, time, pid, hostname, trace_id: traceId, span_id: spanId, [messageKey]: message, ...context } = record;
  const fields = Object.keys(context).length ? context : undefined;
  const moment = typeof time === 'number' ? time : Date.parse(time);
  sdk.logEvent(levelOf(level), message ?? context.err?.message ?? '', fields, { time: moment, traceId, spanId });
}

module.exports = function monitoringTransport({ sdk, service, messageKey = 'msg', ...options } = {}) {
  const target = sdk ?? new MonitoringSDK(service, options);
  let rest = '';
  return new Writable({
    decodeStrings: false,
    write(chunk, encoding, done) {
      const lines = (rest + chunk).split('\n');
      rest = lines.pop();
      for (const line of lines) if (line) log(target, line, messageKey);
      done();
    },
    final(done) {
      const delivered = sdk ? sdk.flush(2000) : target.close();
      delivered.then(() => done(), done);
    },
  });
};
