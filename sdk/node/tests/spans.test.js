/** The current span follows promises, timers and callbacks, and a span that has ended is current nowhere. */
'use strict';

const assert = require('node:assert/strict');
const { createHash } = require('node:crypto');
const test = require('node:test');
const { setTimeout: sleep } = require('node:timers/promises');

const { MonitoringSDK } = require('../monitoring-sdk.js');
const { folder, started } = require('./sidecar.js');

async function opened(t, options) {
  const sidecar = await started(t);
  const sdk = new MonitoringSDK('spans', { url: sidecar.url, spillDir: folder(t), ...options });
  t.after(() => sdk.close(100));
  const event = (message) => sidecar.messages.find((one) => one.message === message);
  const start = (name) => sidecar.messages.find((one) => one.type === 'span_start' && one.name === name);
  const end = (name) => sidecar.messages.find((one) => one.type === 'span_end' && one.name === name);
  return { sidecar, sdk, event, start, end };
}

test('each of many concurrent tasks logs inside its own span', async (t) => {
  const { sdk, event, start } = await opened(t);
  const task = (index) => sdk.span(`task ${index}`, async () => {
    await sleep(5 - (index % 5));
    sdk.logEvent('info', `in ${index}`);
    await sdk.span(`inner ${index}`, async () => {
      await null;
      sdk.logEvent('info', `deep ${index}`);
    });
  });
  await Promise.all(Array.from({ length: 20 }, (_, index) => task(index)));
  sdk.logEvent('info', 'out');
  assert.equal(await sdk.flush(), true);
  for (let index = 0; index < 20; index += 1) {
    assert.equal(event(`in ${index}`).span_id, start(`task ${index}`).span_id);
    assert.equal(start(`inner ${index}`).parent_id, start(`task ${index}`).span_id);
    assert.equal(event(`deep ${index}`).span_id, start(`inner ${index}`).span_id);
  }
  assert.equal(event('out').span_id, undefined);
});

test('a span gives back what its function gives, and ends when that is done', async (t) => {
  const { sdk, end } = await opened(t);
  assert.equal(sdk.span('sync', (id) => id.length), 16);
  assert.equal(await sdk.span('async', { tags: { a: 1 }, traceId: 'job-1' }, async () => 'done'), 'done');
  assert.equal(await sdk.flush(), true);
  assert.equal(end('sync').status, 'ok');
  assert.equal(end('async').status, 'ok');
  assert.equal(end('async').trace_id, 'job-1');
  assert.deepEqual(end('async').tags, { a: 1 });
});

test('a span that throws or rejects ends with an error, which goes on', async (t) => {
  const { sdk, end } = await opened(t);
  const fail = () => {
    throw new RangeError('full');
  };
  assert.throws(() => sdk.span('sync', fail), /full/);
  await assert.rejects(sdk.span('async', async () => fail()), /full/);
  assert.equal(await sdk.flush(), true);
  assert.equal(end('sync').status, 'error');
  assert.equal(end('async').status, 'error');
});

test('a span that was ended elsewhere is current nowhere', async (t) => {
  const { sdk, event } = await opened(t);
  const outer = sdk.startSpan('outer');
  let go;
  const gate = new Promise((resolve) => {
    go = resolve;
  });
  const later = (async () => {
    await gate;
    sdk.logEvent('info', 'after its end');
  })();
  sdk.endSpan(outer);
  go();
  await later;
  assert.equal(await sdk.flush(), true);
  assert.equal(event('after its end').span_id, undefined);
});

test('tasks that open spans by hand do not see each other', async (t) => {
  const { sdk, event } = await opened(t);
  const task = async (name) => {
    await null; // a task of its own from here on
    const id = sdk.startSpan(name);
    await sleep(2);
    sdk.logEvent('info', name);
    sdk.endSpan(id);
    return id;
  };
  const [one, two] = await Promise.all([task('one'), task('two')]);
  assert.equal(await sdk.flush(), true);
  assert.equal(event('one').span_id, one);
  assert.equal(event('two').span_id, two);
});

test('two SDKs in one process have spans of their own', async (t) => {
  const first = await opened(t);
  const second = await opened(t);
  first.sdk.span('outer', () => second.sdk.logEvent('info', 'of the other'));
  assert.equal(await second.sdk.flush(), true);
  assert.equal(second.event('of the other').span_id, undefined);
});

test('a trace that is set inside a span holds there too, and the span ends in its own', async (t) => {
  const { sdk, event, end } = await opened(t, { traceId: 'old' });
  sdk.span('work', () => {
    sdk.setTraceId('new');
    sdk.logEvent('info', 'inside');
  });
  sdk.logEvent('info', 'after');
  assert.equal(await sdk.flush(), true);
  assert.equal(event('inside').trace_id, 'new');
  assert.equal(event('inside').span_id, end('work').span_id);
  assert.equal(end('work').trace_id, 'old');
  assert.equal(event('after').trace_id, 'new');
  assert.equal(event('after').span_id, undefined);
});

test('children get trace and span, and a TRACEPARENT', async (t) => {
  const { sdk } = await opened(t);
  assert.equal(sdk.childEnv().WAFERMON_TRACE_ID, undefined);
  assert.equal(sdk.childEnv().PATH, process.env.PATH);
  sdk.setTraceId('4bf92f3577b34da6a3ce929d0e0e4736');
  sdk.span('w3c', (id) => {
    assert.equal(sdk.childEnv().TRACEPARENT, `00-4bf92f3577b34da6a3ce929d0e0e4736-${id}-01`);
  });
  const id = sdk.startSpan('job', 'job-4711');
  const { WAFERMON_TRACE_ID: trace, WAFERMON_SPAN_ID: span, TRACEPARENT: parent } = sdk.childEnv();
  assert.deepEqual([trace, span], ['job-4711', id]);
  const hash = createHash('sha256').update('job-4711').digest('hex').slice(0, 32);
  assert.equal(parent, `00-${hash}-${id}-01`);
  sdk.endSpan(id);
});

test("a connection keeps nothing of a caller's AsyncLocalStorage", async (t) => {
  const { AsyncLocalStorage } = require('node:async_hooks');
  const requests = new AsyncLocalStorage();
  const { sidecar, sdk } = await opened(t);
  const seen = [];
  const { read } = require('../lib/stream.js').Stream.prototype;
  t.mock.method(require('../lib/stream.js').Stream.prototype, 'read', function spied(...args) {
    seen.push(requests.getStore());
    return read.apply(this, args);
  });
  requests.run({ request: 1 }, () => sdk.logEvent('info', 'm'));
  await sidecar.until(() => sidecar.messages.length === 1);
  assert.equal(await sdk.flush(), true);
  assert.ok(seen.length >= 1);
  assert.deepEqual(new Set(seen), new Set([undefined]));
});
