/** What this machine has: rules of every kind that are in force, addresses, and what lists remember. Changes nothing. */
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import type { Family } from '../../api/objects.ts';
import { deviceName } from '../../dataplane/ipvs/names.ts';
import { listLocalAddresses } from '../../linux/addresses.ts';
import { mayAdministerNetwork } from '../../linux/capabilities.ts';
import { run } from '../../linux/exec.ts';
import { parseSave } from '../../linux/iptables/save.ts';
import { ConntrackTable } from '../../linux/netlink/ctnetlink.ts';
import { IPS_SEEN_REPLY, type ConntrackEntry } from '../../linux/netlink/conntrack-entry.ts';
import { watchNewConnections } from '../../linux/netlink/conntrackEvents.ts';
import { NetlinkIpvs } from '../../linux/netlink/ipvs/ipvs.ts';
import { serverFamily } from '../../linux/netlink/ipvs/objects.ts';
import { NftSocket } from '../../linux/netlink/nftables/socket.ts';
import type { TableContents } from '../../linux/netlink/nftables/print.ts';
import { parseCIDR } from '../../services/ip.ts';
import type { KnownFlow } from '../case.ts';
import { parseIpsets } from '../iptables/ipset.ts';
import { iptablesChains } from '../iptables/evaluate.ts';
import { markingPrefix } from '../live/marking.ts';
import type { ServerState } from '../ipvs/evaluate.ts';
import { nftChains } from '../nft/evaluate.ts';
import { tableFromKernel } from '../nft/fromNetlink.ts';
import { protocolNumbers, type Packet } from '../packet.ts';
import type { RuleMode } from '../routes.ts';
import type { BaseChain } from '../walk.ts';
import type { IpSet, InterfaceRoute } from '../world.ts';
import { modeOf } from './dump.ts';
import { isWaiting, readSockets } from './sockets.ts';

export interface KernelState {
  readonly mode: RuleMode;
  readonly chains: readonly BaseChain[];
  /** Without those that IPVS mode has put on kube-ipvs0. */
  readonly localAddresses: readonly string[];
  readonly serviceAddresses: readonly string[];
  /** Virtual servers of the family. */
  readonly servers: readonly ServerState[];
  /** The first address that is not a loopback one. */
  readonly nodeIP: string;
  readonly routes: readonly InterfaceRoute[];
  readonly ipsets: ReadonlyMap<string, IpSet>;
  readonly recent: ReadonlyMap<string, ReadonlySet<string>>;
  /** `TCP 80`, `UDP 53` */
  readonly listening: ReadonlySet<string>;
  readonly flows: readonly KnownFlow[];
  /** What could not be read. */
  readonly remarks: readonly string[];
}

/** Needs root. Throws a sentence if neither iptables nor nftables rules can be read. */
export async function readKernel(family: Family): Promise<KernelState> {
  if (!mayAdministerNetwork())
    throw new Error(
      'only root may read the rules of the kernel: use sudo; without it, give manifests (-f) or saved rules (--dump)',
    );
  const remarks: string[] = [];
  const all = listLocalAddresses().filter((one) => one.family === family);
  const ofServices = all.filter((one) => one.interface === deviceName);
  const addresses = all.filter((one) => one.interface !== deviceName);
  const tables = readNftables(family);
  const prefix = family === 'IPv6' ? 'ip6tables' : 'iptables';
  const chains: BaseChain[] = [];
  const compatible = new Set<string>();
  let iptablesServices = false;
  let iptablesMode: RuleMode = 'iptables';
  for (const variant of ['nft', 'legacy'] as const) {
    const { code, stdout, stderr } = await run([`${prefix}-${variant}-save`], { timeoutMs: 30_000 });
    if (code === 127) continue;
    if (code !== 0) {
      remarks.push(`${prefix}-${variant}-save failed: ${stderr.trim().split('\n')[0] ?? ''}`);
      continue;
    }
    const saved = parseSave(stdout);
    for (const { table, chains: list } of saved) {
      if (variant === 'nft') compatible.add(table);
      iptablesServices ||= table === 'nat' && (list.get('KUBE-SERVICES')?.rules.length ?? 0) > 0;
    }
    const itsMode = modeOf(saved);
    if (itsMode !== 'iptables') iptablesMode = itsMode;
    chains.push(...iptablesChains(saved));
  }
  const own = family === 'IPv6' ? 'ip6' : 'ip';
  // Tables that iptables-nft has made are read as what they are.
  const others = tables.filter(({ table }) => !(table.family === own && compatible.has(table.name)));
  chains.push(...nftChains(others.map(tableFromKernel), family));
  const routes = await readRoutes(family, remarks);
  const nftables =
    others.some(({ table }) => table.name === 'kube-proxy') &&
    !iptablesServices &&
    iptablesMode === 'iptables';
  return {
    mode: nftables ? 'nftables' : iptablesMode,
    chains,
    servers: readServers(family, remarks),
    serviceAddresses: ofServices.map(({ address }) => address),
    localAddresses: addresses.map(({ address }) => address),
    nodeIP:
      addresses.find(({ loopback, address }) => !loopback && !address.startsWith('fe80:'))?.address ?? '',
    routes,
    ipsets: parseIpsets((await run(['ipset', 'save'], { timeoutMs: 30_000 })).stdout),
    recent: readRecent(),
    listening: readListening(),
    flows: readFlows(family, remarks),
    remarks,
  };
}

/** None where the kernel has no IPVS. */
function readServers(family: Family, remarks: string[]): ServerState[] {
  // Asking would load the module.
  if (!existsSync('/proc/net/ip_vs')) return [];
  try {
    const ipvs = NetlinkIpvs.open();
    if (ipvs === undefined) return [];
    try {
      return ipvs
        .listServers()
        .filter((server) => serverFamily(server) === family)
        .map((server) => ({ server, reals: ipvs.listRealServers(server) }));
    } finally {
      ipvs.close();
    }
  } catch (error) {
    remarks.push(`the virtual servers of IPVS could not be read: ${(error as Error).message}`);
    return [];
  }
}

function readNftables(family: Family): TableContents[] {
  const socket = new NftSocket();
  try {
    const own = family === 'IPv6' ? 'ip6' : 'ip';
    return (
      socket
        .listTables()
        .filter(
          (table) => (table.family === own || table.family === 'inet') && ((table.flags ?? 0) & 1) === 0,
        )
        // Another explain --live that is at work meanwhile: its rules decide nothing.
        .filter(({ name }) => !name.startsWith(markingPrefix))
        .flatMap((table) => socket.readTable(table) ?? [])
    );
  } finally {
    socket.close();
  }
}

async function readRoutes(family: Family, remarks: string[]): Promise<InterfaceRoute[]> {
  const { code, stdout } = await run(['ip', family === 'IPv6' ? '-6' : '-4', '-j', 'route', 'show'], {
    timeoutMs: 10_000,
  });
  if (code !== 0) {
    remarks.push('the routes of this machine could not be read (ip route): interfaces are not known');
    return [];
  }
  const all = family === 'IPv6' ? '::/0' : '0.0.0.0/0';
  const bits = family === 'IPv6' ? 128 : 32;
  return (JSON.parse(stdout || '[]') as { dst?: string; dev?: string; prefsrc?: string }[]).flatMap(
    ({ dst = '', dev, prefsrc }) => {
      const text = dst === 'default' ? all : dst.includes('/') ? dst : `${dst}/${bits}`;
      const cidr = parseCIDR(text);
      return cidr === undefined || dev === undefined
        ? []
        : [{ cidr, interface: dev, ...(prefsrc === undefined ? {} : { source: prefsrc }) }];
    },
  );
}

/** Ports of sockets that wait for clients, of both families: `::` takes IPv4, too. */
function readListening(): Set<string> {
  const all = [...readSockets('TCP'), ...readSockets('UDP')];
  return new Set(all.filter(isWaiting).map(({ protocol, localPort }) => `${protocol} ${localPort}`));
}

/** Lists of `-m recent`: one client a line, `src=10.0.0.1 ttl: 64 …`. */
function readRecent(): Map<string, Set<string>> {
  const lists = new Map<string, Set<string>>();
  const folder = '/proc/net/xt_recent';
  let names: string[];
  try {
    names = readdirSync(folder);
  } catch {
    // The module is not loaded: nobody is remembered.
    return lists;
  }
  for (const name of names) {
    const text = readFileSync(`${folder}/${name}`, 'utf8');
    lists.set(name, new Set([...text.matchAll(/^src=(\S+)/gm)].map((match) => match[1]!)));
  }
  return lists;
}

const protocols: Readonly<Record<number, KnownFlow['protocol']>> = { 6: 'TCP', 17: 'UDP', 132: 'SCTP' };

/** Undefined for protocols that Services have not. */
function knownFlow({ original, reply, status }: ConntrackEntry): KnownFlow | undefined {
  const protocol = protocols[original.protocol];
  if (protocol === undefined) return undefined;
  return {
    protocol,
    source: original.source,
    sourcePort: original.sourcePort,
    destination: original.destination,
    destinationPort: original.destinationPort,
    endpoint: reply.source,
    endpointPort: reply.sourcePort,
    answered: (status & IPS_SEEN_REPLY) !== 0,
  };
}

export function readFlows(family: Family, remarks: string[]): KnownFlow[] {
  const table = new ConntrackTable();
  try {
    return table.listAll(family).flatMap((entry) => knownFlow(entry) ?? []);
  } catch (error) {
    remarks.push(`connection tracking could not be read: ${(error as Error).message}`);
    return [];
  } finally {
    table.close();
  }
}

/** The connections that were made to where the packet goes. Throws if the kernel refuses. */
export async function readFlowsTo({
  family,
  protocol,
  destination,
  destinationPort,
}: Packet): Promise<KnownFlow[]> {
  const table = new ConntrackTable();
  let flows: KnownFlow[] = [];
  try {
    await table.list(
      family,
      { protocol: protocolNumbers[protocol], destination, destinationPort },
      (entry) => {
        const flow = knownFlow(entry);
        if (flow !== undefined) flows.push(flow);
      },
      () => {
        flows = [];
      },
    );
    return flows;
  } finally {
    table.close();
  }
}

/**
 * Tells new connections to where the packet goes, as connection tracking begins to remember them. What is lost on the
 * way `readFlowsTo` still finds.
 * @returns the function that ends it
 */
export function watchFlowsTo(packet: Packet, onFlow: (flow: KnownFlow) => void): () => void {
  return watchNewConnections(
    (entry) => {
      const flow = knownFlow(entry);
      if (
        flow?.protocol === packet.protocol &&
        flow.destination === packet.destination &&
        flow.destinationPort === packet.destinationPort
      )
        onFlow(flow);
    },
    () => undefined,
  );
}
