// The web front of the API: web-front.mjs API MAPS [PORT]
//
// People see at / which lots have come and how good they are, with the maps of their wafers. POST /lots/NAME goes on to the API; what takes
// how long is seen in the lot's own trace.

import { createReadStream } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { createServer } from 'node:http';
import { join } from 'node:path';

import { MonitoringSDK } from '../../sdk/node/monitoring-sdk.mjs'; // 'monitoring-sdk' where it is installed

const [api, maps, port = '0'] = process.argv.slice(2);
const MOST_BYTES = 16 << 20;
const sdk = new MonitoringSDK('web-front');
const lots = new Map(); // name -> the API's answer

async function bodyOf(request) {
  const parts = [];
  let bytes = 0;
  for await (const part of request) {
    bytes += part.length;
    if (bytes <= MOST_BYTES) parts.push(part);
  }
  return bytes <= MOST_BYTES ? Buffer.concat(parts) : null;
}

/** Hand a lot to the API: status and content of the answer. Over HTTP the job's name is all that goes along. */
async function handOver(name, lot) {
  return sdk.span('request', { traceId: `upload-${name}`, tags: { lot: name } }, async () => {
    const began = performance.now();
    const answer = await fetch(`${api}/lots/${name}`, { method: 'POST', body: lot });
    const content = await answer.json();
    sdk.logMetric('answer_time', (performance.now() - began) / 1000, 's', { lot: name });
    sdk.logEvent(answer.ok ? 'info' : 'warning', 'the API has answered', { lot: name, status: answer.status });
    lots.set(name, content);
    return { status: answer.status, content };
  });
}

async function page() {
  const drawn = await readdir(maps).catch(() => []); // none has been drawn yet
  const rows = [...lots].map(([name, { wafers, error }]) => {
    const yields = wafers?.map((wafer) => `${wafer.yield.toFixed(1)} %`).join(', ');
    const images = drawn.filter((file) => file.startsWith(`${name}-`)).sort();
    const shown = images.map((file) => `<img src="/maps/${file}" width="80" alt="${file}">`).join('');
    return `<tr><td>${name}</td><td>${yields ?? error}</td><td>${shown}</td></tr>`;
  });
  return `<!doctype html><title>Lots</title><table><tr><th>lot<th>yield<th>maps</tr>\n${rows.join('\n')}\n</table>\n`;
}

function reply(response, status, type, content) {
  response.writeHead(status, { 'Content-Type': type });
  response.end(content);
}

async function answer(request, response) {
  const lot = /^\/lots\/([\w.-]{1,64})$/.exec(request.url);
  const map = /^\/maps\/([\w.-]{1,80}\.svg)$/.exec(request.url);
  if (request.method === 'POST' && lot) {
    const body = await bodyOf(request);
    const { status, content } = body
      ? await handOver(lot[1], body)
      : { status: 413, content: { error: `a lot has at most ${MOST_BYTES} bytes` } };
    reply(response, status, 'application/json', `${JSON.stringify(content)}\n`);
  } else if (request.method === 'GET' && map) {
    const file = createReadStream(join(maps, map[1]));
    file.on('open', () => response.writeHead(200, { 'Content-Type': 'image/svg+xml' }));
    file.on('error', () => reply(response, 404, 'text/plain', 'no such map\n'));
    file.pipe(response);
  } else if (request.method === 'GET' && request.url === '/') {
    reply(response, 200, 'text/html', await page());
  } else {
    reply(response, 404, 'text/plain', 'GET / or POST /lots/NAME\n');
  }
}

const server = createServer((request, response) => {
  answer(request, response).catch((error) => {
    sdk.logEvent('error', 'a request failed', { url: request.url, reason: String(error) });
    reply(response, 502, 'application/json', `${JSON.stringify({ error: 'the API does not answer' })}\n`);
  });
});
server.listen(Number(port), '127.0.0.1', () => console.log(`http://127.0.0.1:${server.address().port}`));
process.on('SIGTERM', () => {
  server.close(async () => {
    sdk.logResource();
    console.error(`web-front: ${sdk.getStats().called} messages`);
    await sdk.close();
  });
  server.closeIdleConnections?.(); // from Node.js 18.2 on
});
