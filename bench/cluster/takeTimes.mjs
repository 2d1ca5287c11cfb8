/**
 * Preloaded into our own program (`node --import`): takes the time at the points of `src/log/trace.ts`, and tells on
 * request. A change counts from the last bytes received before its sync.
 */
import { subscribe } from 'node:diagnostics_channel';
import { writeHeapSnapshot } from 'node:v8';

const now = () => Number(process.hrtime.bigint()) / 1e6;
/** Milliseconds of each IPv4 sync. */
let syncs = [];
let lastReceived = 0;
let current;

subscribe('pointsman:received', () => {
  lastReceived = now();
});
subscribe('pointsman:sync-begins', (family) => {
  if (family === 'IPv4') current = { received: lastReceived, begins: now(), taken: 0, written: 0, done: 0 };
});
subscribe('pointsman:changes-taken', (family) => {
  if (family === 'IPv4' && current !== undefined) current.taken = now();
});
subscribe('pointsman:input-written', () => {
  if (current !== undefined) current.written = now();
});
subscribe('pointsman:sync-done', (family) => {
  if (family !== 'IPv4' || current === undefined) return;
  current.done = now();
  syncs.push(current);
  current = undefined;
});

if (process.send !== undefined) {
  process.on('message', ({ id, verb, file }) => {
    if (verb === 'forget') syncs = [];
    if (verb === 'heap') writeHeapSnapshot(file);
    process.send({ id, value: verb === 'syncs' ? syncs : process.memoryUsage() });
  });
  process.channel.unref();
}
