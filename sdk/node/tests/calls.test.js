/** What calls take, what they refuse, and what is sent of it. */
'use strict';

const assert = require('node:assert/strict');
const test = require('node:test');

const { MonitoringSDK } = require('../monitoring-sdk.js');
const { folder, started } = require('./sidecar.js');

async function opened(t, options) {
  const sidecar = await started(t);
  const sdk = new MonitoringSDK('calls', { url: sidecar.url, spillDir: folder(t), ...options });
  t.after(() => sdk.close(100));
  return { sidecar, sdk };
}

async function contextOf(t, context) {
  const { sidecar, sdk } = await opened(t);
  sdk.logEvent('info', 'm', context);
  assert.equal(await sdk.flush(), true);
  return sidecar.messages[0].context;
}

test('levels are taken by their other names', async (t) => {
  const { sidecar, sdk } = await opened(t);
  const names = ['INFO', 'warn', 'Fatal', 'ERR', 10, '20', 30, 40, 50, 25];
  for (const level of names) sdk.logEvent(level, String(level));
  assert.equal(await sdk.flush(), true);
  assert.deepEqual(
    sidecar.messages.map(({ level }) => level),
    ['info', 'warning', 'critical', 'error', 'debug', 'info', 'warning', 'error', 'critical', 'info'],
  );
});

test('what a call was given is fixed when it returns', async (t) => {
  const { sidecar, sdk } = await opened(t);
  let looks = 0;
  const flat = { a: 1, get looks() { return (looks += 1); } };
  const nested = { list: [1], deep: { b: 1 } };
  const tags = { tool: 'A' };
  sdk.logEvent('info', 'flat', flat);
  sdk.logEvent('info', 'nested', nested);
  sdk.logMetric('m', 1, 's', tags);
  sdk.setTraceId('job-1');
  Object.assign(flat, { a: 2, c: 3 });
  nested.list.push(2);
  nested.deep.b = 2;
  tags.tool = 'B';
  sdk.setTraceId('job-2');
  sdk.logEvent('info', 'traced');
  assert.equal(await sdk.flush(), true);
  const [first, second, metric, traced] = sidecar.messages;
  assert.deepEqual(first.context, { a: 1, looks: 1 });
  assert.deepEqual(second.context, { list: [1], deep: { b: 1 } });
  assert.deepEqual(metric.tags, { tool: 'A' });
  assert.deepEqual([first.trace_id, traced.trace_id], [undefined, 'job-2']);
});

test('long messages that wait take the memory that is meant for them', async (t) => {
  const sdk = new MonitoringSDK('calls', { url: 'tcp://127.0.0.1:1', spillDir: folder(t), buffer: 100_000 });
  t.after(() => sdk.close(1));
  for (let count = 0; count < 2_000; count += 1) sdk.logEvent('info', 'm', { text: 'x'.repeat(8_000), count });
  const { state, spilled } = sdk.getStats();
  assert.equal(state, 'overflow');
  assert.ok(spilled > 2_000 - 530, `${spilled} have spilled`); // 4 MiB in memory, the others in files
});

test('programming errors throw at the call and count nowhere', async (t) => {
  const { sdk } = await opened(t);
  assert.throws(() => new MonitoringSDK(''), TypeError);
  assert.throws(() => new MonitoringSDK('wafermon'), TypeError);
  assert.throws(() => new MonitoringSDK('s', { buffer: 0 }), RangeError);
  assert.throws(() => new MonitoringSDK('s', { traceId: 'a b' }), RangeError);
  assert.throws(() => sdk.logEvent('loud', 'm'), RangeError);
  assert.throws(() => sdk.logEvent(60, 'm'), RangeError);
  assert.throws(() => sdk.logEvent(Symbol('info'), 'm'), RangeError);
  assert.throws(() => sdk.logEvent('info'), TypeError);
  assert.throws(() => sdk.logEvent('info', 'm', ['list']), TypeError);
  assert.throws(() => sdk.logEvent('info', 'm', 'text'), TypeError);
  assert.throws(() => sdk.logMetric('name', '5'), TypeError);
  assert.throws(() => sdk.logMetric('name', 5, null, null, 'rate'), RangeError);
  assert.throws(() => sdk.logProgress('job', 300), RangeError);
  assert.throws(() => sdk.logProgress('job', '5'), TypeError);
  assert.throws(() => sdk.endSpan('0123456789abcdef'), RangeError);
  assert.throws(() => sdk.span('no function'), TypeError);
  assert.equal(sdk.getStats().called, 0);
});

test("values of the language's own types are sent as what they are", async (t) => {
  class Lot {
    constructor() {
      this.id = 7;
    }
  }
  const context = await contextOf(t, {
    map: new Map([['a', 1], [2, 'b']]),
    set: new Set([1, 2]),
    date: new Date(0),
    url: new URL('http://localhost/x'),
    typed: new Float64Array([0.5, NaN]),
    bytes: Buffer.from('gr\u00fc\u00df'),
    boxed: Object('text'),
    lot: new Lot(),
    big: 2n ** 60n,
    small: 5n,
    undefined: undefined,
    list: [undefined, null, () => 1, Symbol('s')],
    told: { toJSON: () => ({ told: true }) },
  });
  assert.deepEqual(context, {
    map: { a: 1, 2: 'b' },
    set: [1, 2],
    date: '1970-01-01T00:00:00.000Z',
    url: 'http://localhost/x',
    typed: [0.5, null],
    bytes: 'gr\u00fc\u00df',
    boxed: 'text',
    lot: { id: 7 },
    big: '1152921504606846976',
    small: 5,
    list: [null, null, '() => 1', 'Symbol(s)'],
    told: { told: true },
  });
});

test('an error tells its name, message, stack and own fields', async (t) => {
  const { err } = await contextOf(t, { err: Object.assign(new RangeError('full'), { code: 'ENOSPC' }) });
  assert.equal(err.name, 'RangeError');
  assert.equal(err.message, 'full');
  assert.match(err.stack, /calls\.test\.js/);
  assert.equal(err.code, 'ENOSPC');
});

test('what throws when it is looked at becomes text, and the rest is sent', async (t) => {
  const hostile = new Proxy({}, {
    ownKeys() {
      throw new Error('no');
    },
  });
  const getter = {
    get value() {
      throw new Error('no');
    },
  };
  const context = await contextOf(t, { hostile, getter, fine: 1 });
  assert.equal(typeof context.hostile, 'string');
  assert.equal(typeof context.getter, 'string');
  assert.equal(context.fine, 1);
});

test('a key called __proto__ is a key like any other', async (t) => {
  const context = await contextOf(t, { nested: JSON.parse('{"__proto__": {"x": 1}}') });
  assert.equal(JSON.stringify(context), '{"nested":{"__proto__":{"x":1}}}');
});

test('a context is what it was when the call returned', async (t) => {
  const { sidecar, sdk } = await opened(t);
  const context = { rows: 1, list: [1] };
  sdk.logEvent('info', 'm', context);
  context.rows = 2;
  context.list.push(2);
  assert.equal(await sdk.flush(), true);
  assert.deepEqual(sidecar.messages[0].context, { rows: 1, list: [1] });
});

test('a huge context costs a bounded time and is sent without it', async (t) => {
  const { sidecar, sdk } = await opened(t);
  sdk.logEvent('info', 'm', { list: Array.from({ length: 1_000_000 }, (_, index) => index) });
  assert.equal(await sdk.flush(), true);
  assert.equal(sidecar.messages[0].truncated, true);
  assert.equal(sidecar.messages[0].message, 'm');
});

test('times are of the wall clock, to the microsecond, and never go back', async (t) => {
  const { sidecar, sdk } = await opened(t);
  const before = Date.now() * 1000;
  for (let index = 0; index < 500; index += 1) sdk.logEvent('info', 'm');
  const after = (Date.now() + 1) * 1000;
  assert.equal(await sdk.flush(), true);
  const stamps = sidecar.messages.map(({ ts }) => ts);
  assert.deepEqual(stamps, [...stamps].sort((one, other) => one - other));
  assert.ok(stamps.every((ts) => ts >= before && ts < after));
  assert.ok(stamps.some((ts) => ts % 1000));
});
