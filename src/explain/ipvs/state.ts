/** All that IPVS mode has in the kernel, wanted or as the tools print it, and the world as it is with it. */
import { jumps, printRules, type RuleSet } from '../../dataplane/ipvs/rules.ts';
import type { IpvsOptions } from '../../dataplane/ipvs/settings.ts';
import { parseSave, type SavedTable } from '../../linux/iptables/save.ts';
import { parseSavedLine, serverKey, type RealServer } from '../../linux/netlink/ipvs/objects.ts';
import { ipvsContents } from '../../render/ipvs.ts';
import type { RoutingTable } from '../../services/types.ts';
import { iptablesChains } from '../iptables/evaluate.ts';
import type { BaseChain } from '../walk.ts';
import type { IpSet, World } from '../world.ts';
import { ipvsChains, type ServerState } from './evaluate.ts';

export interface IpvsState {
  readonly servers: readonly ServerState[];
  /** By name, as `ipset save` prints them. */
  readonly sets: ReadonlyMap<string, IpSet>;
  /** Those of kube-ipvs0: to the kernel they are the node's own. */
  readonly addresses: readonly string[];
  readonly tables: readonly SavedTable[];
}

/** What routes want; nothing of anybody else's. @param localAddresses the node's, without those of kube-ipvs0 */
export function wantedIpvsState(
  options: IpvsOptions,
  table: RoutingTable,
  localAddresses: readonly string[],
): IpvsState {
  const { servers, sets, addresses, rules } = ipvsContents(options, table, localAddresses);
  return {
    servers,
    sets: new Map(
      sets.map(({ definition: { name, type }, entries }) => [name, { type, members: entries }] as const),
    ),
    addresses,
    tables: savedTables(rules),
  };
}

/** Virtual servers as `ipvsadm --save --numeric` prints them. */
export function parseServers(text: string): ServerState[] {
  const found = new Map<string, { server: ServerState['server']; reals: RealServer[] }>();
  for (const line of text.split('\n')) {
    const parsed = parseSavedLine(line);
    if (parsed?.kind === 'server') found.set(serverKey(parsed.server), { server: parsed.server, reals: [] });
    else if (parsed !== undefined) found.get(serverKey(parsed.identity))?.reals.push(parsed.real);
  }
  return [...found.values()];
}

/** The base chains to walk through. They need `worldWithIpvs`. */
export function ipvsStateChains(state: Pick<IpvsState, 'servers' | 'tables'>): BaseChain[] {
  return [...iptablesChains(state.tables), ...ipvsChains(state.servers)];
}

/** The machine with the addresses of kube-ipvs0 and the members of the sets. */
export function worldWithIpvs(world: World, { addresses, sets }: IpvsState): World {
  return world.with({
    serviceAddresses: [...addresses],
    ipsets: new Map([...world.ipsets, ...sets]),
  });
}

const builtIn: readonly (readonly [table: string, chains: readonly string[]])[] = [
  ['mangle', ['PREROUTING', 'INPUT', 'FORWARD', 'OUTPUT', 'POSTROUTING']],
  ['nat', ['PREROUTING', 'INPUT', 'OUTPUT', 'POSTROUTING']],
  ['filter', ['INPUT', 'FORWARD', 'OUTPUT']],
];

/** What iptables-save would print on a node with nobody else's rules. */
function savedTables(rules: RuleSet): SavedTable[] {
  const tables = parseSave(printRules(rules));
  for (const [name, chains] of builtIn) {
    const saved = tables.find(({ table }) => table === name);
    for (const chain of chains) saved?.chains.set(chain, { name: chain, policy: 'ACCEPT', rules: [] });
    for (const jump of jumps) {
      // Each goes on top of those before.
      if (jump.table === name) saved?.chains.get(jump.from)?.rules.unshift(jump.args);
    }
  }
  return tables;
}
