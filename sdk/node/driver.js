/**
 * The conformance driver of the Node.js SDK: one JSON request per line on stdin, one JSON answer per line on stdout.
 *
 * The protocol is in ../conformance/README.md. Between two requests the event loop turns, so the SDK works as it does
 * in any program that waits for something.
 */
'use strict';

const { spawn } = require('node:child_process');
const fs = require('node:fs');
const readline = require('node:readline');
const { setTimeout: sleep } = require('node:timers/promises');

const { MonitoringSDK } = require('./monitoring-sdk.js');

class Unsupported extends Error {}

function nested(depth) {
  return depth ? { k: nested(depth - 1) } : 'end';
}

function cycle() {
  const object = {};
  object.self = object;
  return object;
}

const NOTATIONS = {
  $bytes: (base64) => Buffer.from(base64, 'base64'),
  $codes: (codes) => String.fromCodePoint(...codes),
  $float: Number,
  $int: BigInt,
  $repeat: ([text, times]) => text.repeat(times),
  $nest: nested,
  $cycle: cycle,
};

function value(given) {
  if (Array.isArray(given)) return given.map(value);
  if (typeof given !== 'object' || given === null) return given;
  const [key, ...others] = Object.keys(given);
  if (key?.startsWith('$') && !others.length) {
    if (!(key in NOTATIONS)) throw new Unsupported();
    return NOTATIONS[key](given[key]);
  }
  return Object.fromEntries(Object.entries(given).map(([name, item]) => [name, value(item)]));
}

const milliseconds = (seconds) => (seconds === undefined ? undefined : seconds * 1000);

/** How each call's arguments become those of a method. */
const SDK_CALLS = {
  log_event: (sdk, { level, message, context }) => sdk.logEvent(level, message, context),
  log_metric: (sdk, { name, value: number, unit, tags, kind }) => sdk.logMetric(name, number, unit, tags, kind),
  log_progress: (sdk, { job_id: jobId, percent, status }) => sdk.logProgress(jobId, percent, status),
  log_resource: (sdk, resource) => sdk.logResource(resource),
  start_span: (sdk, { name, trace_id: traceId, tags }) => sdk.startSpan(name, traceId, tags),
  end_span: (sdk, { span_id: spanId, status, tags }) => sdk.endSpan(spanId, status, tags),
  set_trace_id: (sdk, { trace_id: traceId }) => sdk.setTraceId(traceId),
  get_stats: (sdk) => sdk.getStats(),
  flush: (sdk, { timeout }) => sdk.flush(milliseconds(timeout)),
  close: (sdk, { timeout }) => sdk.close(milliseconds(timeout)),
  burst,
};

/** Calls in a tight loop, in which the event loop does not turn. */
function burst(sdk, { n, first = 0, size = 0 }) {
  const message = size ? 'x'.repeat(size) : 'burst';
  const took = new Float64Array(n);
  const began = performance.now();
  for (let k = 0; k < n; k += 1) {
    const before = performance.now();
    sdk.logEvent('info', message, { i: first + k, file: 'a.dat', ok: true, x: 1.5 });
    took[k] = performance.now() - before;
  }
  const elapsed = (performance.now() - began) / 1000;
  took.sort();
  const at = (share) => took[Math.floor(n * share)] * 1000;
  return { elapsed, p50: at(0.5), p99: at(0.99), p999: at(0.999), max: took[n - 1] * 1000 };
}

const sdks = []; // the last one is the current one

const OWN_CALLS = {
  open({ service, url, trace_id: traceId, buffer, spill_dir: spillDir, token }) {
    sdks.push(new MonitoringSDK(service, { url, traceId, buffer, spillDir, token }));
  },
  setenv(variables) {
    for (const [name, text] of Object.entries(variables)) {
      if (text === null) delete process.env[name];
      else process.env[name] = text;
    }
  },
  sleep: ({ seconds }) => sleep(milliseconds(seconds)),
  pid: () => process.pid,
  kill_self: () => process.kill(process.pid, 'SIGKILL'),
};

function spawned({ argv: [program, ...args], stdin }) {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { env: sdks.at(-1)?.childEnv(), stdio: ['pipe', 'pipe', 'inherit'] });
    let stdout = '';
    child.stdout.setEncoding('utf8').on('data', (text) => {
      stdout += text;
    });
    child.on('error', reject);
    child.on('close', (status) => resolve({ stdout, status }));
    child.stdin.on('error', () => {}); // it may end without reading
    child.stdin.end(stdin);
  });
}

/** Not async: a span that is started here has to be the current one in the loop that calls this. */
function carriedOut(call, args) {
  if (call === 'spawn') return spawned(args);
  if (call in OWN_CALLS) return OWN_CALLS[call](value(args));
  if (!(call in SDK_CALLS)) throw new Unsupported();
  if (!sdks.length) throw new Error('no SDK is open');
  return SDK_CALLS[call](sdks.at(-1), value(args));
}

function failure(error) {
  return { ok: false, error: error instanceof Unsupported ? 'unsupported' : String(error) };
}

async function main() {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const { call, args = {} } = JSON.parse(line);
    if (call === 'exit') break;
    let answer;
    try {
      const result = carriedOut(call, args);
      answer = { ok: true, result: result instanceof Promise ? await result : result };
    } catch (error) {
      answer = failure(error);
    }
    fs.writeSync(1, `${JSON.stringify(answer)}\n`);
  }
  process.stdin.destroy();
}

main();
