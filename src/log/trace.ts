/**
 * Where a change can be watched on its way from the API server to the kernel. A program preloaded with
 * `node --import` may subscribe (`node:diagnostics_channel`) and take the time; the benchmark does. While nobody
 * does, each point costs one comparison.
 */
import { channel, type Channel } from 'node:diagnostics_channel';

/** Bytes of a watch or list were received; nothing of them is decoded yet. */
export const received = channel('pointsman:received');
/** A sync begins; what changed is not taken yet. The message is the IP family. */
export const syncBegins = channel('pointsman:sync-begins');
/** The changes of a sync are known. The message is the IP family. */
export const changesTaken = channel('pointsman:changes-taken');
/** Everything a program is to read has been written to it. */
export const inputWritten = channel('pointsman:input-written');
/** The rules of a sync are in force. The message is the IP family. */
export const syncDone = channel('pointsman:sync-done');

/** Publishes if anybody listens. */
export function passed(point: Channel, message: string): void {
  if (point.hasSubscribers) point.publish(message);
}
