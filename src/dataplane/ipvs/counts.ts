/**
 * IPVS mode: the kernel counts the connections of every virtual server and of every real server behind it, whoever
 * asks or not. What the rules around it refuse and masquerade, they count as iptables rules do.
 */
import type { Family, Protocol } from '../../api/objects.ts';
import { Iptables } from '../../linux/iptables/iptables.ts';
import { serverFamily, type ServerIdentity } from '../../linux/netlink/ipvs/objects.ts';
import { formatAddressPort } from '../../services/ip.ts';
import type { RoutingTable, ServicePortId } from '../../services/types.ts';
import { countedRule, refused, type CounterSource, type Meaning, type Reading } from '../counts.ts';
import { Turns } from '../turns.ts';
import { openIpvs } from './checks.ts';
import {
  dropChain,
  ipvsFilterChain,
  ipvsOutFilterChain,
  postroutingChain,
  sourceRangesChain,
  type RuleTable,
} from './names.ts';

const tables: readonly RuleTable[] = ['nat', 'filter', 'mangle'];
const protocols: Readonly<Record<string, Protocol>> = {
  tcp: 'TCP',
  udp: 'UDP',
  sctp: 'SCTP',
  '6': 'TCP',
  '17': 'UDP',
  '132': 'SCTP',
};

/** Which service port answers at an address and port: its own addresses before node ports, as for virtual servers. */
export class FrontendOwners {
  readonly #owners = new Map<string, ServicePortId>();

  constructor(table: RoutingTable) {
    for (const { frontends, port } of table.routes.values()) {
      for (const { kind, ip, protocol, port: number } of frontends) {
        const key = kind === 'nodePort' ? nodePortKey(number, protocol) : addressKey(ip, number, protocol);
        if (!this.#owners.has(key)) this.#owners.set(key, port.id);
      }
    }
  }

  of({ address, port, protocol }: ServerIdentity): ServicePortId | undefined {
    return (
      this.#owners.get(addressKey(address, port, protocol)) ?? this.#owners.get(nodePortKey(port, protocol))
    );
  }
}

function addressKey(ip: string, port: number, protocol: Protocol): string {
  return `${formatAddressPort(ip, port)}/${protocol}`;
}

function nodePortKey(port: number, protocol: Protocol): string {
  return `${port}/${protocol}`;
}

/** What a rule of ours counts; undefined = nothing of interest. `rule` is a line of iptables-save behind `-A `. */
export function meaningOfRule(rule: string, owners: FrontendOwners): Meaning | undefined {
  const chain = rule.slice(0, rule.indexOf(' '));
  const target = / -j (REJECT|DROP|MASQUERADE)\b/.exec(rule)?.[1];
  if (target === undefined) return undefined;
  switch (chain) {
    case postroutingChain:
      return target === 'MASQUERADE' ? { kind: 'masqueraded' } : undefined;
    case sourceRangesChain:
      return refused('source_range', 'drop');
    case ipvsOutFilterChain: {
      const [, address = '', protocol = '', port = ''] =
        /--vaddr ([0-9a-f.:]+)\S* .*--vproto (\w+) .*--vport (\d+)/.exec(rule) ?? [];
      const server = { address, protocol: protocols[protocol] ?? 'TCP', port: Number(port) };
      return refused('source_range', 'drop', owners.of(server));
    }
    case ipvsFilterChain:
      return target === 'REJECT' ? refused('no_such_port', 'reject') : refused('no_local_endpoints', 'drop');
    case dropChain:
      return refused('no_local_endpoints', 'drop');
    default:
      return undefined;
  }
}

export class IpvsCounts implements CounterSource {
  readonly name = 'ipvs';
  /** The list of virtual servers is read in parts, while others come and go. */
  readonly mayMiss = true;
  readonly notes = [
    'IPVS itself refuses connections to a service port without endpoints, and counts none of them.',
    'IPVS does not tell which connections session affinity sent to the endpoint of before.',
  ];
  readonly #family: Family;
  #iptables: Iptables | undefined;
  #rulesAnew = false;

  constructor(family: Family) {
    this.#family = family;
  }

  /** Our chains have been emptied and filled: their rules began at 0. */
  rulesWritten(): void {
    this.#rulesAnew = true;
  }

  async read(table: RoutingTable): Promise<Reading[]> {
    const fresh = this.#rulesAnew;
    this.#rulesAnew = false;
    try {
      return await this.#read(table, fresh);
    } catch (error) {
      // Nobody has heard of it yet.
      this.#rulesAnew ||= fresh;
      throw error;
    }
  }

  async #read(table: RoutingTable, fresh: boolean): Promise<Reading[]> {
    const owners = new FrontendOwners(table);
    const readings: Reading[] = [];
    await readServers(this.#family, owners, readings);
    const programs = (this.#iptables ??= await Iptables.open(this.#family));
    for (const name of tables) {
      await programs.saveCounted(name, (line) => {
        const counted = countedRule(line);
        const meaning = counted === undefined ? undefined : meaningOfRule(counted.rule, owners);
        if (counted === undefined || meaning === undefined) return;
        readings.push({ rule: `${name} ${counted.rule}`, meaning, packets: counted.packets, fresh });
      });
    }
    return readings;
  }
}

async function readServers(family: Family, owners: FrontendOwners, readings: Reading[]): Promise<void> {
  const ipvs = openIpvs();
  try {
    const statistics = ipvs.serverStatistics();
    const turns = new Turns();
    for (const { server, connections } of statistics.values()) {
      if (serverFamily(server) !== family) continue;
      const id = owners.of(server);
      if (id === undefined) continue;
      const rule = `${formatAddressPort(server.address, server.port)}/${server.protocol}`;
      readings.push({ rule, meaning: { kind: 'service', id }, packets: Number(connections) });
      // Whoever has no connections has none behind it.
      if (connections === 0n) continue;
      for (const [endpoint, { connections: count }] of ipvs.realServerStatistics(server))
        readings.push({
          rule: `${rule} ${endpoint}`,
          meaning: { kind: 'endpoint', id, endpoint },
          packets: Number(count),
        });
      await turns.pause();
    }
  } finally {
    ipvs.close();
  }
}
