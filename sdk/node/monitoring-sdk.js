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
 * How it does so: a call encodes its message and puts it into a queue. The event loop's next turn numbers what is in the
 * queue and writes it to the socket in one piece; a caller that does not let the loop turn does that itself, every 256
 * messages. Spill files are written synchronously, many messages at a time.
 */
'use strict';

const { AsyncLocalStorage } = require('node:async_hooks');
const { createHash, randomBytes } = require('node:crypto');
const dns = require('node:dns');
const fs = require('node:fs');
const net = require('node:net');
const os = require('node:os');
const path = require('node:path');
const { inspect } = require('node:util');

const VERSION = '2.0.0';
const DEFAULT_URL = 'tcp://127.0.0.1:7411';
// What may wait to be sent; as many bytes again may be sent and unacknowledged.
const BUFFER = 1000;
const BYTES = 4 << 20;
const BODY_MAX = 65_536 - 64; // the rest of a line is for client and seq
const FILE_MAX = 1 << 20; // bytes of a spill file
const FILES = 64;
// A caller that does not let the event loop turn sends, or spills, so many messages or bytes at a time by itself.
const PORTION = 256;
const PORTION_BYTES = 1 << 16;
// Bytes that are worth a compressed frame, and the most that go into one.
const FRAME_MIN = 1 << 10;
const FRAME_MAX = 1 << 18;
// Milliseconds: without a byte from a sidecar that owes us one; between two looks at that; of a close or an exit; from
// a message to the stats line that follows it.
const SILENCE = 5000;
const TICK = 1000;
const CLOSE = 2000;
const STATS_AFTER = 5000;
const STREAMS_NAMED = 1000; // spill files that a stats line names, the newest

const SERVICE = /^(?!wafermon$)[A-Za-z0-9._:-]{1,128}$/;
const TRACE_ID = /^[!-~]{1,128}$/;
const SPAN_ID = /^[0-9a-f]{16}$/;
const TRACEPARENT = /^[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]{2}/;
const URL_PATTERN = /^(?:unix:\/\/(\/.+)|(tcp|tls):\/\/(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::([0-9]{1,5}))?\/?)$/;
// What alone keeps a process alive that would have ended but for a write or a connect of ours.
const OWN_REQUEST = /^(?:(?:TCP|Pipe)ConnectWrap|(?:Simple)?WriteWrap|ShutdownWrap|GetAddrInfoReqWrap|FSReqCallback)$/;

const LEVELS = new Map([
  ...['debug', 'info', 'warning', 'error', 'critical'].map((level) => [level, level]),
  ...[['warn', 'warning'], ['err', 'error'], ['fatal', 'critical']],
]);
const NUMBERED_LEVELS = ['', 'debug', 'info', 'warning', 'error', 'critical']; // by tens, as Python's logging has them

// ---- encoding ----

const EXACT = 2 ** 53;
const DEPTH = 8; // containers nested deeper become text
const NODES = 32_768; // after so many values a context is not copied further: it can't fit into a line
const SHORTEST = 64; // cutting strings below so many characters gains nothing
const NEEDS_CARE = /[\u0000-\u001f"\\\ud800-\udfff]/;
const NEVER_SENT = /[\u0000\ud800-\udfff]/gu; // NUL and lone surrogates

/** A message type: how its line begins, and the keys of its own fields; context or tags come last. */
function kind(name, ...fields) {
  return { head: `{"type":"${name}","ts":`, keys: fields.map((field) => `,"${field}":`) };
}

const EVENT = kind('event', 'level', 'message', 'context');
const METRIC = kind('metric', 'name', 'value', 'unit', 'kind', 'tags');
const PROGRESS = kind('progress', 'job_id', 'percent', 'status');
const RESOURCE = kind('resource', 'cpu', 'mem', 'disk', 'net');
const SPAN_START = kind('span_start', 'name', 'parent_id', 'tags');
const SPAN_END = kind('span_end', 'status', 'name', 'start', 'duration', 'parent_id', 'tags');
const STATS = kind('stats', 'called', 'dropped', 'unsent', 'last', 'streams', 'final');

function quote(text) {
  return NEEDS_CARE.test(text) ? JSON.stringify(text.replace(NEVER_SENT, '\ufffd')) : `"${text}"`;
}

/** The text's first characters, without half of a surrogate pair at their end. */
function cut(text, most) {
  if (text.length <= most) return text;
  const last = text.charCodeAt(most - 1);
  return text.slice(0, last >= 0xd800 && last < 0xdc00 ? most - 1 : most);
}

/** JSON of a value of plain types only, its strings cut to so many characters. What JSON can't say becomes null. */
function json(value, most) {
  switch (typeof value) {
    case 'string':
      return quote(cut(value, most));
    case 'number':
      // a reader would take the digits of a large double for those of an integer
      if (Math.abs(value) > EXACT && Number.isFinite(value)) return value.toExponential();
      return Number.isFinite(value) ? String(value) : 'null';
    case 'boolean':
      return value ? 'true' : 'false';
    case 'bigint':
      return value > EXACT || value < -EXACT ? `"${value}"` : String(value);
    case 'object':
      if (value === null) return 'null';
      return Array.isArray(value) ? `[${value.map((item) => json(item, most)).join(',')}]` : jsonObject(value, most);
    default:
      return 'null';
  }
}

function jsonObject(object, most) {
  let text = '';
  for (const key of Object.keys(object)) {
    if (object[key] !== undefined) text += `${text && ','}${quote(key)}:${json(object[key], most)}`;
  }
  return `{${text}}`;
}

/** Any value as text, whatever its own methods do. */
function toText(value) {
  try {
    if (ArrayBuffer.isView(value)) return Buffer.from(value.buffer, value.byteOffset, value.byteLength).toString();
    if (typeof value !== 'object' || value instanceof Error) return String(value);
    return inspect(value, { depth: 1, breakLength: Infinity, maxArrayLength: 10, maxStringLength: 200 });
  } catch {
    return `<${typeof value}>`;
  }
}

/** A deep copy in plain types, cut at depth 8 and after `left.nodes` values. */
function plain(value, depth, left) {
  left.nodes -= 1;
  if (typeof value === 'symbol' || typeof value === 'function') return toText(value);
  if (typeof value !== 'object' || value === null) return value;
  try {
    return plainObject(value, depth, left);
  } catch {
    return toText(value);
  }
}

function plainObject(value, depth, left) {
  if (value instanceof Uint8Array) return toText(value);
  if (typeof value.toJSON === 'function') {
    const told = value.toJSON();
    if (told !== value) return plain(told, depth, left);
  }
  if (value instanceof Number || value instanceof String || value instanceof Boolean) return value.valueOf();
  if (depth > DEPTH) return toText(value);
  if (value instanceof Map) return plainEntries(value, depth, left);
  if (Array.isArray(value) || value instanceof Set || (ArrayBuffer.isView(value) && Symbol.iterator in value)) {
    const items = [];
    for (const item of value) {
      if (left.nodes <= 0) break;
      items.push(plain(item, depth + 1, left));
    }
    return items;
  }
  const entries = Object.keys(value).slice(0, Math.max(0, left.nodes)).map((key) => [key, value[key]]);
  if (value instanceof Error) entries.unshift(['name', value.name], ['message', value.message], ['stack', value.stack]);
  return plainEntries(entries, depth, left);
}

function plainEntries(entries, depth, left) {
  const copy = Object.create(null); // where `__proto__` is a key like any other
  for (const [key, item] of entries) {
    if (left.nodes <= 0) break;
    copy[typeof key === 'string' ? key : toText(key)] = plain(item, depth + 1, left);
  }
  return copy;
}

function isFlat(fields) {
  const prototype = Object.getPrototypeOf(fields);
  if (prototype !== Object.prototype && prototype !== null) return false;
  for (const key in fields) {
    const type = typeof fields[key];
    if (type !== 'string' && type !== 'number' && type !== 'boolean' && type !== 'bigint' && fields[key] !== null) return false;
  }
  return true;
}

/** A context of plain types: a flat object, as most are, itself, since it is encoded before the call returns. */
function checkedFields(fields) {
  if (fields === undefined || fields === null) return undefined;
  if (typeof fields !== 'object' || Array.isArray(fields) || ArrayBuffer.isView(fields)) {
    throw new TypeError(`context and tags are objects, not ${toText(fields)}`);
  }
  try {
    if (isFlat(fields)) return fields;
  } catch {
    // a getter that throws
  }
  const copy = plain(fields, 1, { nodes: NODES });
  return typeof copy === 'object' && copy !== null ? copy : { value: copy };
}

/** Tags are strings and numbers: null is left out, and whatever else comes along becomes text. */
function checkedTags(tags) {
  const fields = checkedFields(tags);
  if (!fields) return undefined;
  const copy = Object.create(null);
  for (const [key, tag] of Object.entries(fields)) {
    if (tag === null || tag === undefined) continue;
    copy[key] = typeof tag === 'string' || typeof tag === 'number' || typeof tag === 'bigint' ? tag : json(tag, BODY_MAX);
  }
  return copy;
}

function joined(type, start, values, most, end) {
  let text = start;
  for (let index = 0; index < values.length; index += 1) {
    if (values[index] !== undefined && values[index] !== null) text += type.keys[index] + json(values[index], most);
  }
  return text + end;
}

/** A message without its client, its seq and its closing brace, short enough for any line; and its bytes. */
function encode(type, ts, origin, values) {
  const start = type.head + ts + origin;
  const line = joined(type, start, values, BODY_MAX, '');
  const bytes = Buffer.byteLength(line);
  return bytes <= BODY_MAX ? { line, bytes } : shortened(type, start, values);
}

/** The longest strings are cut, all to the same length: the greatest that fits. Where that won't do, the context goes. */
function shortened(type, start, values) {
  const body = (most) => joined(type, start, values, most, ',"truncated":true');
  let least = SHORTEST;
  let most = BODY_MAX;
  if (Buffer.byteLength(body(least)) > BODY_MAX) values[values.length - 1] = undefined;
  while (most - least > 1) {
    const middle = (least + most) >> 1;
    if (Buffer.byteLength(body(middle)) <= BODY_MAX) least = middle;
    else most = middle;
  }
  const line = body(least);
  return { line, bytes: Buffer.byteLength(line) };
}

function numbered(body, client, seq) {
  return `${body},"client":"${client}","seq":${seq}}\n`;
}

/** Microseconds since the epoch, finer than Date.now() and never out of its millisecond. */
class Clock {
  #offset = performance.timeOrigin * 1000;

  micros() {
    const least = Date.now() * 1000;
    const now = Math.floor(this.#offset + performance.now() * 1000);
    if (now >= least && now < least + 1000) return now;
    const right = now < least ? least : least + 999;
    this.#offset += right - now;
    return right;
  }
}

// ---- what calls check ----

function checkedLevel(level) {
  const known = LEVELS.get(level) ?? LEVELS.get(String(level).toLowerCase());
  if (known) return known;
  if (/^(?:[1-4][0-9]|50)$/.test(String(level))) return NUMBERED_LEVELS[Math.floor(Number(level) / 10)];
  throw new RangeError(`unknown level: ${toText(level)}; one of debug, info, warning, error, critical`);
}

function checkedTraceId(traceId) {
  if (typeof traceId !== 'string') throw new TypeError(`a trace id is a string, not ${toText(traceId)}`);
  if (!TRACE_ID.test(traceId)) {
    throw new RangeError(`a trace id is 1 to 128 printable ASCII characters without space, not ${JSON.stringify(traceId)}`);
  }
  return traceId;
}

function checkedName(name) {
  if ((typeof name !== 'string' && !(name instanceof Uint8Array)) || !name.length) {
    throw new TypeError(`a name is a non-empty string, not ${toText(name)}`);
  }
  return toText(name);
}

/** The value of a field that is a number; what JSON has no number for is spelled out. */
function checkedNumber(value) {
  if (typeof value !== 'number' && typeof value !== 'bigint') throw new TypeError(`not a number: ${toText(value)}`);
  const number = Number(value);
  return Number.isFinite(number) ? number : String(number);
}

function given(...texts) {
  return texts.find((text) => text !== undefined && text !== null && text !== '');
}

// ---- connections ----

/** Scheme, host and port; of a Unix socket the path. Undefined for what is no sidecar's url. */
function parsedUrl(url) {
  const found = URL_PATTERN.exec(url);
  if (!found) return undefined;
  const [, unix, scheme, ipv6, host, digits] = found;
  if (unix) return { path: unix };
  const port = Number(digits ?? (scheme === 'tls' ? 7413 : 7411));
  return port >= 1 && port <= 65_535 ? { host: ipv6 ?? host, port, secure: scheme === 'tls' } : undefined;
}

/**
 * Connect to the first of the host's addresses that answers, then call `done` with the socket, or with nothing.
 * The function returned ends the attempt.
 */
function dial(address, tlsOptions, done) {
  let socket;
  let over = false;
  const attempt = (targets) => {
    const target = targets.shift();
    if (over) return;
    if (!target) return done();
    socket = address.secure ? require('node:tls').connect({ ...target, ...tlsOptions }) : net.connect(target);
    const failed = () => {
      socket.destroy();
      attempt(targets);
    };
    socket.unref();
    socket.setTimeout(SILENCE, failed);
    socket.once('error', failed);
    socket.on('error', () => {}); // a second one would end the process
    socket.once(address.secure ? 'secureConnect' : 'connect', () => {
      socket.removeListener('error', failed);
      socket.setTimeout(0, failed);
      done(socket);
    });
  };
  const { host, port } = address;
  if (address.path) attempt([address]);
  else if (net.isIP(host)) attempt([{ host, port }]);
  else {
    dns.lookup(host, { all: true, verbatim: true }, (error, found) => {
      attempt((found ?? []).map(({ address: ip }) => ({ host: ip, port, servername: host })));
    });
  }
  return () => {
    over = true;
    socket?.destroy();
  };
}

/** A stream's connection: none; being made; the hello is sent; welcomed. */
const Link = Object.freeze({ DOWN: 'down', DIALING: 'dialing', GREETING: 'greeting', UP: 'up' });

/** One client's messages on their way: numbered, sent, and kept until they are acknowledged. */
class Stream {
  constructor(sender, client, file) {
    this.sender = sender;
    this.client = client;
    this.file = file;
    this.link = Link.DOWN;
    this.window = []; // {line, bytes, seq, counted}
    this.windowBytes = 0;
    this.messages = 0; // in the window, without stats lines
    this.seq = file ? file.last - file.count : 0;
    this.highestSent = 0;
    this.welcomes = 0;
    this.failures = 0;
    this.offers = {}; // what the last welcome grants: stats, codec, frame
  }

  get up() {
    return this.link === Link.UP;
  }

  /** Give the message its seq, for ever, and keep it until that is acknowledged. */
  number(entry, counted = true) {
    return this.keep(numbered(entry.line, this.client, this.seq + 1), counted);
  }

  keep(line, counted) {
    this.seq += 1;
    const kept = { line, bytes: Buffer.byteLength(line), seq: this.seq, counted };
    if (!this.window.length) this.heard = performance.now();
    this.window.push(kept);
    this.windowBytes += kept.bytes;
    this.messages += Number(counted);
    return kept;
  }

  /** Begin a connection, if there is none and the last failure is long enough ago. */
  connect() {
    if (this.link !== Link.DOWN || this.retry) return;
    this.link = Link.DIALING;
    this.cancel = dial(this.sender.address, this.sender.tls, (socket) => {
      if (socket) this.greet(socket);
      else this.lose();
    });
  }

  greet(socket) {
    const lost = () => {
      if (this.socket === socket) this.lose();
    };
    this.socket = socket;
    this.link = Link.GREETING;
    this.received = '';
    this.heard = performance.now();
    if (!this.sender.address.path) socket.setNoDelay(true);
    socket.setEncoding('utf8');
    socket.on('error', lost);
    socket.on('end', lost);
    socket.on('close', lost);
    socket.on('data', (text) => {
      if (this.socket === socket) this.read(text);
    });
    socket.write(this.sender.hello(this.client));
  }

  /** Close the connection at once, and the attempt to get one; what is unacknowledged stays for the next one. */
  hangUp() {
    this.cancel?.();
    this.cancel = this.socket = undefined;
    this.link = Link.DOWN;
    clearTimeout(this.retry);
    this.retry = undefined;
  }

  /** Let go of the connection without closing it: its socket, if there is one. */
  release() {
    const { socket } = this;
    if (socket) this.cancel = undefined;
    this.hangUp();
    return socket;
  }

  lose() {
    this.hangUp();
    const pause = Math.min(30_000, 100 * 2 ** Math.min(this.failures, 10)) * Math.random();
    this.failures += 1;
    this.retry = setTimeout(() => {
      this.retry = undefined;
      this.sender.pump();
    }, pause).unref();
    this.sender.look();
  }

  /** Give up a connection that owes us something and is silent: after what may have come meanwhile has been read. */
  judge() {
    const silent = () => {
      const owes = this.link === Link.GREETING || (this.up && this.window.length);
      return owes && performance.now() - this.heard > SILENCE;
    };
    if (silent()) setTimeout(() => setImmediate(() => silent() && this.lose()), 1).unref();
  }

  read(text) {
    this.heard = performance.now();
    const lines = (this.received + text).split('\n');
    this.received = lines.pop();
    try {
      for (const line of lines) this.answer(JSON.parse(line));
      if (this.received.length > FILE_MAX) throw new RangeError('an endless line');
    } catch {
      this.lose(); // it speaks another protocol
    }
    this.sender.pump();
  }

  answer(reply) {
    const { type, seq } = reply;
    if (type === 'ack') this.settle(seq);
    else if (type === 'welcome' && this.link === Link.GREETING && (reply.v ?? 2) === 2) this.welcome(reply);
    else if (type === 'error' && (seq ?? null) === null) this.sender.refused(String(reply.code), String(reply.detail ?? ''));
    else if (type === 'error') this.reject(seq);
  }

  welcome({ acked, features, compress, max_frame: frame }) {
    this.link = Link.UP;
    this.failures = 0;
    this.welcomes += 1;
    const codec = this.sender.compress && compress === 'zlib' ? compress : undefined;
    this.offers = {
      stats: Array.isArray(features) && features.includes('stats'),
      codec,
      frame: Math.min(FRAME_MAX, frame > 0 ? frame : FRAME_MAX),
    };
    this.settle(acked);
    this.send(this.window);
  }

  settle(acked) {
    if (!Number.isInteger(acked)) throw new TypeError('not a seq');
    const rest = this.window.findIndex((entry) => entry.seq > acked);
    for (const entry of this.window.splice(0, rest < 0 ? this.window.length : rest)) this.forget(entry, 'acked');
  }

  reject(seq) {
    const index = this.window.findIndex((entry) => entry.seq === seq);
    if (index >= 0) this.forget(...this.window.splice(index, 1), 'rejected');
  }

  forget(entry, outcome) {
    this.windowBytes -= entry.bytes;
    this.messages -= Number(entry.counted);
    this.sender.counts[outcome] += Number(entry.counted);
  }

  /** Write numbered messages to the socket: in frames where the sidecar takes them and they are worth one. */
  send(entries) {
    const { counts } = this.sender;
    const most = this.offers.codec ? this.offers.frame : FRAME_MAX;
    let lines = [];
    let bytes = 0;
    for (const entry of entries) {
      if (bytes && bytes + entry.bytes > most) {
        this.write(lines, bytes);
        lines = [];
        bytes = 0;
      }
      lines.push(entry.line);
      bytes += entry.bytes;
      counts[entry.seq > this.highestSent ? 'sent' : 'resent'] += Number(entry.counted);
      this.highestSent = Math.max(entry.seq, this.highestSent);
    }
    if (bytes) this.write(lines, bytes);
  }

  write(lines, raw) {
    const text = lines.join('');
    if (!this.offers.codec || raw < FRAME_MIN || raw > this.offers.frame) {
      this.socket.write(text);
      return;
    }
    const block = require('node:zlib').deflateSync(text, { level: 1 });
    const frame = { type: 'frame', codec: 'zlib', bytes: block.length, raw, lines: lines.length };
    this.socket.write(Buffer.concat([Buffer.from(`${JSON.stringify(frame)}\n`), block]));
  }
}

/** Shut down our side, read to the end and close: an unread reply would reset the connection. */
function farewell(socket, most) {
  return new Promise((resolve) => {
    const timer = setTimeout(() => {
      socket.destroy();
      resolve();
    }, most);
    socket.once('close', () => {
      clearTimeout(timer);
      resolve();
    });
    socket.end();
  });
}

// ---- spill ----

const { O_APPEND, O_CREAT, O_EXCL, O_NOFOLLOW, O_WRONLY } = fs.constants;

/**
 * A file of whole lines with a client of its own. Node.js has no flock, so nothing but its age tells others that it has
 * an owner: it is opened, appended to and closed at each write, and then looked at whether it is still there.
 */
class SpillFile {
  constructor(directory, service, client, last = 0) {
    this.client = client;
    this.last = last; // seq of its last message
    this.count = 0;
    this.size = 0;
    this.path = path.join(directory, `${service}.${process.pid}.${client}.ldjson`);
    const fd = fs.openSync(this.path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0o660);
    try {
      fs.fchmodSync(fd, 0o660); // for the group too: in a setgid spill dir that is the sidecar's
      this.inode = fs.fstatSync(fd).ino;
    } finally {
      fs.closeSync(fd);
    }
  }

  /** Write lines; how many got there whole, or -1 when somebody has taken the file meanwhile. */
  append(lines) {
    const data = Buffer.from(lines.join(''));
    let whole = 0;
    try {
      const fd = fs.openSync(this.path, O_WRONLY | O_APPEND | O_NOFOLLOW);
      try {
        const written = fs.writeSync(fd, data);
        whole = written ? data.lastIndexOf(10, written - 1) + 1 : 0;
        if (whole < written) fs.ftruncateSync(fd, this.size + whole);
      } finally {
        fs.closeSync(fd);
      }
    } catch {
      // the disk is full, or the file is gone, which is seen next
    }
    if (!this.isHere()) return -1;
    const done = whole === data.length ? lines.length : data.subarray(0, whole).toString().split('\n').length - 1;
    this.size += whole;
    this.count += done;
    this.last += done;
    return done;
  }

  isHere() {
    try {
      return fs.lstatSync(this.path).ino === this.inode;
    } catch {
      return false;
    }
  }

  rename(to) {
    try {
      fs.renameSync(this.path, to);
      this.path = to;
      return true;
    } catch {
      return false;
    }
  }

  /** Take it for sending: its lines, or nothing when somebody else has. */
  claim() {
    if (!this.isHere() || !this.rename(`${this.path}.taken`)) return undefined;
    try {
      return fs.readFileSync(this.path, 'utf8').split('\n').slice(0, -1).map((line) => `${line}\n`);
    } catch {
      return undefined;
    }
  }

  /** Give a claimed file to whoever takes it up. */
  leave() {
    this.rename(this.path.replace(/\.taken$/, ''));
  }

  remove() {
    try {
      fs.unlinkSync(this.path);
    } catch {
      // somebody else has
    }
  }
}

/** Not mkdir's `recursive`, which never returns where no directory can be made, as below /proc. */
function makeDirectory(directory) {
  const parent = path.dirname(directory);
  if (fs.existsSync(directory)) return;
  if (!fs.existsSync(parent)) makeDirectory(parent);
  fs.mkdirSync(directory, { mode: 0o700 });
}

/** An SDK's spill files, oldest first: the newest is written, only closed ones are sent. */
class Spool {
  constructor(directory, service) {
    this.files = [];
    this.streams = []; // all that there ever were, for the stats line
    this.writing = false; // into the newest
    this.taken = 0; // messages in files that somebody took while they were written
    this.retryAt = 0;
    this.directory = directory;
    this.service = service;
  }

  /** Append messages; how many there was room for. */
  write(entries) {
    let done = 0;
    while (done < entries.length && performance.now() >= this.retryAt) {
      if (!this.writing && !this.begin()) break;
      const file = this.files[this.files.length - 1];
      const lines = this.#fitting(entries, done, file);
      const written = lines.length ? file.append(lines) : 0;
      done += written < 0 ? this.#writeAgain(file, lines) : written;
      this.writing = done === entries.length;
      if (this.files[this.files.length - 1]?.count === 0) this.#giveUp(); // the disk is full
    }
    return done;
  }

  #fitting(entries, from, file) {
    const lines = [];
    let { size } = file;
    for (let index = from; index < entries.length; index += 1) {
      const line = numbered(entries[index].line, file.client, file.last + lines.length + 1);
      size += Buffer.byteLength(line);
      if (size > FILE_MAX) break;
      lines.push(line);
    }
    return lines;
  }

  /** Whether somebody who took the file read the last lines is unknown: a file of the same stream has them again. */
  #writeAgain(file, lines) {
    this.taken += file.count;
    this.files.pop();
    const again = this.open(file.client, file.last);
    if (!again) return 0;
    this.#add(again);
    return Math.max(0, again.append(lines));
  }

  begin() {
    // one more is being sent
    const file = this.files.length < FILES - 1 ? this.open(randomBytes(8).toString('hex')) : undefined;
    if (file) this.#add(file);
    else this.retryAt = performance.now() + 1000;
    return file !== undefined;
  }

  #add(file) {
    this.files.push(file);
    this.streams = [...this.streams.filter(({ client }) => client !== file.client), file].slice(-STREAMS_NAMED);
  }

  #giveUp() {
    this.retryAt = performance.now() + 1000;
    this.files.pop().remove();
  }

  /** Write what could not be delivered, with the seqs it has, to a file of the SDK's own client; how many lines. */
  leave(client, entries) {
    const file = entries.length ? this.open(client) : undefined;
    if (!file) return 0;
    let room = FILES * FILE_MAX - this.files.reduce((sum, { size }) => sum + size, 0);
    const fitting = entries.filter((entry) => (room -= entry.bytes) >= 0);
    const written = Math.max(0, file.append(fitting.map(({ line }) => line)));
    if (!written) file.remove();
    return written;
  }

  open(client, last) {
    const own = `/tmp/wafermon-${process.getuid()}`;
    let directory = this.directory ?? '/var/spool/wafermon';
    try {
      if (!this.directory) fs.accessSync(directory, fs.constants.W_OK | fs.constants.X_OK);
    } catch {
      directory = own;
    }
    try {
      makeDirectory(directory);
      const { mode, uid } = fs.lstatSync(directory);
      // somebody else has laid it there
      if (directory === own && ((mode & 0o170022) !== 0o040000 || uid !== process.getuid())) return undefined;
      return new SpillFile(directory, this.service, client, last);
    } catch {
      return undefined;
    }
  }
}

// ---- the sender ----

/** An SDK's messages, from the call to the acknowledgement. */
class Sender {
  constructor(settings) {
    const { service, address, tls, token, compress, buffer, spillDir, disabled } = settings;
    Object.assign(this, { service, address, tls, token, compress, buffer });
    this.origin = { service, host: os.hostname(), pid: process.pid };
    this.counts = { sent: 0, acked: 0, rejected: 0, dropped: 0, spilled: 0, handed_over: 0, resent: 0 };
    this.called = 0;
    this.portion = Math.min(PORTION, buffer);
    this.waiting = []; // {line, bytes}, without client and seq
    this.waitingBytes = 0;
    this.overflow = []; // the same, on the way to a spill file
    this.overflowBytes = 0;
    this.main = new Stream(this, randomBytes(8).toString('hex'));
    this.courier = undefined; // the stream of the spill file that is being sent
    this.spool = new Spool(spillDir, service);
    this.over = disabled;
    this.exiting = false; // the event loop has ended: what is called now goes to a spill file at once
    this.reported = 0; // drops
    this.departed = 0; // calls at the time of the last departure, likewise of the last and the last final stats line
    this.statsSent = 0;
    this.finalSent = 0;
    this.statsAt = 0;
    this.watchers = new Set();
    this.said = new Set();
    this.clock = new Clock();
    const { host } = this.origin;
    this.head = `,"service":"${service}","host":${quote(host)},"pid":${process.pid}`;
  }

  /** One line on stderr; what comes before its colon is said once. */
  say(text) {
    const [subject] = text.split(':', 1);
    if (this.said.has(subject)) return;
    this.said.add(subject);
    try {
      fs.writeSync(2, `wafermon: ${text}\n`);
    } catch {
      // there is no stderr
    }
  }

  refused(code, detail) {
    if (code !== 'bad_frame') return this.say(`the sidecar refuses: ${code} ${detail}`.trimEnd());
    this.compress = false;
    return this.say(`the sidecar refuses a compressed frame, sending plain lines: ${detail}`);
  }

  hello(client) {
    const { token, compress } = this;
    const hello = { v: 2, type: 'hello', client, ...this.origin, sdk: `node/${VERSION}`, ack: true };
    return `${json({ ...hello, token, compress: compress ? ['zlib'] : undefined }, BODY_MAX)}\n`;
  }

  /** Take a call's message. */
  put(type, ts, scope, values) {
    let entry;
    this.called += 1;
    if (this.over) {
      this.counts.dropped += 1;
      return;
    }
    try {
      entry = encode(type, ts, this.head + scope.text, values);
    } catch (error) {
      this.counts.dropped += 1;
      this.say(`a message could not be encoded: ${error}`);
      return;
    }
    if (this.main.up && (this.waiting.length >= this.portion || this.waitingBytes > PORTION_BYTES)) this.advance();
    if (this.exiting || this.full()) {
      this.overflow.push(entry);
      this.overflowBytes += entry.bytes;
      if (this.exiting || this.overflow.length >= PORTION || this.overflowBytes > PORTION_BYTES) this.spill();
    } else {
      this.waiting.push(entry);
      this.waitingBytes += entry.bytes;
    }
    this.immediate ??= setImmediate(() => {
      this.immediate = undefined;
      this.pump();
    });
  }

  full() {
    return this.waiting.length >= this.buffer || this.waitingBytes + BODY_MAX >= BYTES;
  }

  /** Number what waits, as far as the window has room for it, and send it. */
  advance() {
    const { main, waiting } = this;
    const batch = [];
    while (main.up && batch.length < waiting.length && main.windowBytes < BYTES) {
      const entry = waiting[batch.length];
      this.waitingBytes -= entry.bytes;
      batch.push(main.number(entry));
    }
    waiting.splice(0, batch.length);
    if (batch.length) main.send(batch);
  }

  spill() {
    const entries = this.overflow;
    this.overflow = [];
    this.overflowBytes = 0;
    const written = this.spool.write(entries);
    this.counts.spilled += written;
    this.counts.dropped += entries.length - written;
    this.counts.handed_over += this.spool.taken;
    this.spool.taken = 0;
  }

  /** One look at everything. */
  pump() {
    if (this.over || this.exiting) return;
    if (this.overflow.length) this.spill();
    this.main.connect();
    if (this.main.up) this.reportDrops();
    this.advance();
    if (this.main.up) this.deliverSpill();
    this.timer ??= setTimeout(() => this.tick(), TICK).unref();
    this.look();
  }

  reportDrops() {
    const count = this.counts.dropped - this.reported;
    if (!count) return;
    this.reported = this.counts.dropped;
    this.called += 1;
    const values = ['warning', `${count} messages dropped`, { kind: 'dropped', count }];
    this.main.send([this.main.number(encode(EVENT, this.clock.micros(), this.head, values))]);
  }

  /** Send closed spill files one by one, each over a connection of its own. */
  deliverSpill() {
    const { spool } = this;
    if (this.courier && !this.courier.window.length) {
      this.courier.hangUp();
      this.courier.file.remove();
      this.courier = undefined;
    }
    if (spool.writing && !this.full()) spool.writing = false;
    while (!this.courier && spool.files.length > Number(spool.writing)) {
      const file = spool.files.shift();
      const lines = file.claim();
      if (lines) this.courier = new Stream(this, file.client, file);
      else this.counts.handed_over += file.count;
      for (const line of lines ?? []) this.courier.keep(line, true);
    }
    this.courier?.connect();
  }

  /** What has to be looked at from time to time, for as long as there is something. */
  tick() {
    this.timer = undefined;
    this.main.judge();
    this.courier?.judge();
    if (this.called !== this.statsSent) {
      this.statsAt ||= performance.now() + STATS_AFTER;
      if (this.main.up && this.main.offers.stats && performance.now() >= this.statsAt) this.sendStats(false);
    }
    if (this.keepsAlive()) this.end();
    if (this.kept() || this.main.window.length || !this.main.up || (this.main.offers.stats && this.statsSent !== this.called)) {
      this.pump();
    }
  }

  /** Whether the process would have ended but for a write or a connect of ours. */
  keepsAlive() {
    const active = process.getActiveResourcesInfo?.() ?? [];
    return active.length > 0 && active.every((name) => OWN_REQUEST.test(name));
  }

  /** The program is at its end: deliver what can be delivered, then hold it up no longer. */
  async end() {
    if (this.over || this.departed === this.called) return;
    await this.depart(performance.now() + CLOSE);
    if (!this.kept()) return;
    this.main.lose();
    this.courier?.lose();
  }

  sendStats(final) {
    this.main.send([this.numberStats(final)]);
  }

  numberStats(final) {
    const { main, called, counts, spool } = this;
    this.statsAt = 0;
    this.statsSent = called;
    if (final) this.finalSent = called;
    const streams = spool.streams.map(({ client, last }) => ({ client, last }));
    const unsent = this.waiting.length + this.overflow.length;
    const values = [called, counts.dropped, unsent, main.seq, streams, final || undefined];
    return main.number(encode(STATS, this.clock.micros(), this.head, values), false);
  }

  /** Messages that were taken and are not settled. */
  kept() {
    const inFiles = this.spool.files.reduce((sum, { count }) => sum + count, 0);
    const sent = this.main.messages + (this.courier?.messages ?? 0);
    return this.waiting.length + this.overflow.length + inFiles + sent;
  }

  state() {
    if (this.full() && !this.over) return 'overflow';
    return this.main.up ? 'connected' : 'disconnected';
  }

  look() {
    for (const watcher of this.watchers) watcher();
  }

  /** Resolves once the condition holds, or after so many milliseconds; to whether it held. Keeps the process alive. */
  until(condition, timeout) {
    return new Promise((resolve) => {
      const settle = () => {
        clearTimeout(timer);
        this.watchers.delete(watcher);
        resolve(condition());
      };
      const watcher = () => {
        if (condition()) settle();
      };
      const timer = setTimeout(settle, Math.max(0, timeout));
      this.watchers.add(watcher);
      this.pump();
      watcher();
    });
  }

  /** Deliver what is waiting while there is hope, and tell that it was all. */
  async depart(deadline) {
    const { main } = this;
    const left = () => deadline - performance.now();
    this.departed = this.called;
    await this.until(() => !this.kept() || !(main.up || !main.failures), left());
    if (!main.up || !main.offers.stats || this.kept() || this.finalSent === this.called) return;
    this.sendStats(true);
    await this.until(() => !main.window.length || !main.up, left());
  }

  async close(timeout) {
    const deadline = performance.now() + timeout;
    if (this.called) await this.depart(deadline);
    const sockets = [this.main.release(), this.courier?.release()].filter(Boolean);
    this.leave();
    this.over = true;
    const most = Math.max(1, Math.min(500, deadline - performance.now()));
    await Promise.all(sockets.map((socket) => farewell(socket, most)));
  }

  /** The event loop has ended; a later listener of the process's exit may still call. */
  exit() {
    if (!this.over) this.leave();
    this.exiting = true;
  }

  /** Leave everything in spill files, for the sidecar to take up: at once, without the event loop. */
  leave() {
    const { main, courier, spool, counts } = this;
    if (this.overflow.length) this.spill();
    main.hangUp();
    courier?.hangUp();
    for (const entry of this.waiting) main.number(entry);
    this.waiting = [];
    this.waitingBytes = 0;
    if (this.finalSent !== this.called && (!main.welcomes || main.offers.stats)) this.numberStats(true);
    const messages = main.window.filter(({ counted }) => counted).length;
    const left = spool.leave(main.client, main.window);
    const written = Math.min(left, messages); // a stats line is the last
    counts.spilled += written;
    counts.dropped += messages - written;
    main.window = [];
    main.windowBytes = 0;
    main.messages = 0;
    counts.handed_over += written + this.kept();
    courier?.file.leave();
    this.courier = undefined;
    spool.files = [];
    spool.writing = false;
  }
}

// ---- trace and span ----

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
    const variables = {};
    if (this.spanId) variables.WAFERMON_SPAN_ID = this.spanId;
    if (!this.traceId) return variables;
    const given = /^(?!0{32})[0-9a-f]{32}$/.test(this.traceId);
    const trace = given ? this.traceId : createHash('sha256').update(this.traceId).digest('hex').slice(0, 32);
    variables.WAFERMON_TRACE_ID = this.traceId;
    variables.TRACEPARENT = `00-${trace}-${this.spanId ?? randomBytes(8).toString('hex')}-01`;
    return variables;
  }
}

// ---- the SDK ----

function readTls(env, say) {
  const options = {};
  for (const [name, variable] of [['ca', 'WAFERMON_TLS_CA'], ['cert', 'WAFERMON_TLS_CERT'], ['key', 'WAFERMON_TLS_KEY']]) {
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
    if ((buffer ?? undefined) !== undefined && !(Number.isSafeInteger(buffer) && buffer > 0)) {
      throw new RangeError(`a buffer holds at least one message: ${toText(buffer)}`);
    }
    this.#root = Scope.inherited((traceId ?? undefined) === undefined ? undefined : checkedTraceId(traceId), env);
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

  logEvent(level, message, context) {
    const known = checkedLevel(level);
    if (message === undefined || message === null) throw new TypeError('an event has a message');
    this.#put(EVENT, [known, typeof message === 'string' ? message : toText(message), checkedFields(context)]);
  }

  logMetric(name, value, unit, tags, kindOfMetric) {
    if (![undefined, null, 'gauge', 'counter'].includes(kindOfMetric)) {
      throw new RangeError(`a metric is a gauge or a counter: ${toText(kindOfMetric)}`);
    }
    const text = (unit ?? undefined) === undefined ? undefined : toText(unit);
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
    const fields = [cpu, mem, disk, network].map((value) => ((value ?? undefined) === undefined ? undefined : checkedNumber(value)));
    const known = fields.every((value) => value === undefined) ? this.#measure() : fields;
    this.#put(RESOURCE, known.map((value) => (typeof value === 'number' ? value : undefined)));
  }

  startSpan(name, traceId, tags) {
    const span = this.#open(name, traceId, tags);
    this.#scopes.enterWith(span.scope);
    return span.scope.spanId;
  }

  endSpan(spanId, status, tags) {
    if (![undefined, null, 'ok', 'error'].includes(status)) throw new RangeError(`a span ends ok or error, not ${toText(status)}`);
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
    const inherited = { ...process.env };
    delete inherited.WAFERMON_TRACE_ID;
    delete inherited.WAFERMON_SPAN_ID;
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

  #put(type, values, scope = this.#current(), ts = this.#sender.clock.micros()) {
    this.#sender.put(type, ts, scope, values);
  }

  #open(name, traceId, tags) {
    const around = this.#current();
    const trace = (traceId ?? undefined) === undefined ? around.traceId : checkedTraceId(traceId);
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

// ---- the process ----

// Its end concerns the process, so these few lines know all its SDKs.
const senders = new Set();

process.on('beforeExit', () => {
  for (const sender of senders) sender.end();
});
process.on('exit', () => {
  for (const sender of senders) sender.exit();
});

module.exports = { MonitoringSDK };
