/** Connections that others make while we look. */
import type { Case, KnownFlow } from '../case.ts';
import { startsHere } from '../packet.ts';
import { readFlowsTo, watchFlowsTo } from '../sources/kernel.ts';
import { flowKey, isAnybody, translatedTo, tracedMost, untranslated } from './happened.ts';
import type { Happened, SeenConnection } from './happened.ts';
import type { KernelTrace } from './kernelTrace.ts';
import { traceEnd } from './layOver.ts';
import { recordWhile } from './recorder.ts';

/** Milliseconds between two looks at how many have come. */
const lookEvery = 50;

/**
 * Waits for new connections to the address asked about: from the client asked about, or from anybody where the
 * question is about nobody in particular. Needs root.
 * @param known connections that are there already
 * @param onReady from now on whoever comes is seen
 */
export async function watchOthers(
  given: Case,
  count: number,
  milliseconds: number,
  known: ReadonlyMap<string, KnownFlow>,
  onReady: () => void,
): Promise<Happened> {
  const { packet } = given;
  const source = isAnybody(given) ? undefined : packet.origin.address;
  const flows = new Map<string, KnownFlow>();
  const note = (flow: KnownFlow): void => {
    const key = flowKey(flow);
    if (known.has(key) || (source !== undefined && flow.source !== source)) return;
    if (flows.size < count || flows.has(key)) flows.set(key, flow);
  };
  const events = watchFlowsTo(packet, note);
  try {
    const recording = await recordWhile(
      {
        packet,
        hook: startsHere(packet.origin) ? 'output' : 'prerouting',
        source,
        sourcePorts: undefined,
        most: Math.min(count, tracedMost),
      },
      async (recorder) => {
        onReady();
        const end = Date.now() + milliseconds;
        while (Date.now() < end && Math.max(flows.size, recorder?.count ?? 0) < count)
          await new Promise((resolve) => setTimeout(resolve, lookEvery));
      },
    );
    // A kernel that tells of no events still remembers.
    for (const flow of await readFlowsTo(packet)) note(flow);
    const connections: SeenConnection[] = [...flows.values()].map((flow) => ({
      end: translatedTo(flow) ?? untranslated.watched,
      source: flow.source,
      sourcePort: flow.sourcePort,
      // What is remembered has passed all rules.
      answered: true,
    }));
    for (const trace of recording.traces) {
      const key = flowKey(trace.first);
      if (flows.has(key)) continue;
      const { source: client, sourcePort } = trace.first;
      const end = tracedEnd(trace, known.get(key));
      connections.push({ end, source: client, sourcePort, answered: false });
    }
    return { connections, ...recording };
  } finally {
    events();
  }
}

/** The end of a connection that is not among the new ones. */
function tracedEnd(trace: KernelTrace, known: KnownFlow | undefined): string {
  // It goes on as before: over UDP, or to an endpoint that is gone meanwhile.
  if (known !== undefined) return translatedTo(known) ?? untranslated.watched;
  // What is stopped on its way is never remembered: only its trace tells of it.
  const { end } = traceEnd(trace, false);
  if (end === 'rejected') return 'refused';
  return end === 'left' || end === 'here' ? untranslated.watched : 'no answer';
}
