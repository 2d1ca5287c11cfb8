/** What rules see of a packet, by the names of nft. */
import { formatIP, parseIP } from '../../services/ip.ts';
import type { Flow, Surroundings } from '../flow.ts';
import { protocolNumbers, startsHere } from '../packet.ts';
import { addressType } from '../world.ts';
import { addressTypes, stateBits, statusBits, type Value } from './form.ts';

/** Cannot be worked out: says why. */
export class NotKnown {
  readonly question: string;
  constructor(question: string) {
    this.question = question;
  }
}

export function addressNumber(address: string): bigint {
  return BigInt(`0x${Buffer.from(parseIP(address) ?? new Uint8Array(1)).toString('hex')}`);
}

export function addressText(value: Value, { world }: Surroundings): string {
  if (typeof value === 'string') return value;
  const size = world.family === 'IPv6' ? 16 : 4;
  return formatIP(Buffer.from(value.toString(16).padStart(size * 2, '0'), 'hex'));
}

/** What a packet has where rules look; undefined: it has no such field. Throws NotKnown. */
export function fieldValue(name: string, flow: Flow, at: Surroundings): readonly Value[] | undefined {
  const { packet, world } = at;
  const v6 = packet.family === 'IPv6';
  switch (name) {
    case 'ip saddr':
    case 'ip6 saddr':
      return (name === 'ip6 saddr') === v6 ? [addressNumber(flow.source)] : undefined;
    case 'ip daddr':
    case 'ip6 daddr':
      return (name === 'ip6 daddr') === v6 ? [addressNumber(flow.destination)] : undefined;
    case 'ip protocol':
    case 'ip6 nexthdr':
      return (name === 'ip6 nexthdr') === v6 ? [BigInt(protocolNumbers[packet.protocol])] : undefined;
    case 'meta l4proto':
      return [BigInt(protocolNumbers[packet.protocol])];
    case 'meta nfproto':
      return [v6 ? 10n : 2n];
    case 'meta protocol':
      return [v6 ? 0x86ddn : 0x800n];
    case 'tcp dport':
    case 'udp dport':
    case 'sctp dport':
    case 'th dport':
      return isProtocol(name, packet.protocol) ? [BigInt(flow.destinationPort)] : undefined;
    case 'tcp sport':
    case 'udp sport':
    case 'sctp sport':
    case 'th sport':
      if (!isProtocol(name, packet.protocol)) return undefined;
      // One of those that the kernel hands out.
      return [BigInt(flow.sourcePort ?? 40000)];
    case 'meta mark':
      return [BigInt(flow.mark)];
    case 'ct mark':
      return [BigInt(flow.connectionMark)];
    case 'meta priority':
      return [BigInt(flow.priority)];
    case 'ct state':
      return [flow.untracked ? stateBits.untracked : stateBits.new];
    case 'ct status':
      return [
        (flow.dnat === undefined ? 0n : statusBits.dnat) | (flow.snat === undefined ? 0n : statusBits.snat),
      ];
    case 'ct direction':
      return [0n];
    case 'fib saddr type':
      return [typeNumber(addressType(world, flow.source))];
    case 'fib daddr type':
      return [typeNumber(addressType(world, flow.destination))];
    case 'iifname':
      if (flow.inInterface === undefined) {
        // A packet that starts here has come in by none: the kernel compares with an empty name.
        if (startsHere(packet.origin)) return [''];
        throw new NotKnown('the interface it comes in by');
      }
      return [flow.inInterface];
    case 'oifname':
      if (flow.outInterface === undefined) throw new NotKnown('the interface it leaves by');
      return [flow.outInterface];
    case 'ct original ip daddr':
    case 'ct original ip6 daddr':
      return [addressNumber(packet.destination)];
    case 'ct original ip saddr':
    case 'ct original ip6 saddr':
      return [addressNumber(packet.origin.address)];
    case 'ct original proto-dst':
      return [BigInt(packet.destinationPort)];
    case 'tcp flags':
      return packet.protocol === 'TCP' ? [2n] : undefined;
    case 'meta pkttype':
      return ['host'];
    default:
      throw new NotKnown(name);
  }
}

function isProtocol(field: string, protocol: string): boolean {
  const [name] = field.split(' ');
  return name === 'th' || name === protocol.toLowerCase();
}

function typeNumber(type: string): bigint {
  return addressTypes[type.toLowerCase() as keyof typeof addressTypes];
}
