/** Connections: one stream's messages, from their number to their acknowledgement. */
'use strict';

const dns = require('node:dns');
const net = require('node:net');

const { numbered } = require('./encoding.js');

// Bytes that are worth a compressed frame, and the most that go into one, or into one write.
const FRAME_MIN = 1 << 10;
const FRAME_MAX = 1 << 18;
const REPLY_MAX = 1 << 20; // bytes of a reply
const SILENCE = 5000; // milliseconds without a byte after which a connection that owes us one is dead

const UNIX_URL = /^unix:\/\/(\/.+)$/;
const URL_PATTERN = /^(tcp|tls):\/\/(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::([0-9]{1,5}))?\/?$/;

/** Scheme, host and port; of a Unix socket the path. Undefined for what is no sidecar's url. */
function parsedUrl(url) {
  const unix = UNIX_URL.exec(url);
  if (unix) return { path: unix[1] };
  const found = URL_PATTERN.exec(url);
  if (!found) return undefined;
  const [, scheme, ipv6, host, digits] = found;
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
  number(body, counted = true) {
    return this.keep(numbered(body, this.client, this.seq + 1), counted);
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
    const { address, tls, neutral } = this.sender;
    const done = (socket) => {
      if (socket) this.greet(socket);
      else this.lose();
    };
    this.cancel = neutral.runInAsyncScope(() => dial(address, tls, done));
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

  /** Release the connection without closing it: its socket, if there is one. */
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
      if (this.received.length > REPLY_MAX) throw new RangeError('an endless line');
    } catch {
      this.lose(); // it speaks another protocol
    }
    this.sender.pump();
  }

  answer(reply) {
    const { type, seq } = reply;
    if (type === 'ack') this.settle(seq);
    else if (type === 'welcome' && this.link === Link.GREETING && (reply.v ?? 2) === 2) this.welcome(reply);
    else if (type === 'error' && Number.isInteger(seq)) this.reject(seq);
    else if (type === 'error') this.sender.refused(String(reply.code), String(reply.detail ?? ''));
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

module.exports = { Stream, farewell, parsedUrl };
