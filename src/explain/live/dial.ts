/** Connections of our own, from this machine or from inside a Pod. */
import type { Case } from '../case.ts';
import { readFlowsTo } from '../sources/kernel.ts';
import { translatedTo, tracedMost, untranslated, type Happened, type SeenConnection } from './happened.ts';
import { Probe, type Dialled, type ProbeFrom } from './probe.ts';
import { recordWhile } from './recorder.ts';

/** Makes `count` connections, one after the other. Needs root. */
export async function dialOurselves({ packet }: Case, count: number, from: ProbeFrom): Promise<Happened> {
  // A port of one's own can be had by one connection at a time.
  const wanted = from.sourcePort === 0 ? count : 1;
  // The ports are known before anything is sent, so that nobody else's packets are traced.
  const traced: Probe[] = [];
  try {
    while (traced.length < Math.min(wanted, tracedMost)) traced.push(new Probe(packet, from));
    const connections: SeenConnection[] = [];
    const recording = await recordWhile(
      {
        packet,
        hook: from.namespace === undefined ? 'output' : 'prerouting',
        source: undefined,
        sourcePorts: traced.map(({ sourcePort }) => sourcePort),
        most: traced.length,
      },
      async () => {
        for (let i = 0; i < wanted; i++) {
          const dialled = await (traced[i] ?? new Probe(packet, from)).dial();
          const { source, sourcePort, result } = dialled;
          const answered = result === 'connected' || result === 'answered';
          connections.push({ end: await endOf(packet, dialled), source, sourcePort, answered });
        }
      },
    );
    return { connections, ...recording };
  } finally {
    for (const probe of traced) probe.close();
  }
}

async function endOf(packet: Case['packet'], { source, sourcePort, result }: Dialled): Promise<string> {
  const flow = (await readFlowsTo(packet)).find(
    (one) => one.source === source && one.sourcePort === sourcePort,
  );
  const to = flow === undefined ? undefined : translatedTo(flow);
  if (to !== undefined) {
    if (result === 'refused') return `${to} (refuses)`;
    return result === 'silence' ? `${to} (silent)` : to;
  }
  if (result === 'refused') return 'refused';
  return result === 'silence' ? 'no answer' : untranslated.dialled;
}
