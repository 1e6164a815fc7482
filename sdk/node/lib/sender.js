/** The engine of an SDK: a queue, the stream that it goes to, the spill files that take what finds no room there. */
'use strict';

const { AsyncResource } = require('node:async_hooks');
const { randomBytes } = require('node:crypto');
const fs = require('node:fs');
const os = require('node:os');

const { BODY_MAX, EVENT, STATS, encode, json, quote, sizeOf } = require('./encoding.js');
const { Spool } = require('./spool.js');
const { Stream, farewell } = require('./stream.js');

const VERSION = '2.0.0';
const BYTES = 4 << 20; // what may wait to be sent; as many again may be sent and unacknowledged
// A caller that does not let the event loop turn sends, or spills, so many messages or characters at a time by itself.
const PORTION = 256;
const PORTION_SIZE = 1 << 16;
// Milliseconds: between two looks at what may have gone silent; of an exit; from a message to its stats line.
const TICK = 1000;
const CLOSE = 2000;
const STATS_AFTER = 5000;
// What alone keeps a process alive that would have ended but for a write or a connect of ours.
const OWN_REQUEST = /^(?:(?:TCP|Pipe)ConnectWrap|(?:Simple)?WriteWrap|ShutdownWrap|GetAddrInfoReqWrap)$/;

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

/** An SDK's messages, from the call to the acknowledgement. */
class Sender {
  constructor(settings) {
    const { service, address, tls, token, compress, buffer, spillDir, disabled } = settings;
    Object.assign(this, { service, address, tls, token, compress, buffer });
    this.origin = { service, host: os.hostname(), pid: process.pid };
    this.counts = { sent: 0, acked: 0, rejected: 0, dropped: 0, spilled: 0, handed_over: 0, resent: 0 };
    this.called = 0;
    this.portion = Math.min(PORTION, buffer);
    this.waiting = []; // messages as `put` makes them
    this.waitingSize = 0; // characters: what memory they take, more or less
    this.overflow = []; // the same, on the way to a spill file
    this.overflowSize = 0;
    this.turn = () => {
      this.scheduled = undefined;
      this.pump();
    };
    this.main = new Stream(this, randomBytes(8).toString('hex'));
    this.courier = undefined; // the stream of the spill file that is being sent
    this.spool = new Spool(spillDir, service);
    this.over = disabled;
    this.ending = false; // the event loop was empty once: nothing of ours may turn it any more
    this.exiting = false; // the event loop has ended: what is called now goes to a spill file at once
    this.reported = 0; // drops
    this.departed = 0; // calls at the time of the last departure, likewise of the last and the last final stats line
    this.statsSent = 0;
    this.finalSent = 0;
    this.statsAt = 0;
    this.watchers = new Set();
    this.said = new Set();
    this.clock = new Clock();
    // Connections live long: they must not keep what a caller's AsyncLocalStorage holds.
    this.neutral = new AsyncResource('wafermon');
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
    return this.say(`the sidecar refuses compression, so lines go plainly: ${code} ${detail}`.trimEnd());
  }

  hello(client) {
    const { token, compress } = this;
    const hello = { v: 2, type: 'hello', client, ...this.origin, sdk: `node/${VERSION}`, ack: true };
    return `${json({ ...hello, token, compress: compress ? ['zlib'] : undefined }, BODY_MAX)}\n`;
  }

  /**
   * Take a call's message. Its values are the SDK's own, so most messages are encoded when the call has returned, many at a
   * time, which costs less each; what is nested or long is encoded at once, when it is known how much memory it takes.
   */
  put(type, ts, scope, values) {
    this.called += 1;
    if (this.over) {
      this.counts.dropped += 1;
      return;
    }
    const message = { type, ts, scope, values, size: sizeOf(values), body: undefined };
    if (message.size === undefined && !this.encodeNow(message)) return;
    if (this.main.up && (this.waiting.length >= this.portion || this.waitingSize > PORTION_SIZE)) this.advance();
    if (this.exiting || this.full()) {
      this.overflow.push(message);
      this.overflowSize += message.size;
      if (this.exiting || this.overflow.length >= PORTION || this.overflowSize > PORTION_SIZE) this.spill();
    } else {
      this.waiting.push(message);
      this.waitingSize += message.size;
    }
    this.scheduled ??= this.ending ? setTimeout(this.turn, 1).unref() : setImmediate(this.turn);
  }

  encodeNow(message) {
    try {
      message.body = this.encoded(message);
      message.size = message.body.length;
      return true;
    } catch (error) {
      this.counts.dropped += 1;
      this.say(`a message could not be encoded: ${error}`);
      return false;
    }
  }

  encoded({ type, ts, scope, values, body }) {
    return body ?? encode(type, ts, this.head + scope.text, values);
  }

  full() {
    return this.waiting.length >= this.buffer || this.waitingSize + BODY_MAX >= BYTES;
  }

  /** Number what waits, as far as the window has room for it, and send it. */
  advance() {
    const { main, waiting } = this;
    const batch = [];
    while (main.up && batch.length < waiting.length && main.windowBytes < BYTES) {
      const message = waiting[batch.length];
      this.waitingSize -= message.size;
      batch.push(main.number(this.encoded(message)));
    }
    waiting.splice(0, batch.length);
    if (batch.length) main.send(batch);
  }

  spill() {
    const bodies = this.overflow.map((message) => this.encoded(message));
    this.overflow = [];
    this.overflowSize = 0;
    const written = this.spool.write(bodies);
    this.counts.spilled += written;
    this.counts.dropped += bodies.length - written;
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
    const { window, up, offers } = this.main;
    if (!up || window.length || this.kept() || (offers.stats && this.statsSent !== this.called)) this.pump();
  }

  /** Whether the process would have ended but for a write or a connect of ours. */
  keepsAlive() {
    const active = process.getActiveResourcesInfo?.() ?? [];
    return active.length > 0 && active.every((name) => OWN_REQUEST.test(name));
  }

  /** The event loop is empty: once, this fills it with the delivery of what is waiting. */
  beforeExit() {
    if (!this.ending) this.end();
    this.ending = true;
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
    const streams = spool.streams.filter(({ last }) => last).map(({ client, last }) => ({ client, last }));
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
    if (condition()) return Promise.resolve(true);
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
    for (const message of this.waiting) main.number(this.encoded(message));
    this.waiting = [];
    this.waitingSize = 0;
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

module.exports = { CLOSE, Sender };
