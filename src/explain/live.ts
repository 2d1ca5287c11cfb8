/** What really happens: connections of our own or of others, in the kernel's own words, laid over what was predicted. */
import type { Case, KnownFlow } from './case.ts';
import { dialOurselves } from './live/dial.ts';
import {
  flowKey,
  isAnybody,
  resetByProcess,
  untranslated,
  type Happened,
  type SeenConnection,
} from './live/happened.ts';
import { layOver, wayOf, type LaidPacket } from './live/layOver.ts';
import { findPodNamespace } from './live/podNamespace.ts';
import { RelayWatch } from './live/relayed.ts';
import type { ProbeFrom } from './live/probe.ts';
import { watchOthers } from './live/watch.ts';
import { formatPlace, startsHere } from './packet.ts';
import { readFlowsTo } from './sources/kernel.ts';
import { processBase } from './userspace/relay.ts';

export interface ObservedEnd {
  /** `10.244.1.10:8080`, `refused`, `no answer` */
  readonly end: string;
  readonly connections: number;
  /** Undefined: not predicted at all. */
  readonly predicted: number | undefined;
}

/** Packets that went the same way through the rules; `client` and `ended` are those of the first. */
export interface ObservedWay extends LaidPacket {
  readonly packets: number;
}

export interface Observation {
  /** `dialled`: connections of our own; `watched`: those that came. */
  readonly how: 'dialled' | 'watched';
  /** Whence, or whose: `this machine`, `the network namespace of Pod shop/web-1`, `anybody`. */
  readonly from: string;
  readonly connections: number;
  readonly ends: readonly ObservedEnd[];
  /** What the kernel traced: the first packets of up to 32 of the connections. Those that differ come first. */
  readonly ways: readonly ObservedWay[];
  /** Nothing happened that was not predicted; undefined: nothing happened. */
  readonly agrees: boolean | undefined;
  /** What could not be seen, and why. */
  readonly remarks: readonly string[];
}

export interface ObserveOptions {
  /** How many connections at most. */
  readonly count: number;
  /** How long others' connections are waited for. */
  readonly milliseconds: number;
  /** An address of this machine to dial from; undefined: the kernel chooses. */
  readonly source: string | undefined;
  /** The same question for another client: who comes is not known before. Undefined: it cannot be asked. */
  readonly predict: (source: string) => Promise<Case | undefined>;
  /** Told once, where others' connections are waited for: whose. From then on none is missed. */
  readonly onWait?: (whose: string) => void;
}

/** Clients that a prediction of their own is made for. */
const clientsMost = 16;

/** Needs root. Throws where the kernel refuses everything; what it refuses in part is told in `remarks`. */
export async function observeLive(given: Case, options: ObserveOptions): Promise<Observation> {
  const { packet } = given;
  const remarks: string[] = [];
  const place = whereFrom(given, options.source, remarks);
  const known = new Map((await readFlowsTo(packet)).map((flow) => [flowKey(flow), flow]));
  const from = place?.name ?? (isAnybody(given) ? 'anybody' : packet.origin.name);
  const happened =
    place === undefined
      ? await watchOthers(given, options.count, options.milliseconds, known, () => options.onWait?.(from))
      : await dialOurselves(given, options.count, place);
  remarks.push(...happened.remarks);
  if (place === undefined && RelayWatch.of(given) !== undefined && happened.connections.length > 0)
    remarks.push(
      'To which endpoints the process took them on is told of connections only that --live dials itself.',
    );
  const cases = await casesFor(given, happened, options);
  const how = place === undefined ? 'watched' : 'dialled';
  const ends = judgeEnds(how, happened.connections, (source) => cases.get(source) ?? given);
  const ways = waysOf(happened, known, (source) => cases.get(source) ?? given);
  const { length } = happened.connections;
  return {
    how,
    from,
    connections: length,
    ends,
    ways,
    agrees:
      length === 0
        ? undefined
        : ends.every(({ predicted }) => predicted !== undefined) &&
          ways.every(({ agrees }) => agrees !== false),
    remarks,
  };
}

/** Where a probe can be sent from; undefined: nowhere here, others have to be watched. */
function whereFrom(
  { packet }: Case,
  source: string | undefined,
  remarks: string[],
): (ProbeFrom & { readonly name: string }) | undefined {
  const { origin, protocol, sourcePort = 0 } = packet;
  if (protocol === 'SCTP') {
    remarks.push('SCTP is watched only: make a connection in the meantime.');
    return undefined;
  }
  if (startsHere(origin)) return { namespace: undefined, source, sourcePort, name: 'this machine' };
  if (origin.kind !== 'podHere') return undefined;
  const namespace = findPodNamespace(origin.address);
  if (namespace === undefined) {
    remarks.push(
      `No network namespace to be seen from here has the address ${origin.address}, so nothing can be dialled from inside ${origin.name}: its own packets are watched instead.`,
    );
    return undefined;
  }
  return { namespace, source: origin.address, sourcePort, name: `the network namespace of ${origin.name}` };
}

/** Predictions for the clients that came, by their addresses. */
async function casesFor(
  given: Case,
  { connections, traces }: Happened,
  { predict }: ObserveOptions,
): Promise<Map<string, Case>> {
  const cases = new Map([[given.packet.origin.address, given]]);
  const sources = new Set([
    ...traces.map(({ first }) => first.source),
    ...connections.map(({ source }) => source),
  ]);
  for (const source of sources) {
    if (cases.has(source) || cases.size > clientsMost) continue;
    const made = await predict(source);
    if (made !== undefined) cases.set(source, made);
  }
  return cases;
}

function judgeEnds(
  how: Observation['how'],
  connections: readonly SeenConnection[],
  caseOf: (source: string) => Case,
): ObservedEnd[] {
  const ends = new Map<string, { connections: number; predicted: number | undefined }>();
  const shares = new Map<Case, Map<string, number>>();
  for (const { end, source } of connections) {
    const made = caseOf(source);
    const share = shares.get(made) ?? predictedShares(how, made);
    shares.set(made, share);
    const predicted = share.get(end.replace(/ \(.*\)$/, ''));
    // One client's prediction need not be the other's.
    const key = `${end} ${predicted ?? ''}`;
    const found = ends.get(key);
    if (found === undefined) ends.set(key, { connections: 1, predicted });
    else found.connections++;
  }
  return [...ends]
    .map(([key, one]) => ({ end: key.slice(0, key.lastIndexOf(' ')), ...one }))
    .sort((a, b) => b.connections - a.connections);
}

/** How likely each end is, over all that is possible. */
function predictedShares(how: Observation['how'], { prediction }: Case): Map<string, number> {
  const shares = new Map<string, number>();
  // Where rules lead to a program that dials on, as in userspace mode, connection tracking has that.
  for (const { flow, verdict } of prediction.ends) {
    if (verdict !== 'accept' || flow.dnat === undefined) continue;
    const place = formatPlace(flow.destination, flow.destinationPort);
    shares.set(place, Math.min(1, (shares.get(place) ?? 0) + flow.probability));
  }
  const told = new Map<string, number>();
  const atLeast = (end: string, share: number): void =>
    void told.set(end, Math.max(told.get(end) ?? 0, share));
  for (const { outcomes } of prediction.possibilities) {
    for (const { kind, destination, probability, steps } of outcomes) {
      if (kind === 'endpoint') atLeast(destination, probability);
      else if (steps.slice(0, -1).some(({ base }) => base === processBase))
        atLeast(resetByProcess, probability);
      else if (kind === 'reject') atLeast('refused', probability);
      else if (kind === 'drop') atLeast('no answer', probability);
      else {
        atLeast(untranslated[how], probability);
        // Nobody may listen on the node itself, or beyond it.
        atLeast('refused', probability);
        atLeast('no answer', probability);
      }
    }
  }
  for (const [end, share] of told) shares.set(end, share);
  return shares;
}

function waysOf(
  { connections, traces, untold }: Happened,
  known: ReadonlyMap<string, KnownFlow>,
  caseOf: (source: string) => Case,
): ObservedWay[] {
  const ways = new Map<string, { laid: LaidPacket; packets: number }>();
  const answered = new Set(connections.filter((one) => one.answered).map(flowKey));
  for (const trace of traces) {
    const { prediction, rules } = caseOf(trace.first.source);
    const laid = layOver(trace, prediction.ends, {
      sameText: rules.kind === 'kernel',
      known: known.has(flowKey(trace.first)),
      untold,
      arrived: answered.has(flowKey(trace.first)),
    });
    const key = wayOf(laid);
    const found = ways.get(key);
    if (found === undefined) ways.set(key, { laid, packets: 1 });
    else found.packets++;
  }
  return [...ways.values()]
    .map(({ laid, packets }) => ({ packets, ...laid }))
    .sort((a, b) => Number(a.agrees ?? true) - Number(b.agrees ?? true) || b.packets - a.packets);
}
