/** What really happens, from the kernel's connection tracking, laid over what was predicted. */
import { createSocket } from 'node:dgram';
import { connect } from 'node:net';
import type { Case, KnownFlow } from './case.ts';
import { percent } from './explanation.ts';
import { formatPlace, startsHere } from './packet.ts';
import { readFlows } from './sources/kernel.ts';

export interface ObservedEnd {
  /** `10.244.1.10:8080`, `refused`, `no answer` */
  readonly end: string;
  readonly connections: number;
  /** Undefined: not predicted at all. */
  readonly predicted: number | undefined;
}

export interface Observation {
  /** `dialled`: connections of our own; `watched`: those that came. */
  readonly how: 'dialled' | 'watched';
  readonly connections: number;
  readonly ends: readonly ObservedEnd[];
  /** Nothing happened that was not predicted; undefined: nothing happened. */
  readonly agrees: boolean | undefined;
}

interface Dialled {
  readonly port: number;
  readonly result: 'connected' | 'answered' | 'sent' | 'refused' | 'silence';
}

const patience = 1000;

/** Needs root. @param milliseconds how long to watch, where nothing can be dialled from here */
export async function observeLive(given: Case, count: number, milliseconds: number): Promise<Observation> {
  const { packet } = given;
  const before = new Set(flowsOf(given).map(keyOf));
  const tally = new Map<string, number>();
  const add = (end: string): void => void tally.set(end, (tally.get(end) ?? 0) + 1);
  const how = startsHere(packet.origin) && packet.protocol !== 'SCTP' ? 'dialled' : 'watched';
  if (how === 'dialled') {
    for (let i = 0; i < count; i++) {
      const { port, result } = await dial(given);
      const flow = flowsOf(given).find((one) => one.sourcePort === port);
      if (result === 'refused' && (flow === undefined || !isTranslated(flow))) add('refused');
      else if (flow !== undefined && isTranslated(flow)) {
        add(
          formatPlace(flow.endpoint, flow.endpointPort) +
            (result === 'refused' ? ' (refuses)' : result === 'silence' ? ' (silent)' : ''),
        );
      } else add(result === 'silence' ? 'no answer' : 'this node or beyond, untranslated');
    }
  } else {
    const seen = new Set(before);
    const end = Date.now() + milliseconds;
    while (Date.now() < end && seen.size - before.size < count) {
      for (const flow of flowsOf(given)) {
        const key = keyOf(flow);
        if (seen.has(key) || flow.source !== packet.origin.address) continue;
        seen.add(key);
        add(isTranslated(flow) ? formatPlace(flow.endpoint, flow.endpointPort) : 'untranslated');
      }
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }
  return judge(given, how, tally);
}

function judge(
  { prediction }: Case,
  how: Observation['how'],
  tally: ReadonlyMap<string, number>,
): Observation {
  const predicted = new Map<string, number>();
  for (const { outcomes } of prediction.possibilities) {
    for (const { kind, destination, probability } of outcomes) {
      const name =
        kind === 'endpoint'
          ? destination
          : kind === 'reject'
            ? 'refused'
            : kind === 'drop'
              ? 'no answer'
              : how === 'watched'
                ? 'untranslated'
                : 'this node or beyond, untranslated';
      predicted.set(name, Math.max(predicted.get(name) ?? 0, probability));
      // Nobody may listen on the node itself, or beyond it.
      if (kind === 'node' || kind === 'forward') {
        predicted.set('refused', probability);
        predicted.set('no answer', probability);
      }
    }
  }
  const ends = [...tally].map(([end, connections]) => ({
    end,
    connections,
    predicted: predicted.get(end.replace(/ \(.*\)$/, '')),
  }));
  const connections = ends.reduce((sum, one) => sum + one.connections, 0);
  const agrees = connections === 0 ? undefined : ends.every((one) => one.predicted !== undefined);
  return { how, connections, ends: ends.sort((a, b) => b.connections - a.connections), agrees };
}

export function printObservation({ how, connections, ends, agrees }: Observation): string {
  const lines = [
    '',
    `WHAT REALLY HAPPENED (${connections} connections ${how === 'dialled' ? 'dialled from here' : 'watched'})`,
  ];
  for (const { end, connections: n, predicted } of ends) {
    const share = percent(n / connections).padStart(8);
    lines.push(
      `${share}  ${end.padEnd(34)} ${predicted === undefined ? 'NOT predicted' : `predicted ${percent(predicted)}`}`,
    );
  }
  lines.push(
    agrees === undefined
      ? '  Nobody came: dial it in the meantime, or watch longer (--seconds).'
      : agrees
        ? '  As predicted.'
        : '  Not as predicted: something else has a hand in it.',
  );
  return `${lines.join('\n')}\n`;
}

function flowsOf({ packet }: Case): KnownFlow[] {
  return readFlows(packet.family, []).filter(
    ({ protocol, destination, destinationPort }) =>
      protocol === packet.protocol &&
      destination === packet.destination &&
      destinationPort === packet.destinationPort,
  );
}

function keyOf({ source, sourcePort }: KnownFlow): string {
  return `${source} ${sourcePort}`;
}

function isTranslated({ destination, destinationPort, endpoint, endpointPort }: KnownFlow): boolean {
  return destination !== endpoint || destinationPort !== endpointPort;
}

function dial(given: Case): Promise<Dialled> {
  return given.packet.protocol === 'UDP' ? dialUDP(given) : dialTCP(given);
}

function dialTCP({ packet }: Case): Promise<Dialled> {
  return new Promise((resolve) => {
    const socket = connect({ host: packet.destination, port: packet.destinationPort });
    let port = 0;
    const end = (result: Dialled['result']): void => {
      clearTimeout(timer);
      port = socket.localPort ?? port;
      // An orderly end: the program on the other side must not take us for a fault.
      socket.resume();
      socket.end();
      setTimeout(() => socket.destroy(), patience).unref();
      resolve({ port, result });
    };
    const timer = setTimeout(() => end('silence'), patience);
    socket.once('connect', () => end('connected'));
    socket.once('error', (error: NodeJS.ErrnoException & { localPort?: number }) => {
      port = error.localPort ?? port;
      end(error.code === 'ECONNREFUSED' ? 'refused' : 'silence');
    });
    socket.on('error', () => undefined);
  });
}

function dialUDP({ packet }: Case): Promise<Dialled> {
  return new Promise((resolve) => {
    const socket = createSocket(packet.family === 'IPv6' ? 'udp6' : 'udp4');
    let port = 0;
    let timer: NodeJS.Timeout | undefined;
    const end = (result: Dialled['result']): void => {
      clearTimeout(timer);
      socket.removeAllListeners();
      socket.close();
      resolve({ port, result });
    };
    socket.once('message', () => end('answered'));
    socket.once('error', (error: NodeJS.ErrnoException) =>
      end(error.code === 'ECONNREFUSED' ? 'refused' : 'silence'),
    );
    socket.connect(packet.destinationPort, packet.destination, () => {
      port = socket.address().port;
      timer = setTimeout(() => end('sent'), patience / 4);
      socket.send(Buffer.from('\n'));
    });
  });
}
