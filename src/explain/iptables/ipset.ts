/** Members of ipsets, as `ipset save` prints them. */
import { canonicalIP, cidrContains, parseCIDR } from '../../services/ip.ts';
import type { Flow } from '../flow.ts';
import type { IpSet } from '../world.ts';

/** Whether the set has the packet; undefined if its type is not understood. */
export function inSet(
  set: IpSet,
  directions: readonly string[],
  flow: Flow,
  protocol: string,
): boolean | undefined {
  const [storage = '', fields = ''] = set.type.split(':');
  if (storage !== 'hash' && storage !== 'bitmap') return undefined;
  const kinds = fields.split(',');
  if (kinds.some((kind) => !['ip', 'net', 'port'].includes(kind))) return undefined;
  return set.members.some((member) => {
    const parts = member.split(',');
    return kinds.every((kind, i) => {
      const direction = directions[i];
      const part = parts[i] ?? '';
      const port = direction === 'src' ? flow.sourcePort : flow.destinationPort;
      if (kind === 'port') return isPort(part, port, protocol, storage === 'bitmap');
      const ip = direction === 'src' ? flow.source : flow.destination;
      const cidr = part.includes('/') ? parseCIDR(part) : undefined;
      return cidr === undefined ? canonicalIP(part) === ip : cidrContains(cidr, ip);
    });
  });
}

function isPort(text: string, port: number | undefined, protocol: string, bare: boolean): boolean {
  const [name = '', number = name] = text.split(':');
  if (!bare && text.includes(':') && name.toUpperCase() !== protocol) return false;
  const [first = '', last = first] = number.split('-');
  return port !== undefined && port >= Number(first) && port <= Number(last);
}

/** Reads `ipset save`. */
export function parseIpsets(text: string): Map<string, IpSet> {
  const sets = new Map<string, { type: string; members: string[] }>();
  for (const line of text.split('\n')) {
    const [verb, name = '', value = ''] = line.split(' ');
    if (verb === 'create') sets.set(name, { type: value, members: [] });
    else if (verb === 'add') sets.get(name)?.members.push(value);
  }
  return sets;
}
