/** Which remembered clients must be forgotten: those whose endpoint is gone, or whose number nobody has any more. */
import type { Element } from '../../linux/netlink/nftables/objects.ts';
import { endpointValue, readStickyNumber } from './keys.ts';
import type { Forgotten, Mirror } from './mirror.ts';

/** The remembered clients that one of `forgotten` names. */
export function forgottenClients(clients: readonly Element[], forgotten: readonly Forgotten[]): Element[] {
  const wholes = new Set<number>();
  const endpoints = new Map<number, Uint8Array[]>();
  for (const { number, endpoint } of forgotten) {
    if (endpoint === undefined) wholes.add(number);
    else {
      const list = endpoints.get(number) ?? [];
      list.push(endpointValue(endpoint.ip, endpoint.port));
      endpoints.set(number, list);
    }
  }
  return clients.filter(({ key, data }) => {
    const number = readStickyNumber(key);
    if (wholes.has(number)) return true;
    return (
      endpoints.get(number)?.some((gone) => data !== undefined && Buffer.compare(gone, data) === 0) ?? false
    );
  });
}

/** The remembered clients that no service port of the table would follow. */
export function staleClients(clients: readonly Element[], mirror: Mirror): Element[] {
  if (clients.length === 0) return [];
  const live = new Map<number, Set<string>>();
  for (const entry of mirror.entries.values()) {
    for (const [number, endpoints] of [
      [entry.clusterNumber, entry.cluster],
      [entry.localNumber, entry.local],
    ] as const) {
      if (number === 0) continue;
      live.set(number, new Set(endpoints.map(({ ip, port }) => hex(endpointValue(ip, port)))));
    }
  }
  return clients.filter(
    ({ key, data }) => data === undefined || live.get(readStickyNumber(key))?.has(hex(data)) !== true,
  );
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex');
}
