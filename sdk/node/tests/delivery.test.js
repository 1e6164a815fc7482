/** Connections of every kind, compression, spill files. */
'use strict';

const assert = require('node:assert/strict');
const { execFileSync } = require('node:child_process');
const fs = require('node:fs');
const path = require('node:path');
const test = require('node:test');

const { MonitoringSDK } = require('../monitoring-sdk.js');
const { Sidecar, folder, spilled, started } = require('./sidecar.js');

const NOBODY = 'tcp://127.0.0.1:1';

function withEnv(t, variables) {
  const before = { ...process.env };
  Object.assign(process.env, variables);
  t.after(() => {
    process.env = before;
  });
}

function opened(t, options) {
  const sdk = new MonitoringSDK('delivery', { spillDir: folder(t), ...options });
  t.after(() => sdk.close(100));
  return sdk;
}

function openssl(directory, ...args) {
  execFileSync('openssl', args, { cwd: directory, stdio: 'pipe' });
}

/** An authority, and certificates of 127.0.0.1 and of a client that it has signed. */
function certificates(directory) {
  const days = ['-days', '2', '-nodes', '-newkey', 'rsa:2048'];
  openssl(directory, 'req', '-x509', ...days, '-subj', '/CN=ca', '-keyout', 'ca.key', '-out', 'ca.pem');
  fs.writeFileSync(path.join(directory, 'san'), 'subjectAltName=IP:127.0.0.1');
  for (const name of ['server', 'client']) {
    openssl(directory, 'req', ...days.slice(2), '-subj', `/CN=${name}`, '-keyout', `${name}.key`, '-out', `${name}.csr`);
    const signed = ['-CA', 'ca.pem', '-CAkey', 'ca.key', '-CAcreateserial', '-days', '2', '-extfile', 'san'];
    openssl(directory, 'x509', '-req', '-in', `${name}.csr`, ...signed, '-out', `${name}.pem`);
  }
  return (name) => path.join(directory, name);
}

test('mutual TLS', async (t) => {
  const file = certificates(folder(t));
  const secure = {
    ca: fs.readFileSync(file('ca.pem')),
    cert: fs.readFileSync(file('server.pem')),
    key: fs.readFileSync(file('server.key')),
    requestCert: true,
    rejectUnauthorized: true,
  };
  const sidecar = await started(t, { secure });
  const names = { WAFERMON_TLS_CA: 'ca.pem', WAFERMON_TLS_CERT: 'client.pem', WAFERMON_TLS_KEY: 'client.key' };
  withEnv(t, Object.fromEntries(Object.entries(names).map(([name, value]) => [name, file(value)])));
  const sdk = opened(t, { url: sidecar.url });
  for (let index = 0; index < 500; index += 1) sdk.logEvent('info', 'm', { index });
  assert.equal(await sdk.flush(), true);
  assert.equal(sidecar.messages.length, 500);
  assert.equal([...sidecar.sockets][0].getPeerCertificate().subject.CN, 'client');
});

test('a sidecar whose certificate nobody vouches for gets nothing', async (t) => {
  const file = certificates(folder(t));
  const secure = { cert: fs.readFileSync(file('server.pem')), key: fs.readFileSync(file('server.key')) };
  const sidecar = await started(t, { secure });
  const sdk = opened(t, { url: sidecar.url });
  sdk.logEvent('info', 'm');
  assert.equal(await sdk.flush(500), false);
  assert.equal(sidecar.hellos.length, 0);
  assert.equal(sdk.getStats().waiting, 1);
});

test('all addresses of a name are tried within one attempt', async (t) => {
  const sidecar = await started(t); // on 127.0.0.1 alone, while localhost may be ::1 first
  const sdk = opened(t, { url: `tcp://localhost:${sidecar.port}` });
  sdk.logEvent('info', 'm');
  assert.equal(await sdk.flush(), true);
  assert.equal(sdk.getStats().reconnects, 0);
});

test('compressed frames, of what is worth it', async (t) => {
  withEnv(t, { WAFERMON_COMPRESS: 'zlib' });
  const sidecar = await started(t, { compress: 'zlib' });
  const sdk = opened(t, { url: sidecar.url, buffer: 5000 });
  for (let index = 0; index < 3000; index += 1) sdk.logEvent('info', 'gr\u00fc\u00df', { index });
  assert.equal(await sdk.flush(), true);
  assert.deepEqual(sidecar.hellos[0].compress, ['zlib']);
  assert.deepEqual(sidecar.messages.map(({ context }) => context.index), Array.from({ length: 3000 }, (_, index) => index));
});

test('spill files are for the group too, whatever the umask', async (t) => {
  const directory = folder(t);
  const before = process.umask(0o077);
  t.after(() => process.umask(before));
  const sdk = opened(t, { url: NOBODY, buffer: 1, spillDir: directory });
  for (let index = 0; index < 5; index += 1) sdk.logEvent('info', 'm');
  assert.equal(sdk.getStats().spilled, 4);
  const [name] = fs.readdirSync(directory);
  assert.equal(fs.statSync(path.join(directory, name)).mode & 0o777, 0o660);
});

test('a spill file that was taken while it was written is followed by another of the same stream', async (t) => {
  const directory = folder(t);
  const sdk = opened(t, { url: NOBODY, buffer: 1, spillDir: directory });
  for (let index = 0; index < 11; index += 1) sdk.logEvent('info', 'm', { index });
  assert.equal(sdk.getStats().spilled, 10);
  const [name] = fs.readdirSync(directory);
  fs.renameSync(path.join(directory, name), path.join(directory, `${name}.taken`));
  for (let index = 11; index < 14; index += 1) sdk.logEvent('info', 'm', { index });
  const stats = sdk.getStats();
  assert.equal(stats.handed_over, 10);
  assert.equal(stats.waiting, 4);
  assert.deepEqual(fs.readdirSync(directory).sort(), [name, `${name}.taken`]);
  const lines = spilled(directory);
  assert.equal(new Set(lines.map(({ client }) => client)).size, 1);
  assert.deepEqual(lines.map(({ seq }) => seq).sort((one, other) => one - other), Array.from({ length: 13 }, (_, index) => index + 1));
});

test('a spill file that was taken as its last line was written is written again with the same seqs', async (t) => {
  const directory = folder(t);
  const sdk = opened(t, { url: NOBODY, buffer: 1, spillDir: directory });
  for (let index = 0; index < 3; index += 1) sdk.logEvent('info', 'm', { index });
  assert.equal(sdk.getStats().spilled, 2);
  const [name] = fs.readdirSync(directory);
  const write = fs.writeSync;
  t.mock.method(fs, 'writeSync', (...args) => {
    const written = write(...args);
    if (fs.existsSync(path.join(directory, name)) && !fs.existsSync(path.join(directory, `${name}.taken`))) {
      fs.renameSync(path.join(directory, name), path.join(directory, `${name}.taken`)); // between write and look
    }
    return written;
  });
  sdk.logEvent('info', 'm', { index: 3 });
  assert.equal(sdk.getStats().handed_over, 2);
  const read = (file) => fs.readFileSync(path.join(directory, file), 'utf8').split('\n').slice(0, -1);
  assert.equal(read(`${name}.taken`).length, 3);
  assert.deepEqual(read(name), read(`${name}.taken`).slice(2));
});

test('what spilled is sent once the sidecar is back, and stats lines name its streams', async (t) => {
  const sidecar = await new Sidecar({ features: ['stats'] }).start();
  const { port } = sidecar;
  await sidecar.stop();
  const directory = folder(t);
  const sdk = opened(t, { url: `tcp://127.0.0.1:${port}`, buffer: 10, spillDir: directory });
  for (let index = 0; index < 1000; index += 1) sdk.logEvent('info', 'm', { index });
  assert.equal(sdk.getStats().state, 'overflow');
  sidecar.address = { host: '127.0.0.1', port };
  await sidecar.start();
  t.after(() => sidecar.stop());
  assert.equal(await sdk.flush(20_000), true);
  await sdk.close();
  assert.equal(sidecar.find('event').length, 1000);
  const [final] = sidecar.find('stats').slice(-1);
  assert.equal(final.final, true);
  assert.equal(final.called, 1000);
  assert.equal(final.streams.reduce((sum, { last }) => sum + last, 0), 990);
  assert.deepEqual(fs.readdirSync(directory), []);
});
