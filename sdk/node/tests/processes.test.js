/** Ends of processes, worker threads, cluster. */
'use strict';

const assert = require('node:assert/strict');
const net = require('node:net');
const test = require('node:test');

const { folder, program, spilled, started } = require('./sidecar.js');

const OPEN = "const sdk = new MonitoringSDK('program');\n";
const NOBODY = 'tcp://127.0.0.1:1';

function environment(t, url) {
  return { WAFERMON_URL: url, WAFERMON_SPILL_DIR: folder(t), WAFERMON_TRACE_ID: '', TRACEPARENT: '' };
}

test('a program that ends normally delivers first', async (t) => {
  const sidecar = await started(t, { features: ['stats'] });
  const env = environment(t, sidecar.url);
  const done = await program(`${OPEN} for (let i = 0; i < 500; i++) sdk.logEvent('info', 'm', { i });`, env);
  assert.deepEqual([done.code, done.stderr], [0, '']);
  assert.equal(sidecar.find('event').length, 500);
  assert.equal(sidecar.find('stats')[0].final, true);
  assert.deepEqual(spilled(env.WAFERMON_SPILL_DIR), []);
});

test('process.exit leaves what is not delivered in a spill file', async (t) => {
  const sidecar = await started(t);
  const env = environment(t, sidecar.url);
  const done = await program(`${OPEN} for (let i = 0; i < 50; i++) sdk.logEvent('info', 'm', { i }); process.exit(3);`, env);
  assert.equal(done.code, 3);
  assert.deepEqual(spilled(env.WAFERMON_SPILL_DIR).map(({ context }) => context.i), Array.from({ length: 50 }, (_, i) => i));
});

test('so does an exception that nobody catches', async (t) => {
  const env = environment(t, NOBODY);
  const done = await program(`${OPEN} sdk.logEvent('error', 'before'); throw new Error('boom');`, env);
  assert.equal(done.code, 1);
  assert.deepEqual(spilled(env.WAFERMON_SPILL_DIR).map(({ message }) => message), ['before']);
});

test('a later listener of the exit may still log', async (t) => {
  const env = environment(t, NOBODY);
  await program(`${OPEN} sdk.logEvent('info', 'one'); process.on('exit', () => sdk.logEvent('info', 'two'));`, env);
  assert.deepEqual(spilled(env.WAFERMON_SPILL_DIR).map(({ message }) => message).sort(), ['one', 'two']);
});

test('a listener of beforeExit that logs each time does not keep the process alive for ever', async (t) => {
  const sidecar = await started(t);
  const source = `${OPEN} process.on('beforeExit', () => sdk.logEvent('info', 'once more')); sdk.logEvent('info', 'first');`;
  const env = environment(t, sidecar.url);
  const done = await program(source, env);
  assert.equal(done.code, 0);
  assert.ok(sidecar.messages.length + spilled(env.WAFERMON_SPILL_DIR).length >= 2);
});

test('an idle SDK does not keep a process alive, connected or not', async (t) => {
  const sidecar = await started(t);
  for (const url of [sidecar.url, NOBODY]) {
    const source = `${OPEN} sdk.logEvent('info', 'm'); sdk.flush(300).then((done) => console.log(done));`;
    const done = await program(source, environment(t, url));
    assert.deepEqual([done.code, done.stdout], [0, `${url !== NOBODY}\n`]);
    assert.ok(done.took < 10_000, `${done.took} ms`);
  }
});

test('neither does a sidecar that has stopped reading but lives', async (t) => {
  const sockets = [];
  const server = net.createServer((socket) => {
    sockets.push(socket);
    socket.on('error', () => {});
    socket.once('data', () => {
      socket.pause();
      socket.write('{"type":"welcome","v":2,"sidecar":"s","acked":0}\n');
    });
  });
  const beats = setInterval(() => sockets.forEach((socket) => socket.write('{"type":"ack","seq":0}\n')), 1000);
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => {
    clearInterval(beats);
    sockets.forEach((socket) => socket.destroy());
    server.close();
  });
  const env = environment(t, `tcp://127.0.0.1:${server.address().port}`);
  const source = `${OPEN} sdk.logEvent('info', 'first');
    setTimeout(() => { for (let i = 0; i < 2000; i++) sdk.logEvent('info', 'y'.repeat(5000)); }, 300);`;
  const done = await program(source, env);
  assert.equal(done.code, 0);
  assert.equal(spilled(env.WAFERMON_SPILL_DIR).length, 2001);
});

test('worker threads are clients of their own, and deliver at their end', async (t) => {
  const sidecar = await started(t);
  const source = `
    const { Worker, isMainThread, threadId } = require('node:worker_threads');
    ${OPEN}
    if (isMainThread) for (let i = 0; i < 3; i++) new Worker(__filename);
    for (let i = 0; i < 20; i++) sdk.logEvent('info', 'm', { threadId, i });`;
  const done = await program(source, environment(t, sidecar.url));
  assert.deepEqual([done.code, done.stderr], [0, '']);
  assert.equal(new Set(sidecar.hellos.map(({ client }) => client)).size, 4);
  assert.equal(new Set(sidecar.hellos.map(({ pid }) => pid)).size, 1);
  const threads = new Map(sidecar.messages.map(({ client, context }) => [client, context.threadId]));
  assert.equal(new Set(threads.values()).size, 4);
  assert.equal(sidecar.messages.length, 80);
});

test('workers of a cluster are clients of their own, under the span that they were forked in', async (t) => {
  const sidecar = await started(t);
  const source = `
    const cluster = require('node:cluster');
    ${OPEN}
    if (cluster.isPrimary) {
      sdk.setTraceId('job-7');
      sdk.span('outer', () => { for (let i = 0; i < 2; i++) cluster.fork(sdk.childEnv()); });
    } else {
      sdk.span('inner', () => sdk.logEvent('info', 'in a worker'));
      cluster.worker.disconnect();
    }`;
  const done = await program(source, environment(t, sidecar.url));
  assert.deepEqual([done.code, done.stderr], [0, '']);
  const [outer] = sidecar.messages.filter(({ name }) => name === 'outer');
  const inner = sidecar.messages.filter(({ type, name }) => type === 'span_start' && name === 'inner');
  assert.deepEqual(inner.map((span) => [span.parent_id, span.trace_id]), Array(2).fill([outer.span_id, 'job-7']));
  assert.equal(new Set(sidecar.hellos.map(({ pid }) => pid)).size, 3);
});
