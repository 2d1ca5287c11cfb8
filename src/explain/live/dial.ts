/** Connections of our own, from this machine or from inside a Pod. */
import type { Case } from '../case.ts';
import { readFlowsTo } from '../sources/kernel.ts';
import {
  resetByProcess,
  translatedTo,
  tracedMost,
  untranslated,
  type Happened,
  type SeenConnection,
} from './happened.ts';
import { Probe, type Dialled, type ProbeFrom } from './probe.ts';
import { RelayWatch } from './relayed.ts';
import { recordWhile } from './recorder.ts';

/** Makes `count` connections, one after the other. Needs root. */
export async function dialOurselves(given: Case, count: number, from: ProbeFrom): Promise<Happened> {
  const { packet } = given;
  // A port of one's own can be had by one connection at a time.
  const wanted = from.sourcePort === 0 ? count : 1;
  // The ports are known before anything is sent, so that nobody else's packets are traced.
  const traced: Probe[] = [];
  try {
    while (traced.length < Math.min(wanted, tracedMost)) traced.push(new Probe(packet, from));
    const connections: SeenConnection[] = [];
    const relays = RelayWatch.of(given);
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
          const probe = traced[i] ?? new Probe(packet, from);
          let end = '';
          relays?.begin();
          const { source, sourcePort, result } = await probe.dial(async (dialled) => {
            end = await endOf(packet, dialled);
            if (relays === undefined || !isOpen(dialled)) return;
            const port = Number(end.split(':').at(-1));
            const { endpoint, isReset } = await relays.end(port, () => probe.isReset());
            if (isReset) end = resetByProcess;
            else end = endpoint ?? end;
          });
          const answered = result === 'connected' || result === 'answered';
          connections.push({ end, source, sourcePort, answered });
        }
      },
    );
    return { connections, ...recording };
  } finally {
    for (const probe of traced) probe.close();
  }
}

/** Somebody took it; a datagram that nobody answered may have been taken, too. */
function isOpen({ result }: Dialled): boolean {
  return result === 'connected' || result === 'answered' || result === 'sent';
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
