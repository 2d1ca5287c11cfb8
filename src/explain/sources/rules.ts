/** The rules that each mode would write for routes, as base chains to walk through; nothing touches a kernel. */
import { sortedRoutes, wholeDocument } from '../../dataplane/iptables/document.ts';
import { settingsOf } from '../../dataplane/iptables/settings.ts';
import { jumpArgs, jumps, nodePortTail } from '../../dataplane/iptables/staticRules.ts';
import { parseSave, type SavedTable } from '../../linux/iptables/save.ts';
import type { TableContents } from '../../linux/netlink/nftables/print.ts';
import { iptablesChains } from '../iptables/evaluate.ts';
import { nftablesContents } from '../../render/nftables.ts';
import { nftChains } from '../nft/evaluate.ts';
import { tableFromKernel } from '../nft/fromNetlink.ts';
import { ipvsStateChains, wantedIpvsState, worldWithIpvs } from '../ipvs/state.ts';
import type { Wanted } from '../routes.ts';
import { userspaceTables } from '../userspace/wantedTables.ts';
import type { BaseChain } from '../walk.ts';
import type { World } from '../world.ts';

/** Rules, and the machine as it is with them. */
export interface Machine {
  readonly chains: readonly BaseChain[];
  readonly world: World;
}

export function wantedMachine(wanted: Wanted, world: World): Machine {
  if (wanted.mode !== 'ipvs') return { chains: wantedChains(wanted, world), world };
  const options = { ...wanted.options, scheduler: wanted.scheduler ?? '', excludeCIDRs: [] };
  const state = wantedIpvsState(options, wanted.table, [...world.localAddresses]);
  return { chains: ipvsStateChains(state), world: worldWithIpvs(world, state) };
}

/** Of modes that are rules and nothing else. */
export function wantedChains(wanted: Wanted, world: World): BaseChain[] {
  switch (wanted.mode) {
    case 'iptables':
      return iptablesChains(wantedSave(wanted, world));
    case 'userspace':
      return iptablesChains(userspaceTables(wanted));
    case 'nftables':
      return nftChains([tableFromKernel(wantedTable(wanted, world))], wanted.table.family);
    case 'ipvs':
      throw new Error('IPVS mode is more than rules: wantedMachine has them');
  }
}

const builtIn: Readonly<Record<string, readonly string[]>> = {
  filter: ['INPUT', 'FORWARD', 'OUTPUT'],
  nat: ['PREROUTING', 'INPUT', 'OUTPUT', 'POSTROUTING'],
};

/** What iptables-save would print on a node with nobody else's rules. */
export function wantedSave(wanted: Wanted, world: World): SavedTable[] {
  const { options, localhostNodePorts, table } = wanted;
  const settings = settingsOf(
    { ...options, localhostNodePorts },
    { tcpBeLiberal: false, randomFully: true, countInvalid: false, countLocalhost: false },
  );
  const tail = nodePortTail(settings, [...world.localAddresses]);
  const tables = parseSave(wholeDocument(sortedRoutes(table.routes.values()), settings, tail.rules));
  for (const saved of tables) {
    for (const name of builtIn[saved.table] ?? []) {
      saved.chains.set(name, { name, policy: 'ACCEPT', rules: [] });
    }
    for (const jump of jumps) {
      // Each goes on top of those before.
      if (jump.table === saved.table && saved.chains.has(jump.to)) {
        saved.chains.get(jump.from)?.rules.unshift(jumpArgs(jump));
      }
    }
  }
  return tables;
}

/** Our table as the kernel would have it. */
export function wantedTable({ options, table, serviceCIDRs }: Wanted, world: World): TableContents {
  const family = {
    family: table.family,
    options,
    table,
    serviceCIDRs,
    healthChecks: new Map<never, never>(),
  };
  return nftablesContents(family, [...world.localAddresses]);
}
