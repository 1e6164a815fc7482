/**
 * The Node.js SDK of wafermon: events, metrics, progress, resources and spans for the sidecar.
 *
 * What it promises:
 *
 * - A call never waits for the network and never throws because of it; only a programming error (an unknown level, a
 *   percent of 300) throws, at the call. What a call was given is fixed when it returns.
 * - A message is kept until the sidecar acknowledges it. While that is away, up to `buffer` messages wait in memory;
 *   what does not fit goes to spill files, and only when those are full or can't be written is a message dropped, which
 *   is counted.
 * - It does not keep the process alive, but for the up to 2 s that it may take at the end to deliver what is waiting.
 * - `getStats()` adds up: called = acked + rejected + dropped + waiting + handed_over.
 *
 * How it does so: a call copies what it is given and puts it into a queue. The event loop's next turn encodes and numbers
 * what is in the queue and writes it to the socket in one piece; a caller that does not let the loop turn does that itself,
 * every 256 messages. Spill files are written synchronously, many messages at a time.
 */
'use strict';

const { AsyncLocalStorage } = require('node:async_hooks');
const { createHash, randomBytes } = require('node:crypto');
const fs = require('node:fs');

const encoding = require('./lib/encoding.js');
const { CLOSE, Sender } = require('./lib/sender.js');
const { parsedUrl } = require('./lib/stream.js');

const { EVENT, METRIC, PROGRESS, RESOURCE, SPAN_END, SPAN_START, quote, toText } = encoding;
const { checkedFields, checkedLevel, checkedName, checkedNumber, checkedTags, checkedTraceId } = encoding;

const DEFAULT_URL = 'tcp://127.0.0.1:7411';
const BUFFER = 1000; // messages that may wait
const SERVICE = /^(?!wafermon$)[A-Za-z0-9._:-]{1,128}$/;
const TRACE_ID = /^[!-~]{1,128}$/;
const W3C_TRACE_ID = /^(?!0{32})[0-9a-f]{32}$/;
const SPAN_ID = /^[0-9a-f]{16}$/;
const TRACEPARENT = /^[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]{2}/;

/** Trace and span in which a call is made, also as the JSON that goes into its line. */
class Scope {
  constructor(traceId, spanId, outer) {
    this.traceId = traceId;
    this.spanId = spanId;
    this.outer = outer;
    this.text = (traceId ? `,"trace_id":${quote(traceId)}` : '') + (spanId ? `,"span_id":"${spanId}"` : '');
  }

  /** That of the environment; a given trace id wins. */
  static inherited(traceId, env) {
    let trace = env.WAFERMON_TRACE_ID ?? '';
    let span = env.WAFERMON_SPAN_ID ?? '';
    const parent = TRACEPARENT.exec(env.TRACEPARENT ?? '');
    if (parent && !trace && !span) [, trace, span] = parent;
    return new Scope(traceId ?? (TRACE_ID.test(trace) ? trace : undefined), SPAN_ID.test(span) ? span : undefined);
  }

  /** What a child process needs to fall into the trace, under the span. */
  variables() {
    if (!this.traceId) return {};
    const hash = createHash('sha256').update(this.traceId).digest('hex');
    const trace = W3C_TRACE_ID.test(this.traceId) ? this.traceId : hash.slice(0, 32);
    const parent = this.spanId ?? hash.slice(32, 48); // zeros would be invalid
    const variables = { WAFERMON_TRACE_ID: this.traceId, TRACEPARENT: `00-${trace}-${parent}-01` };
    return this.spanId ? { ...variables, WAFERMON_SPAN_ID: this.spanId } : variables;
  }
}

function isGiven(value) {
  return value !== undefined && value !== null;
}

/** The first of them that is set; an empty variable is not. */
function given(...texts) {
  return texts.find((text) => isGiven(text) && text !== '');
}

/** Milliseconds since the epoch as microseconds; undefined, which is now, for a time that no message may have. */
function microsOf(time) {
  return time >= Date.UTC(2000) && time < Date.UTC(2200) ? Math.round(time * 1000) : undefined;
}

function readTls(env, say) {
  const options = {};
  for (const name of ['ca', 'cert', 'key']) {
    const variable = `WAFERMON_TLS_${name.toUpperCase()}`;
    try {
      if (env[variable]) options[name] = fs.readFileSync(env[variable]);
    } catch (error) {
      say(`can't read the file of ${variable}: ${error.message}`);
    }
  }
  if (options.ca) options.ca = [...require('node:tls').rootCertificates, options.ca];
  return options;
}

/** One application's line to its sidecar. What each call takes and throws is in monitoring-sdk.d.ts. */
class MonitoringSDK {
  // one of each SDK: two in one process have spans of their own
  #scopes = new AsyncLocalStorage();
  #spans = new Map();
  #root;
  #sender;
  #closed;
  #measured = { at: performance.now(), cpu: process.cpuUsage() };

  constructor(service, { url, traceId, buffer, spillDir, token } = {}) {
    const { env } = process;
    const name = given(service, env.WAFERMON_SERVICE, env.OTEL_SERVICE_NAME) ?? '';
    if (typeof name !== 'string' || !SERVICE.test(name)) {
      throw new TypeError(`a service is 1 to 128 of A-Z a-z 0-9 . _ - : and not wafermon: ${toText(name)}`);
    }
    if (isGiven(buffer) && !(Number.isSafeInteger(buffer) && buffer > 0)) {
      throw new RangeError(`a buffer holds at least one message: ${toText(buffer)}`);
    }
    this.#root = Scope.inherited(isGiven(traceId) ? checkedTraceId(traceId) : undefined, env);
    const wanted = String(given(url, env.WAFERMON_URL) ?? DEFAULT_URL);
    const address = parsedUrl(wanted) ?? parsedUrl(DEFAULT_URL);
    const warnings = parsedUrl(wanted) ? [] : [`not a sidecar's url: ${wanted}; using ${DEFAULT_URL}`];
    this.#sender = new Sender({
      service: name,
      address,
      tls: address.secure ? readTls(env, (text) => warnings.push(text)) : undefined,
      token: given(token, env.WAFERMON_TOKEN),
      compress: env.WAFERMON_COMPRESS === 'zlib',
      buffer: buffer ?? Number(/^0*[1-9][0-9]{0,8}$/.exec(env.WAFERMON_BUFFER ?? '')?.[0] ?? BUFFER),
      spillDir: given(spillDir, env.WAFERMON_SPILL_DIR),
      disabled: !['', '0', 'false', 'no'].includes((env.WAFERMON_DISABLED ?? '').toLowerCase()),
    });
    for (const warning of warnings) this.#sender.say(warning);
    senders.add(this.#sender);
  }

  logEvent(level, message, context, record) {
    const known = checkedLevel(level);
    if (!isGiven(message)) throw new TypeError('an event has a message');
    const values = [known, typeof message === 'string' ? message : toText(message), checkedFields(context)];
    if (record) this.#put(EVENT, values, this.#scopeOf(record), microsOf(record.time));
    else this.#put(EVENT, values);
  }

  logMetric(name, value, unit, tags, kindOfMetric) {
    if (isGiven(kindOfMetric) && kindOfMetric !== 'gauge' && kindOfMetric !== 'counter') {
      throw new RangeError(`a metric is a gauge or a counter: ${toText(kindOfMetric)}`);
    }
    const text = isGiven(unit) ? toText(unit) : undefined;
    const counter = kindOfMetric === 'counter' ? kindOfMetric : undefined;
    this.#put(METRIC, [checkedName(name), checkedNumber(value), text, counter, checkedTags(tags)]);
  }

  logProgress(jobId, percent, status) {
    if (typeof percent !== 'number') throw new TypeError(`a percent is a number, not ${toText(percent)}`);
    if (!(percent >= 0 && percent <= 100)) throw new RangeError(`a percent is 0 to 100, not ${percent}`);
    const text = toText(status ?? 'running');
    if (text.length < 1 || text.length > 64) throw new RangeError(`a status has 1 to 64 characters: ${text}`);
    this.#put(PROGRESS, [checkedTraceId(jobId), percent, text]);
  }

  logResource(resource) {
    const { cpu, mem, disk, net: network } = resource ?? {};
    const fields = [cpu, mem, disk, network].map((value) => (isGiven(value) ? checkedNumber(value) : undefined));
    const known = fields.some(isGiven) ? fields : this.#measure();
    this.#put(RESOURCE, known.map((value) => (typeof value === 'number' ? value : undefined)));
  }

  startSpan(name, traceId, tags) {
    const span = this.#open(name, traceId, tags);
    this.#scopes.enterWith(span.scope);
    return span.scope.spanId;
  }

  endSpan(spanId, status, tags) {
    if (isGiven(status) && status !== 'ok' && status !== 'error') {
      throw new RangeError(`a span ends ok or error, not ${toText(status)}`);
    }
    const added = checkedTags(tags);
    const span = this.#spans.get(spanId);
    if (!span) throw new RangeError(`no such span is open: ${toText(spanId)}`);
    this.#spans.delete(spanId);
    const duration = Math.round((performance.now() - span.began) * 1000);
    const all = span.tags || added ? { ...span.tags, ...added } : undefined;
    this.#put(SPAN_END, [status ?? 'ok', span.name, span.ts, duration, span.parentId, all], span.scope);
  }

  span(name, options, work) {
    const run = typeof options === 'function' ? options : work;
    if (typeof run !== 'function') throw new TypeError('a span takes the function that it is around');
    const { traceId, tags } = typeof options === 'function' ? {} : options ?? {};
    const { scope } = this.#open(name, traceId, tags);
    const end = (status) => this.#spans.has(scope.spanId) && this.endSpan(scope.spanId, status);
    const fail = (error) => {
      end('error');
      throw error;
    };
    let result;
    try {
      result = this.#scopes.run(scope, run, scope.spanId);
    } catch (error) {
      fail(error);
    }
    if (typeof result?.then !== 'function') {
      end('ok');
      return result;
    }
    return result.then((value) => {
      end('ok');
      return value;
    }, fail);
  }

  setTraceId(traceId) {
    this.#root = new Scope(checkedTraceId(traceId), this.#root.spanId);
    const inner = this.#current();
    if (inner !== this.#root) this.#scopes.enterWith(new Scope(traceId, inner.spanId, inner));
  }

  childEnv() {
    const { WAFERMON_TRACE_ID: trace, WAFERMON_SPAN_ID: span, TRACEPARENT: parent, ...inherited } = process.env;
    return { ...inherited, ...this.#current().variables() };
  }

  getStats() {
    const sender = this.#sender;
    if (sender.overflow.length) sender.spill();
    const { called, counts, main } = sender;
    const reconnects = Math.max(0, main.welcomes - 1);
    return { state: sender.state(), called, ...counts, waiting: sender.kept(), reconnects };
  }

  flush(timeout = 5000) {
    const sender = this.#sender;
    if (sender.over) return Promise.resolve(!sender.kept());
    return sender.until(() => sender.over || !sender.kept(), timeout).then(() => !sender.kept());
  }

  close(timeout = CLOSE) {
    const sender = this.#sender;
    this.#closed ??= sender.over ? Promise.resolve() : sender.close(timeout).finally(() => senders.delete(sender));
    return this.#closed;
  }

  /** The innermost scope whose span is open, wherever it was ended. */
  #current() {
    let scope = this.#scopes.getStore();
    while (scope && !this.#spans.has(scope.spanId)) scope = scope.outer;
    return scope ?? this.#root;
  }

  /** That of a record of a logger, which may have been made elsewhere. */
  #scopeOf({ traceId, spanId }) {
    const span = SPAN_ID.test(spanId ?? '') ? spanId : undefined;
    return TRACE_ID.test(traceId ?? '') ? new Scope(traceId, span) : this.#current();
  }

  #put(type, values, scope = this.#current(), ts = this.#sender.clock.micros()) {
    this.#sender.put(type, ts, scope, values);
  }

  #open(name, traceId, tags) {
    const around = this.#current();
    const trace = isGiven(traceId) ? checkedTraceId(traceId) : around.traceId;
    const spanId = randomBytes(8).toString('hex');
    const outer = around === this.#root ? undefined : around;
    const scope = new Scope(trace ?? randomBytes(16).toString('hex'), spanId, outer);
    const times = { ts: this.#sender.clock.micros(), began: performance.now() };
    const span = { scope, name: checkedName(name), parentId: around.spanId, tags: checkedTags(tags), ...times };
    this.#spans.set(spanId, span);
    this.#put(SPAN_START, [span.name, span.parentId, span.tags], scope, span.ts);
    return span;
  }

  /** This process's cpu since the last time, its memory and its disk bytes; Linux counts no network by process. */
  #measure() {
    const now = { at: performance.now(), cpu: process.cpuUsage() };
    const before = this.#measured;
    this.#measured = now;
    const used = now.cpu.user + now.cpu.system - before.cpu.user - before.cpu.system; // microseconds
    const cpu = now.at > before.at ? Math.round((used / (now.at - before.at)) * 100) / 1000 : undefined;
    let disk;
    try {
      const counts = /^read_bytes: (\d+)\nwrite_bytes: (\d+)$/m.exec(fs.readFileSync('/proc/self/io', 'latin1'));
      disk = Number(counts[1]) + Number(counts[2]);
    } catch {
      // not Linux, or a kernel that doesn't tell
    }
    return [cpu, process.memoryUsage.rss(), disk, undefined];
  }
}

// Its end concerns the process, so these few lines know all its SDKs.
const senders = new Set();

process.on('beforeExit', () => {
  for (const sender of senders) sender.beforeExit();
});
process.on('exit', () => {
  for (const sender of senders) sender.exit();
});

module.exports = { MonitoringSDK };
