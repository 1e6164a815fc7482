// Reads files and tells the sidecar about it: node example.mjs FILE...
//
// The address comes from WAFERMON_URL (tcp://127.0.0.1:7411 where that is not set). It works without a sidecar too.

import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';

import { MonitoringSDK } from './monitoring-sdk.mjs'; // 'monitoring-sdk' where it is installed

const names = process.argv.length > 2 ? process.argv.slice(2) : [fileURLToPath(import.meta.url)];
const sdk = new MonitoringSDK('example', { traceId: 'job-4711' });
let done = 0;

async function read(name) {
  await sdk.span('read', { tags: { file: name } }, async () => {
    try {
      const data = await readFile(name);
      sdk.logEvent('info', 'read', { file: name, lines: data.toString().split('\n').length - 1 });
      sdk.logMetric('bytes_read', data.length, 'By', { file: name });
    } catch (error) {
      sdk.logEvent('error', 'unreadable', { file: name, reason: error.code });
    }
  });
  done += 1;
  sdk.logProgress('job-4711', (100 * done) / names.length);
}

await Promise.all(names.map(read)); // all at once: each event finds its own span
sdk.logResource();
sdk.logProgress('job-4711', 100, 'done');
const delivered = await sdk.flush(2000);
await sdk.close();
console.log(`${sdk.getStats().called} messages, ${delivered ? 'all acknowledged' : 'left for the sidecar'}`);
