/**
 * What a call costs, beside pino writing the same to a file in the same run, where pino is installed.
 *
 *     node bench.js [SECONDS]
 *
 * Each way gets the same context of four at 5,000 calls per second, timed call by call; the event loop turns between them,
 * as in a server. Then a burst of 10,000 in one go. The sidecar is a process of its own that acknowledges what comes, or
 * one that accepts and never answers, or none at all.
 */
'use strict';

const { fork } = require('node:child_process');
const fs = require('node:fs');
const net = require('node:net');
const os = require('node:os');
const path = require('node:path');

const { MonitoringSDK } = require('./monitoring-sdk.js');

const RATE = 5000;
const CONTEXT = { file: 'lot-4711.dat', rows: 1250, ratio: 0.75, ok: true };

/** A sidecar just good enough to be fast. */
function serve(answers) {
  const server = net.createServer((socket) => {
    let seq = -1; // the hello is no message
    socket.on('error', () => {});
    if (!answers) return;
    socket.on('data', (data) => {
      const welcome = seq < 0 ? '{"type":"welcome","v":2,"sidecar":"bench","acked":0,"max_line":65536}\n' : '';
      for (const byte of data) seq += Number(byte === 10);
      socket.write(`${welcome}{"type":"ack","seq":${seq}}\n`);
    });
  });
  server.listen(0, '127.0.0.1', () => process.send(server.address().port));
}

function started(answers) {
  const child = fork(__filename, ['--serve', answers ? 'yes' : 'no']);
  return new Promise((resolve) => {
    child.once('message', (port) => resolve({ url: `tcp://127.0.0.1:${port}`, child }));
  });
}

function timed(call) {
  const before = performance.now();
  call();
  return (performance.now() - before) * 1000;
}

function paced(call, seconds) {
  return new Promise((resolve) => {
    const took = [];
    const began = performance.now();
    const turn = () => {
      if (performance.now() >= began + (took.length * 1000) / RATE) took.push(timed(call));
      if (took.length < seconds * RATE) setImmediate(turn);
      else resolve(took);
    };
    turn();
  });
}

function report(name, took) {
  took.sort((one, other) => one - other);
  const at = (share) => took[Math.floor(took.length * share)].toFixed(2).padStart(8);
  console.log(`${name.padEnd(34)} p50 ${at(0.5)}  p99 ${at(0.99)}  p99.9 ${at(0.999)}  max ${at(0.9999999)} us`);
}

async function benchPino(folder, seconds) {
  let pino;
  try {
    pino = require('pino');
  } catch {
    console.log('pino is not installed');
    return;
  }
  for (const sync of [true, false]) {
    const file = pino.destination({ dest: path.join(folder, `pino-${sync}.log`), sync, minLength: sync ? 0 : 4096 });
    await new Promise((resolve) => file.once('ready', resolve));
    const logger = pino({}, file);
    const call = () => logger.info(CONTEXT, 'file read');
    await paced(call, 0.5); // warms up
    report(`pino to a file${sync ? '' : ', buffered (sync: false)'}`, await paced(call, seconds));
  }
}

async function benchSdk(name, url, folder, seconds) {
  const sdk = new MonitoringSDK('bench', { url, spillDir: path.join(folder, name) });
  const call = () => sdk.logEvent('info', 'file read', CONTEXT);
  await paced(call, 0.5);
  report(`logEvent, sidecar ${name}`, await paced(call, seconds));
  const burst = [];
  for (let count = 0; count < 10_000; count += 1) burst.push(timed(call));
  report(`  a burst of 10,000, sidecar ${name}`, burst);
  const { spilled, dropped } = sdk.getStats();
  console.log(`  spilled ${spilled}, dropped ${dropped}`);
  await sdk.close(500);
}

async function main(seconds) {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'wafermon-bench-'));
  const servers = { up: await started(true), absent: { url: 'tcp://127.0.0.1:1' }, hung: await started(false) };
  console.log(`Node.js ${process.version}`);
  await benchPino(folder, seconds);
  for (const [name, { url }] of Object.entries(servers)) await benchSdk(name, url, folder, seconds);
  for (const { child } of Object.values(servers)) child?.kill();
  fs.rmSync(folder, { recursive: true });
}

if (process.argv[2] === '--serve') serve(process.argv[3] === 'yes');
else main(Number(process.argv[2] ?? 3));
