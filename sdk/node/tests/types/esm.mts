// What a program in TypeScript writes, and what the compiler has to refuse.
import { MonitoringSDK, type Stats } from 'monitoring-sdk';
import monitoringTransport from 'monitoring-sdk/pino';

const sdk = new MonitoringSDK('types', { url: 'unix:///run/wafermon/wafermon.sock', buffer: 10, token: undefined });
sdk.logEvent('info', 'read', { rows: 5, nested: { list: [1, 'two', null] }, at: new Date(), big: 5n });
sdk.logEvent('WARN', new Error('message'));
sdk.logEvent(30, 'by number');
sdk.logMetric('bytes_read', 5, 'By', { disk: 'sda', slot: 3 }, 'counter');
sdk.logProgress('job-1', 55.5, 'done');
sdk.logResource();
sdk.logResource({ cpu: 1.5 });
const id: string = sdk.startSpan('load', 'job-1', { file: 'x' });
sdk.endSpan(id, 'error');
const five: number = sdk.span('sync', () => 5);
const later: Promise<number> = sdk.span('async', { tags: { five } }, async (spanId) => spanId.length);
const stats: Stats = sdk.getStats();
const flushed: boolean = await sdk.flush(100);
await sdk.close();
console.log(await later, stats.handed_over, flushed, sdk.childEnv().TRACEPARENT, monitoringTransport({ sdk }).writable);

// @ts-expect-error an unknown level
sdk.logEvent('loud', 'message');
// @ts-expect-error a value that is no number
sdk.logMetric('name', 'many');
// @ts-expect-error another status
sdk.endSpan(id, 'fine');
// @ts-expect-error no function
sdk.span('name', { tags: {} });
