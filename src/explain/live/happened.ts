/** What was seen of connections, and what both ways of seeing share. */
import type { Case, KnownFlow } from '../case.ts';
import { formatPlace } from '../packet.ts';
import { somebodyOutside } from '../subject.ts';
import type { Recording } from './recorder.ts';

/** Connections whose first packet is traced; all are counted. */
export const tracedMost = 32;

/** How a connection ended that no rule translated. */
export const untranslated = {
  dialled: 'this node or beyond, untranslated',
  watched: 'untranslated',
} as const;

/** Userspace mode: how a connection ended that the process took, and could not take on to any endpoint. */
export const resetByProcess = 'reset by the process';

export interface SeenConnection {
  /** `10.244.1.10:8080`, `refused`, `no answer`, `resetByProcess`, or one of `untranslated`. */
  readonly end: string;
  readonly source: string;
  readonly sourcePort: number;
  /** It was answered: nothing has stopped it. */
  readonly answered: boolean;
}

export interface Happened extends Recording {
  readonly connections: readonly SeenConnection[];
}

/** The question names no client in particular. */
export function isAnybody({ packet }: Case): boolean {
  return packet.origin.address === somebodyOutside[packet.family];
}

export function flowKey({ source, sourcePort }: Pick<KnownFlow, 'source' | 'sourcePort'>): string {
  return `${source} ${sourcePort}`;
}

/** Where the flow was translated to; undefined if it was not. */
export function translatedTo(flow: KnownFlow): string | undefined {
  const { destination, destinationPort, endpoint, endpointPort } = flow;
  return destination !== endpoint || destinationPort !== endpointPort
    ? formatPlace(endpoint, endpointPort)
    : undefined;
}
