/**
 * nftables mode, with --service-counters: elements of maps count when they are found, and so do the few rules that
 * refuse or masquerade. All of it is in nat chains, or behind `ct state new`: first packets only.
 */
import type { Family } from '../../api/objects.ts';
import { frontendKey } from '../../dataplane/nftables/keys.ts';
import { dumpElements } from '../../dataplane/nftables/kernelElements.ts';
import { tableName, type SetName } from '../../dataplane/nftables/layout.ts';
import { formatAddress } from '../../linux/address-bytes.ts';
import type { AttributeReader } from '../../linux/netlink/message.ts';
import type { Expression } from '../../linux/netlink/nftables/expressions.ts';
import type { Rule } from '../../linux/netlink/nftables/objects.ts';
import { NftSocket } from '../../linux/netlink/nftables/socket.ts';
import { NETLINK_NETFILTER, NetlinkSocket } from '../../linux/netlink/socket.ts';
import type { RoutingTable, ServicePortId } from '../../services/types.ts';
import type { CounterLevel } from '../documents.ts';
import type { Meaning, Reading } from './accumulate.ts';
import type { CounterSource } from './source.ts';

const dispatchMaps: readonly SetName[] = ['frontends', 'node-ports'];
const refusalMaps: readonly SetName[] = ['unserved', 'unserved-node-ports'];
const endpointMaps: readonly SetName[] = [
  'endpoints',
  'local-endpoints',
  'node-port-endpoints',
  'node-port-local-endpoints',
];

/** NFTA_SET_ELEM_… */
const ELEM_KEY = 1;
const ELEM_DATA = 2;
const ELEM_EXPR = 7;
const ELEM_EXPRESSIONS = 11;
const EXPR_NAME = 1;
const EXPR_DATA = 2;
const COUNTER_PACKETS = 2;
/** Behind the frontend's key, in keys of endpoint maps: the slot. */
const slotSize = 4;
/** NFTA_DATA_VALUE or NFTA_DATA_VERDICT comes first and alone. */
const dataHeader = 4;

/** Which service port a frontend's key belongs to. */
export function frontendOwners(table: RoutingTable): ReadonlyMap<string, ServicePortId> {
  const owners = new Map<string, ServicePortId>();
  for (const { frontends, port } of table.routes.values()) {
    for (const { kind, ip, protocol, port: number } of frontends) {
      owners.set(hex(frontendKey(kind === 'nodePort' ? '' : ip, protocol, number)), port.id);
    }
  }
  return owners;
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('hex');
}

interface CountedElement {
  readonly key: Uint8Array;
  readonly data: Uint8Array;
  readonly packets: number;
}

/** Undefined: it does not count, or has counted nothing so far. Most of a large table, so without garbage until then. */
function readCounted(reader: AttributeReader): CountedElement | undefined {
  const { bytes } = reader;
  let key = 0;
  let keyEnd = 0;
  let data = 0;
  let dataEnd = 0;
  let packets = 0;
  while (reader.next()) {
    switch (reader.type) {
      case ELEM_KEY:
        key = reader.start + dataHeader;
        keyEnd = reader.end;
        break;
      case ELEM_DATA:
        data = reader.start + dataHeader;
        dataEnd = reader.end;
        break;
      case ELEM_EXPR:
        packets = counterPackets(reader.nested());
        break;
      case ELEM_EXPRESSIONS: {
        const list = reader.nested();
        while (list.next()) packets = Math.max(packets, counterPackets(list.nested()));
        break;
      }
    }
  }
  if (packets === 0) return undefined;
  return { key: bytes.slice(key, keyEnd), data: bytes.slice(data, dataEnd), packets };
}

/** NFTA_EXPR_NAME, NFTA_EXPR_DATA { NFTA_COUNTER_BYTES, NFTA_COUNTER_PACKETS } of a counter; 0 for anything else. */
function counterPackets(expression: AttributeReader): number {
  let isCounter = false;
  while (expression.next()) {
    if (expression.type === EXPR_NAME) isCounter = expression.string() === 'counter';
    else if (expression.type === EXPR_DATA && isCounter) {
      const counter = expression.nested();
      while (counter.next()) if (counter.type === COUNTER_PACKETS) return Number(counter.u64());
    }
  }
  return 0;
}

/** NFTA_DATA_VERDICT { NFTA_VERDICT_CODE: u32 }; NF_DROP is 0. */
function isDrop(data: Uint8Array): boolean {
  return data.length >= 8 && data[4] === 0 && data[5] === 0 && data[6] === 0 && data[7] === 0;
}

function packetsOf(expressions: readonly Expression[]): number | undefined {
  for (const expression of expressions)
    if (expression.kind === 'counter') return Number(expression.packets ?? 0n);
  return undefined;
}

/** What the counter of a shared rule says; undefined = nothing of ours. */
function meaningOfRule({ chain, expressions, comment }: Rule): Meaning | undefined {
  if (chain === 'source-check')
    return { kind: 'refused', reason: 'source_range', verdict: 'drop', id: undefined };
  if (chain === 'virtual-ip-check') {
    return comment === 'no such port'
      ? { kind: 'refused', reason: 'no_such_port', verdict: 'reject', id: undefined }
      : { kind: 'refused', reason: 'no_such_service', verdict: 'drop', id: undefined };
  }
  if (chain === 'source-nat' && expressions.some(({ kind }) => kind === 'masq'))
    return { kind: 'masqueraded' };
  return undefined;
}

export function nftablesCounters(family: Family, level: CounterLevel): CounterSource {
  const table = { family: family === 'IPv6' ? 'ip6' : 'ip', name: tableName } as const;
  return {
    name: 'nftables',
    notes:
      level === 'endpoints'
        ? [
            'Connections that session affinity sent to a remembered endpoint are counted for the service only.',
          ]
        : ['Endpoints are counted with --service-counters=endpoints.'],
    async read(routes) {
      const owners = frontendOwners(routes);
      const readings: Reading[] = [];
      const maps = [...dispatchMaps, ...refusalMaps, ...(level === 'endpoints' ? endpointMaps : [])];
      const socket = new NetlinkSocket({ protocol: NETLINK_NETFILTER });
      try {
        for (const name of maps) await readMap(socket, table, name, owners, readings);
      } finally {
        socket.close();
      }
      const nft = new NftSocket();
      try {
        for (const [index, rule] of nft.listRules(table).entries()) {
          const packets = packetsOf(rule.expressions);
          const meaning = packets === undefined ? undefined : meaningOfRule(rule);
          if (meaning === undefined) continue;
          const identity = `${rule.chain} ${rule.handle ?? index}`;
          readings.push({ rule: identity, meaning, packets: packets ?? 0 });
        }
      } finally {
        nft.close();
      }
      return readings;
    },
  };
}

async function readMap(
  socket: NetlinkSocket,
  table: { readonly family: 'ip' | 'ip6'; readonly name: string },
  name: SetName,
  owners: ReadonlyMap<string, ServicePortId>,
  readings: Reading[],
): Promise<void> {
  const start = readings.length;
  const endpoints = endpointMaps.includes(name);
  const take = (reader: AttributeReader): void => {
    const element = readCounted(reader);
    if (element === undefined) return;
    const { key, data, packets } = element;
    const frontend = endpoints ? key.subarray(0, key.length - slotSize) : key;
    const id = owners.get(hex(frontend));
    if (id === undefined) return;
    const rule = `${name} ${hex(key)}${endpoints ? ` ${hex(data)}` : ''}`;
    readings.push({ rule, meaning: meaningOfElement(name, id, data), packets });
  };
  await dumpElements(socket, table, name, take, () => {
    readings.length = start;
  });
}

function meaningOfElement(name: SetName, id: ServicePortId, data: Uint8Array): Meaning {
  if (endpointMaps.includes(name)) return { kind: 'endpoint', id, endpoint: endpointOf(data) };
  if (dispatchMaps.includes(name)) return { kind: 'service', id };
  return isDrop(data)
    ? { kind: 'refused', reason: 'no_local_endpoints', verdict: 'drop', id }
    : { kind: 'refused', reason: 'no_endpoints', verdict: 'reject', id };
}

/** `ADDRESS . PORT`, the port padded to a word. */
function endpointOf(data: Uint8Array): string {
  const size = data.length - 4;
  const ip = formatAddress(data, 0, size);
  const port = (data[size]! << 8) | data[size + 1]!;
  return size === 16 ? `[${ip}]:${port}` : `${ip}:${port}`;
}
