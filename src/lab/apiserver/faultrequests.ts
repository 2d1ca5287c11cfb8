/** `POST /lab/faults`: switching faults on and off from another process. */
import type { Faults } from './faults.ts';
import { isObject, type JsonObject } from './objects.ts';
import type { Registry } from './registry.ts';
import { badRequest, pathNotFound } from './status.ts';

/**
 * The body is an object with any of: `refuse`, `stall`, `watchesStalled` (booleans); `answer: {code, times,
 * retryAfterSeconds}`; `body: "text"`; `cutWatches: clean | mid-line | reset | malformed`; `watchLine: "text"`;
 * `compact: true`; `clear: true`.
 */
export function handleFaultRequest(
  { registry, faults }: { registry: Registry; faults: Faults },
  url: URL,
  text: string,
): JsonObject {
  if (url.pathname !== '/lab/faults') throw pathNotFound();
  const wanted: unknown = text === '' ? {} : JSON.parse(text);
  if (!isObject(wanted)) throw badRequest('faults: expected an object');
  if (wanted['clear'] === true) faults.clear();
  for (const name of ['refuse', 'stall', 'watchesStalled'] as const) {
    const value = wanted[name];
    if (typeof value === 'boolean') faults[name] = value;
  }
  const { answer, body, cutWatches, watchLine } = wanted;
  if (isObject(answer)) {
    const { code, times, retryAfterSeconds } = answer;
    faults.answerWith({
      code: Number(code ?? 500),
      times: Number(times ?? 1),
      ...(retryAfterSeconds === undefined ? {} : { retryAfterSeconds: Number(retryAfterSeconds) }),
    });
  }
  if (typeof body === 'string') faults.answerBody(body);
  if (typeof watchLine === 'string') faults.writeToWatches(watchLine);
  if (wanted['compact'] === true) registry.compact();
  const ways = ['clean', 'mid-line', 'reset', 'malformed'] as const;
  const way = ways.find((one) => one === cutWatches);
  const cut = way === undefined ? 0 : faults.cutWatches(way);
  return { revision: registry.storage.revision, watches: faults.watchCount, cut };
}
