/** A sidecar for tests: real sockets, the protocol's hello, acks and frames, and a few manners. */
'use strict';

const { execFile } = require('node:child_process');
const fs = require('node:fs');
const net = require('node:net');
const os = require('node:os');
const path = require('node:path');
const tls = require('node:tls');
const zlib = require('node:zlib');

class Sidecar {
  constructor({ ack = true, features = [], compress, listen = { host: '127.0.0.1', port: 0 }, secure } = {}) {
    Object.assign(this, { ack, features, compress, address: listen, secure });
    this.hellos = [];
    this.messages = []; // each once
    this.seen = new Map(); // client: highest seq
    this.sockets = new Set();
    this.watchers = new Set();
  }

  async start() {
    const serve = (socket) => this.#serve(socket);
    this.server = this.secure ? tls.createServer(this.secure, serve) : net.createServer(serve);
    await new Promise((resolve) => this.server.listen(this.address, resolve));
    this.port = this.server.address().port;
    return this;
  }

  get url() {
    return `${this.secure ? 'tls' : 'tcp'}://127.0.0.1:${this.port}`;
  }

  stop() {
    for (const socket of this.sockets) socket.destroy();
    return new Promise((resolve) => this.server.close(resolve));
  }

  /** Resolves once the condition holds; rejects after 20 s. */
  until(condition) {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`not within 20 s: ${condition}`)), 20_000);
      const look = () => {
        if (!condition()) return;
        clearTimeout(timer);
        this.watchers.delete(look);
        resolve();
      };
      this.watchers.add(look);
      look();
    });
  }

  find(type) {
    return this.messages.filter((message) => message.type === type);
  }

  #serve(socket) {
    let rest = Buffer.alloc(0);
    let client;
    this.sockets.add(socket);
    socket.on('error', () => {});
    socket.on('close', () => this.sockets.delete(socket));
    const take = (line) => {
      const message = JSON.parse(line);
      if (client === undefined) {
        client = message.client;
        this.hellos.push(message);
        const acked = this.seen.get(client) ?? 0;
        const { features, compress } = this;
        socket.write(`${JSON.stringify({ v: 2, type: 'welcome', sidecar: 'test', acked, features, compress })}\n`);
      } else if (message.seq > (this.seen.get(client) ?? 0)) {
        this.seen.set(client, message.seq);
        this.messages.push(message);
      }
    };
    socket.on('data', (data) => {
      rest = Buffer.concat([rest, data]);
      for (let end = rest.indexOf(10); end >= 0; end = rest.indexOf(10)) {
        const line = rest.subarray(0, end).toString();
        const block = line.startsWith('{"type":"frame"') ? JSON.parse(line).bytes : 0;
        if (rest.length < end + 1 + block) break;
        const framed = block ? zlib.inflateSync(rest.subarray(end + 1, end + 1 + block)).toString() : `${line}\n`;
        for (const one of framed.split('\n').slice(0, -1)) take(one);
        rest = rest.subarray(end + 1 + block);
      }
      if (this.ack && this.seen.has(client)) socket.write(`{"type":"ack","seq":${this.seen.get(client)}}\n`);
      for (const look of this.watchers) look();
    });
  }
}

/** A folder that is removed after the test. */
function folder(t) {
  const made = fs.mkdtempSync(path.join(os.tmpdir(), 'wafermon-node-'));
  t.after(() => fs.rmSync(made, { recursive: true, force: true }));
  return made;
}

async function started(t, options) {
  const sidecar = await new Sidecar(options).start();
  t.after(() => sidecar.stop());
  return sidecar;
}

/** The lines of all spill files in a folder, without stats lines. */
function spilled(directory) {
  const files = fs.readdirSync(directory).filter((name) => /\.ldjson(\.taken)?$/.test(name));
  const lines = files.flatMap((name) => fs.readFileSync(path.join(directory, name), 'utf8').split('\n').slice(0, -1));
  return lines.map((line) => JSON.parse(line)).filter(({ type }) => type !== 'stats');
}

/** Run a program of ours to its end: its exit code, what it printed, how long it took in milliseconds. */
function program(source, env) {
  const file = path.join(env.WAFERMON_SPILL_DIR, `program-${process.hrtime.bigint()}.js`);
  const sdk = JSON.stringify(path.join(__dirname, '..', 'monitoring-sdk.js'));
  fs.writeFileSync(file, `const { MonitoringSDK } = require(${sdk});\n${source}`);
  return new Promise((resolve) => {
    const began = performance.now();
    execFile(process.execPath, [file], { env: { ...process.env, ...env }, timeout: 30_000 }, (error, stdout, stderr) => {
      resolve({ code: error ? error.code ?? error.signal : 0, stdout, stderr, took: performance.now() - began });
    });
  });
}

module.exports = { Sidecar, folder, program, spilled, started };
