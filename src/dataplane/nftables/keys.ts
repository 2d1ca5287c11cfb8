/** Keys and values of elements, as bytes. Parts of a concatenation take whole words of 4 bytes (see nftables/types.ts). */
import type { Protocol } from '../../api/objects.ts';
import { addressBytes } from '../../linux/address-bytes.ts';

const protocolNumbers: Readonly<Record<Protocol, number>> = { TCP: 6, UDP: 17, SCTP: 132 };

const DOT = 46;
const ZERO = 48;

/** Writes a canonical address at `at`; returns where it ends. */
function putAddress(bytes: Uint8Array, at: number, address: string): number {
  if (address.includes(':')) {
    bytes.set(addressBytes(address), at);
    return at + 16;
  }
  let part = 0;
  let end = at;
  for (let i = 0; i < address.length; i++) {
    const code = address.charCodeAt(i);
    if (code === DOT) {
      bytes[end++] = part;
      part = 0;
    } else part = part * 10 + code - ZERO;
  }
  bytes[end++] = part;
  if (end !== at + 4) throw new RangeError(`"${address}" is not an IP address`);
  return end;
}

function addressSize(address: string): number {
  return address.includes(':') ? 16 : 4;
}

export function addressKey(address: string): Uint8Array {
  const bytes = new Uint8Array(addressSize(address));
  putAddress(bytes, 0, address);
  return bytes;
}

/** `ADDRESS . PROTOCOL . PORT`, or `PROTOCOL . PORT` for a node port (empty address). */
export function frontendKey(address: string, protocol: Protocol, port: number): Uint8Array {
  const size = address === '' ? 0 : addressSize(address);
  const bytes = new Uint8Array(size + 8);
  if (size > 0) putAddress(bytes, 0, address);
  bytes[size] = protocolNumbers[protocol];
  bytes[size + 4] = port >>> 8;
  bytes[size + 5] = port;
  return bytes;
}

/** A frontend's key with the slot's number behind it, in the machine's order as numgen has it. */
export function slotKey(frontend: Uint8Array, slot: number): Uint8Array {
  const size = frontend.length;
  const bytes = new Uint8Array(size + 4);
  for (let i = 0; i < size; i++) bytes[i] = frontend[i]!;
  bytes[size] = slot;
  bytes[size + 1] = slot >>> 8;
  bytes[size + 2] = slot >>> 16;
  return bytes;
}

/** `ADDRESS . PORT` of an endpoint. */
export function endpointValue(address: string, port: number): Uint8Array {
  const size = addressSize(address);
  const bytes = new Uint8Array(size + 4);
  putAddress(bytes, 0, address);
  bytes[size] = port >>> 8;
  bytes[size + 1] = port;
  return bytes;
}

/** `ADDRESS . ADDRESS . PROTOCOL . PORT`: an endpoint that reaches itself. */
export function hairpinKey(address: string, protocol: Protocol, port: number): Uint8Array {
  const size = addressSize(address);
  const bytes = new Uint8Array(2 * size + 8);
  putAddress(bytes, 0, address);
  bytes.copyWithin(size, 0, size);
  bytes[2 * size] = protocolNumbers[protocol];
  bytes[2 * size + 4] = port >>> 8;
  bytes[2 * size + 5] = port;
  return bytes;
}

/** Two keys, one behind the other. */
export function joinKeys(first: Uint8Array, second: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(first.length + second.length);
  bytes.set(first);
  bytes.set(second, first.length);
  return bytes;
}

/** `NUMBER . ADDRESS . PORT`: an endpoint of a service port with affinity. */
export function targetKey(number: number, address: string, port: number): Uint8Array {
  return joinKeys(stickyNumber(number), endpointValue(address, port));
}

/** A number as the kernel keeps packet priorities: 4 bytes, the machine's order. */
export function stickyNumber(number: number): Uint8Array {
  return Uint8Array.of(number, number >>> 8, number >>> 16, number >>> 24);
}

export function readStickyNumber(bytes: Uint8Array, at = 0): number {
  return (bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24)) >>> 0;
}
