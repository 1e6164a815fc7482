/** pino's records as events. */
'use strict';

const assert = require('node:assert/strict');
const path = require('node:path');
const test = require('node:test');

const { MonitoringSDK } = require('../monitoring-sdk.js');
const monitoringTransport = require('../pino.js');
const { folder, started } = require('./sidecar.js');

let pino;
try {
  pino = require('pino');
} catch {
  // a program need not have it
}
const skip = pino ? false : 'pino is not installed';

test('records become events with their own level and time, in the current span', { skip }, async (t) => {
  const sidecar = await started(t);
  const sdk = new MonitoringSDK('logs', { url: sidecar.url, spillDir: folder(t) });
  t.after(() => sdk.close(100));
  const logger = pino({ level: 'trace' }, monitoringTransport({ sdk }));
  const id = sdk.span('work', (spanId) => {
    logger.warn({ rows: 5 }, 'read %s', 'lot.dat');
    return spanId;
  });
  for (const level of ['trace', 'debug', 'info', 'error', 'fatal']) logger[level](level);
  logger.error(new RangeError('full'));
  assert.equal(await sdk.flush(), true);
  const [warning, ...others] = sidecar.find('event');
  assert.deepEqual([warning.level, warning.message, warning.context], ['warning', 'read lot.dat', { rows: 5 }]);
  assert.equal(warning.span_id, id);
  assert.deepEqual(others.map(({ level }) => level), ['debug', 'debug', 'info', 'error', 'critical', 'error']);
  assert.deepEqual([others[5].message, others[5].context.err.type], ['full', 'RangeError']);
});

test('lines of other origin, in pieces, and with their own time and trace', async (t) => {
  const sidecar = await started(t);
  const sdk = new MonitoringSDK('logs', { url: sidecar.url, spillDir: folder(t) });
  t.after(() => sdk.close(100));
  const stream = monitoringTransport({ sdk });
  stream.write('not JSON\n{"level":30,"time":1700000000123,"ms');
  stream.write('g":"late","trace_id":"job-9","span_id":"0123456789abcdef"}\n{"level":"warn","time":"2024-01-02T03:04:05.678Z"}\n');
  assert.equal(await sdk.flush(), true);
  const [text, late, named] = sidecar.messages;
  assert.deepEqual([text.level, text.message], ['info', 'not JSON']);
  assert.deepEqual([late.ts, late.message], [1_700_000_000_123_000, 'late']);
  assert.deepEqual([late.trace_id, late.span_id], ['job-9', '0123456789abcdef']);
  assert.deepEqual([named.ts, named.level, named.message], [Date.parse('2024-01-02T03:04:05.678Z') * 1000, 'warning', '']);
});

test('as a transport, in a thread of its own', { skip }, async (t) => {
  const sidecar = await started(t);
  const target = path.join(__dirname, '..', 'pino.js');
  const transport = pino.transport({ target, options: { service: 'threaded', url: sidecar.url, spillDir: folder(t) } });
  const logger = pino(transport);
  for (let index = 0; index < 100; index += 1) logger.info({ index }, 'from the thread');
  await sidecar.until(() => sidecar.messages.length === 100);
  transport.end(); // which blocks this thread, and so this sidecar, until it is done
  assert.equal(sidecar.hellos[0].service, 'threaded');
  assert.deepEqual(sidecar.messages.map(({ context }) => context.index), Array.from({ length: 100 }, (_, index) => index));
});
