/** The addresses and ports at the head of a packet, as trace and log messages carry it (RFC 791, RFC 8200). */
import { formatAddress } from './address-bytes.ts';

export interface PacketHeader {
  readonly family: 'IPv4' | 'IPv6';
  /** IP protocol number. */
  readonly protocol: number;
  readonly source: string;
  readonly destination: string;
  /** 0 where the protocol has none, or the bytes are not there. */
  readonly sourcePort: number;
  readonly destinationPort: number;
}

const ipv4HeaderLength = 20;
const ipv6HeaderLength = 40;
/** TCP, UDP, DCCP, SCTP, UDP-Lite: both ports come first. */
const withPorts = new Set([6, 17, 33, 132, 136]);

/**
 * Undefined if the bytes are no IP header.
 * @param network from the IP header on
 * @param transport from the transport header on; absent: it follows in `network`
 */
export function readPacketHeader(network: Uint8Array, transport?: Uint8Array): PacketHeader | undefined {
  const version = (network[0] ?? 0) >>> 4;
  if (version === 4 && network.length >= ipv4HeaderLength) {
    const length = (network[0]! & 15) * 4;
    // Later fragments have no transport header.
    const first = (((network[6]! & 0x1f) << 8) | network[7]!) === 0;
    const rest = first ? (transport ?? network.subarray(length)) : new Uint8Array(0);
    return {
      family: 'IPv4',
      protocol: network[9]!,
      source: formatAddress(network, 12, 16),
      destination: formatAddress(network, 16, 20),
      ...ports(network[9]!, rest),
    };
  }
  if (version === 6 && network.length >= ipv6HeaderLength) {
    return {
      family: 'IPv6',
      protocol: network[6]!,
      source: formatAddress(network, 8, 24),
      destination: formatAddress(network, 24, 40),
      ...ports(network[6]!, transport ?? network.subarray(ipv6HeaderLength)),
    };
  }
  return undefined;
}

function ports(protocol: number, bytes: Uint8Array): Pick<PacketHeader, 'sourcePort' | 'destinationPort'> {
  if (!withPorts.has(protocol) || bytes.length < 4) return { sourcePort: 0, destinationPort: 0 };
  return {
    sourcePort: (bytes[0]! << 8) | bytes[1]!,
    destinationPort: (bytes[2]! << 8) | bytes[3]!,
  };
}
