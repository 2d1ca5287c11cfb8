/** nftables mode: the table as `nft list` prints it and `nft -f` loads it. */
import { intervalElements, nodeAddressElements } from '../dataplane/nftables/fixedSets.ts';
import { makeLayout, type Layout, type SetName } from '../dataplane/nftables/layout.ts';
import { Mirror, type ElementSink } from '../dataplane/nftables/mirror.ts';
import { sortedRoutes } from '../dataplane/iptables/document.ts';
import type { Element, NftSet, Rule, Chain } from '../linux/netlink/nftables/objects.ts';
import { printTable, type TableContents } from '../linux/netlink/nftables/print.ts';
import type { RuleConfig } from './node.ts';
import type { WantedFamily } from './wanted.ts';

/** Everything the table of a family holds after the first sync on a machine that had none. */
export function nftablesContents(
  { family, options, table, serviceCIDRs }: WantedFamily,
  localAddresses: readonly string[],
  serviceCounters: RuleConfig['extras']['serviceCounters'] = 'off',
): TableContents {
  const layout = makeLayout({ ...options, serviceCounters });
  const elements = new Map<string, Element[]>();
  const sink: ElementSink = {
    add: (set, element) => push(elements, set, element),
    remove: (set) => {
      throw new Error(`nothing can be removed from ${set} of a table that was empty`);
    },
  };
  for (const element of intervalElements(serviceCIDRs)) sink.add('service-cidrs', element);
  if (!layout.allNodeAddresses) {
    const bytes = family === 'IPv6' ? 16 : 4;
    for (const element of nodeAddressElements(options.nodePortAddresses, localAddresses, bytes))
      sink.add('node-addresses', element);
  }
  const mirror = new Mirror(layout, options.nodeIP);
  for (const route of sortedRoutes(table.routes.values())) mirror.apply(route.port.id, route, sink);
  return contentsOf(layout, mirror, elements);
}

function contentsOf(
  layout: Layout,
  mirror: Mirror,
  elements: ReadonlyMap<string, readonly Element[]>,
): TableContents {
  const service = mirror.chains.take().made;
  const sorted = service.toSorted((a, b) => (a.chain.name < b.chain.name ? -1 : 1));
  const chains: Chain[] = [];
  const rules: Rule[] = [];
  for (const one of [...layout.baseChains, ...layout.chains, ...sorted]) {
    chains.push(one.chain);
    rules.push(...one.rules);
  }
  const sets: NftSet[] = [...layout.sets.values()];
  return { table: layout.table, chains, rules, sets, elements: sortElements(elements, sets) };
}

/** By key, so that equal routes give equal text; intervals are in order as they are made. */
function sortElements(
  elements: ReadonlyMap<string, readonly Element[]>,
  sets: readonly NftSet[],
): ReadonlyMap<string, readonly Element[]> {
  const result = new Map<string, readonly Element[]>();
  for (const { name } of sets) {
    const list = elements.get(name);
    if (list === undefined) continue;
    result.set(
      name,
      name === ('service-cidrs' satisfies SetName)
        ? list
        : list.toSorted((a, b) => Buffer.compare(a.key, b.key) || endsOf(a, b)),
    );
  }
  return result;
}

function endsOf(a: Element, b: Element): number {
  return a.keyEnd === undefined || b.keyEnd === undefined ? 0 : Buffer.compare(a.keyEnd, b.keyEnd);
}

function push(elements: Map<string, Element[]>, set: string, element: Element): void {
  const list = elements.get(set);
  if (list === undefined) elements.set(set, [element]);
  else list.push(element);
}

/** A script that makes the table what it must be, in one transaction, whatever the machine had under its name. */
export function renderNftables(
  family: WantedFamily,
  localAddresses: readonly string[],
  serviceCounters: RuleConfig['extras']['serviceCounters'] = 'off',
): string {
  const contents = nftablesContents(family, localAddresses, serviceCounters);
  const name = `${contents.table.family} ${contents.table.name}`;
  return `add table ${name}\ndelete table ${name}\n${printTable(contents)}`;
}
