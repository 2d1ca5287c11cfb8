/** The packet that is asked about: the first one of a connection, before anything has touched it. */
import type { Family, Protocol } from '../api/objects.ts';

/**
 * Where a packet comes from, as seen from the node whose rules are asked:
 * `podHere`, `podElsewhere`: a Pod on this node, on another; `node`: a program on this node; `localhost`: the same,
 * dialling from 127.0.0.1 or ::1; `outside`: anything else.
 */
export type OriginKind = 'podHere' | 'podElsewhere' | 'node' | 'localhost' | 'outside';

export interface Origin {
  readonly kind: OriginKind;
  readonly address: string;
  /** For people: `Pod default/web-1`, `a client outside`. */
  readonly name: string;
  /** The interface it comes in by; undefined = not known, or none (it starts on this node). */
  readonly interface: string | undefined;
}

export interface Packet {
  readonly family: Family;
  readonly protocol: Protocol;
  readonly origin: Origin;
  /** Undefined: any of those that the kernel hands out. */
  readonly sourcePort: number | undefined;
  readonly destination: string;
  readonly destinationPort: number;
}

export const protocolNumbers: Readonly<Record<Protocol, number>> = { TCP: 6, UDP: 17, SCTP: 132 };

/** The packet starts on this node, so that it passes OUTPUT instead of PREROUTING. */
export function startsHere(origin: Origin): boolean {
  return origin.kind === 'node' || origin.kind === 'localhost';
}

/** `address:port`, `[address]:port`; a port that is not known is left out. */
export function formatPlace(address: string, port: number | undefined): string {
  if (port === undefined) return address;
  return address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`;
}
