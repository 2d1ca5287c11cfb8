/** Makes the connection attempts of a probe and sums them up into a record. */
import { canonicalIp, isV6, parseSocketAddress } from '../net/address.ts';
import { clientAddresses4, clientAddresses6 } from '../net/layout.ts';
import type { LabNetwork } from '../net/network.ts';
import { nodeOwnAddresses } from '../net/layout.ts';
import type { CheckRecord, ProbeRecord, ProbeSpec } from '../scenario/types.ts';
import { backendName, openConnection, type Attempt, type Connection } from './connection.ts';
import { openIcmpEar, type IcmpEar } from './icmpEar.ts';

/** ms */
const attemptTime = 800;
const checkTime = 1000;
/** So many attempts go at once without being asked for. */
const atOnce = 8;

/** What later steps need to know of a probe: source address → backends met. */
export type Meetings = ReadonlyMap<string, ReadonlySet<string>>;

export interface ProbeResult {
  readonly record: ProbeRecord;
  readonly meetings: Meetings;
}

/** Connections that an `open` step left open, with the backend each had at first (`none`). */
export interface HeldConnections {
  readonly held: readonly { readonly connection: Connection; readonly first: string }[];
  readonly ear: IcmpEar;
}

export interface ProbeContext {
  readonly network: LabNetwork;
  /** `client`, `node/NAME`, `pod/NAME` → namespace */
  readonly namespaceOf: (from: string) => string;
  /** Any address → the words of a record. */
  readonly nameOfAddress: (ip: string) => string;
  readonly timeFactor: number;
}

function sourcesOf(spec: ProbeSpec, v6: boolean): (string | undefined)[] {
  if (spec.src !== undefined) return [canonicalIp(spec.src)];
  if (typeof spec.sources === 'number')
    return (v6 ? clientAddresses6 : clientAddresses4).slice(0, spec.sources).map(canonicalIp);
  if (spec.sources !== undefined && spec.sources.length > 0) return spec.sources.map(canonicalIp);
  return [undefined];
}

/** The words for a backend's peer address: `client-ip`, `node-ip/NAME`, … */
function sourceName(context: ProbeContext, namespace: string, attempt: Attempt): string {
  const peer = attempt.greeting?.peer ?? '';
  const home = context.network.nodes.find((node) => node.name === namespace);
  if (home !== undefined && nodeOwnAddresses(home).includes(peer)) return `node-ip/${home.name}`;
  if (peer === attempt.local) return 'client-ip';
  return context.nameOfAddress(peer);
}

function count(counts: Record<string, number>, key: string): void {
  counts[key] = (counts[key] ?? 0) + 1;
}

function summarise(
  context: ProbeContext,
  spec: ProbeSpec,
  kind: 'probe' | 'open',
  attempts: readonly Attempt[],
  earlier: Meetings | undefined,
): ProbeResult {
  const outcomes: Record<string, number> = {};
  const backends: Record<string, number> = {};
  const sources: Record<string, number> = {};
  const by = new Set<string>();
  const meetings = new Map<string, Set<string>>();
  const namespace = context.namespaceOf(spec.from);
  for (const attempt of attempts) {
    count(outcomes, attempt.outcome);
    for (const each of attempt.by) by.add(each);
    if (attempt.greeting === undefined) continue;
    const backend = backendName(attempt.greeting);
    count(backends, backend);
    count(sources, sourceName(context, namespace, attempt));
    const met = meetings.get(attempt.local);
    if (met === undefined) meetings.set(attempt.local, new Set([backend]));
    else met.add(backend);
  }
  const kept =
    earlier !== undefined &&
    [...meetings].every(([source, met]) => {
      const before = earlier.get(source);
      return before !== undefined && [...met].every((backend) => before.has(backend));
    });
  const record: ProbeRecord = {
    id: spec.id,
    kind,
    outcomes,
    ...(by.size > 0 ? { by: [...by].sort() } : {}),
    backends,
    sources,
    ...(spec.sticky ? { sticky: [...meetings.values()].every((met) => met.size === 1) } : {}),
    ...(spec.sameAs === undefined ? {} : { kept: kept ? ('all' as const) : ('not all' as const) }),
    ...(spec.pool.length > 0 ? { pool: spec.pool } : {}),
  };
  return { record, meetings };
}

/** Runs the attempts: `width` at once, no new ones after one has timed out. */
async function attemptAll(
  context: ProbeContext,
  spec: ProbeSpec,
  ear: IcmpEar,
  keep: (connection: Connection, attempt: Attempt) => void,
): Promise<Attempt[]> {
  const to = parseSocketAddress(spec.to);
  const sources = sourcesOf(spec, isV6(to.ip));
  const width = spec.sport === undefined ? (spec.parallel ?? (spec.count <= atOnce ? spec.count : 1)) : 1;
  const attempts: Attempt[] = [];
  let next = 0;
  let timedOut = false;
  const worker = async (): Promise<void> => {
    while (next < spec.count && !timedOut) {
      const ip =
        sources[next++ % sources.length] ??
        (spec.sport === undefined ? undefined : isV6(to.ip) ? '::' : '0.0.0.0');
      const connection = openConnection({
        namespaces: context.network.namespaces,
        namespace: context.namespaceOf(spec.from),
        protocol: spec.proto,
        to,
        source: ip === undefined ? undefined : { ip, port: spec.sport ?? 0 },
        ear,
      });
      const attempt = await connection.first(attemptTime * context.timeFactor);
      attempts.push(attempt);
      if (attempt.outcome === 'timeout') timedOut = true;
      keep(connection, attempt);
    }
  };
  await Promise.all(Array.from({ length: Math.min(width, spec.count) }, worker));
  return attempts;
}

export async function runProbe(
  context: ProbeContext,
  spec: ProbeSpec,
  earlier?: Meetings,
): Promise<ProbeResult> {
  const ear = openIcmpEar(
    context.network.namespaces,
    context.namespaceOf(spec.from),
    isV6(parseSocketAddress(spec.to).ip),
  );
  try {
    const attempts = await attemptAll(context, spec, ear, (connection) => connection.close());
    return summarise(context, spec, 'probe', attempts, earlier);
  } finally {
    ear.close();
  }
}

/** As a probe, but the connections stay open; UDP sockets stay whether answered or not. */
export async function openProbe(
  context: ProbeContext,
  spec: ProbeSpec,
  earlier?: Meetings,
): Promise<ProbeResult & { readonly connections: HeldConnections }> {
  const ear = openIcmpEar(
    context.network.namespaces,
    context.namespaceOf(spec.from),
    isV6(parseSocketAddress(spec.to).ip),
  );
  const held: { connection: Connection; first: string }[] = [];
  const attempts = await attemptAll(context, spec, ear, (connection, attempt) => {
    if (spec.proto !== 'udp' && attempt.outcome !== 'ok') {
      connection.close();
      return;
    }
    held.push({ connection, first: attempt.greeting === undefined ? 'none' : backendName(attempt.greeting) });
    if (spec.stream !== undefined) connection.startStream(spec.stream * 1000);
  });
  return { ...summarise(context, spec, 'open', attempts, earlier), connections: { held, ear } };
}

/** Talks once more over held connections. */
export async function checkConnections(
  context: ProbeContext,
  id: string,
  connections: HeldConnections,
): Promise<CheckRecord> {
  const fates: Record<string, Record<string, number>> = {};
  const now: Record<string, number> = {};
  await Promise.all(
    connections.held.map(async ({ connection, first }) => {
      const { outcome, greeting } = await connection.again(checkTime * context.timeFactor);
      let fate: string = outcome;
      if (greeting !== undefined) {
        const backend = backendName(greeting);
        count(now, backend);
        fate = first === 'none' ? 'answered' : first === backend ? 'same' : 'moved';
      }
      count((fates[first] ??= {}), fate);
    }),
  );
  return { id, kind: 'check', fates, now };
}

export function closeConnections(connections: HeldConnections): void {
  for (const { connection } of connections.held) connection.close();
  connections.ear.close();
}
