/** The package: packed, installed into an empty folder, loaded both ways; its types. */
'use strict';

const assert = require('node:assert/strict');
const { execFileSync } = require('node:child_process');
const fs = require('node:fs');
const path = require('node:path');
const test = require('node:test');

const { folder } = require('./sidecar.js');

const HERE = path.join(__dirname, '..');

function run(directory, program, ...args) {
  return execFileSync(program, args, { cwd: directory, encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
}

function hasModule(name) {
  return fs.existsSync(path.join(HERE, 'node_modules', name));
}

test('it installs from its tarball and loads by import and by require, as one module', (t) => {
  const directory = folder(t);
  const quiet = ['--offline', '--no-audit', '--no-fund', '--loglevel=error'];
  const [{ filename }] = JSON.parse(run(HERE, 'npm', 'pack', '--json', '--pack-destination', directory));
  fs.writeFileSync(path.join(directory, 'package.json'), '{"name":"user","version":"1.0.0","private":true}');
  run(directory, 'npm', 'install', ...quiet, path.join(directory, filename));
  const installed = path.join(directory, 'node_modules', 'monitoring-sdk');
  assert.deepEqual(fs.readdirSync(path.join(directory, 'node_modules')).filter((name) => !name.startsWith('.')), ['monitoring-sdk']);
  assert.ok(!fs.existsSync(path.join(installed, 'tests')));
  fs.writeFileSync(path.join(directory, 'user.mjs'), `
    import { createRequire } from 'node:module';
    import { MonitoringSDK } from 'monitoring-sdk';
    import transport from 'monitoring-sdk/pino';
    const required = createRequire(import.meta.url)('monitoring-sdk');
    console.log(required.MonitoringSDK === MonitoringSDK, typeof transport);
    const sdk = new MonitoringSDK('user', { url: 'tcp://127.0.0.1:1', spillDir: '.' });
    sdk.logEvent('info', 'from the package');
    await sdk.close();
  `);
  assert.equal(run(directory, process.execPath, 'user.mjs'), 'true function\n');
  const [spill] = fs.readdirSync(directory).filter((name) => name.endsWith('.ldjson'));
  assert.match(fs.readFileSync(path.join(directory, spill), 'utf8'), /from the package/);
});

test('its types are right', { skip: hasModule('typescript') ? false : 'typescript is not installed' }, () => {
  const tsc = path.join(HERE, 'node_modules', 'typescript', 'bin', 'tsc');
  assert.equal(run(HERE, process.execPath, tsc, '-p', 'tests/types'), '');
});
