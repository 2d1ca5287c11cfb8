/** The JavaScript heap after the start. */
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

/**
 * Gives back what the start has used up: the lists of a whole cluster leave a heap that is a third garbage, and V8
 * would keep it until memory is short. From here on it also prefers a small heap to a fast one, which suits a program
 * that now and then handles one change. Takes some 150 ms at 100,000 endpoints, so only while nothing else is on.
 */
export function shrinkHeap(): void {
  setFlagsFromString('--optimize-for-size');
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc') as () => void;
  setFlagsFromString('--no-expose-gc');
  // Only the first pass finds out which pages are nearly empty; the second moves what is left in them together.
  collect();
  collect();
}

/**
 * Collections without helper threads, for a process that connections go through: where CPUs are busy, the one that works
 * would wait for helpers that wait for a CPU, and all connections with it (up to 40 ms instead of 5 at a load of 20).
 */
export function collectAlone(): void {
  // Marking may not be changed any more once V8 runs.
  for (const work of ['scavenge', 'compaction', 'pointer-update'])
    setFlagsFromString(`--no-parallel-${work}`);
}
