/** IPVS mode: sets, rules, virtual servers and the addresses of kube-ipvs0, each for its own tool, in the order of loading. */
import { deviceName, setDefinition, setIds } from '../dataplane/ipvs/names.ts';
import { counts, nodeSideOf } from '../dataplane/ipvs/nodeSide.ts';
import { jumps, printRules, rulesOf, type RuleSet } from '../dataplane/ipvs/rules.ts';
import { settingsOf, type IpvsOptions } from '../dataplane/ipvs/settings.ts';
import { translate } from '../dataplane/ipvs/translate.ts';
import { Wanted as Objects } from '../dataplane/ipvs/wanted.ts';
import { sortedRoutes } from '../dataplane/iptables/document.ts';
import { printDefinition, type SetDefinition } from '../linux/netlink/ipset/objects.ts';
import {
  printRealServer,
  printServer,
  type RealServer,
  type VirtualServer,
} from '../linux/netlink/ipvs/objects.ts';
import { familyOf } from '../services/ip.ts';
import type { RoutingTable } from '../services/types.ts';
import type { Wanted, WantedFamily } from './wanted.ts';

export interface IpvsDocument {
  readonly name: string;
  readonly load: string;
  readonly text: string;
  /** The tool takes lines that begin with #. */
  readonly comments: boolean;
}

/** What the kernel is to hold in IPVS mode, for one family; every list is sorted. */
export interface IpvsContents {
  /** Entries are as ipset prints them. */
  readonly sets: readonly { readonly definition: SetDefinition; readonly entries: readonly string[] }[];
  readonly rules: RuleSet;
  readonly servers: readonly { readonly server: VirtualServer; readonly reals: readonly RealServer[] }[];
  /** Those of kube-ipvs0. */
  readonly addresses: readonly string[];
}

/** @param localAddresses the node's own, without those of kube-ipvs0 */
export function ipvsContents(
  options: IpvsOptions,
  table: RoutingTable,
  localAddresses: readonly string[],
): IpvsContents {
  const { family } = options;
  const settings = settingsOf(options, true);
  const own = localAddresses.filter((address) => counts({ family: familyOf(address), address }, family));
  const side = nodeSideOf(options.nodePortAddresses, new Set(own));
  const objects = new Objects();
  for (const route of sortedRoutes(table.routes.values())) objects.add(translate(route, settings, side));
  return {
    sets: setIds.map((id) => ({
      definition: setDefinition(id, family),
      entries: [...objects.entries(id).keys()].sort(),
    })),
    rules: rulesOf(settings, (id) => objects.filled(id), objects.outFilter),
    servers: [...objects.serverKeys].sort().map((key) => {
      const { server, endpoints } = objects.server(key)!;
      const reals = endpoints.map(({ ip, port }): RealServer => ({
        address: ip,
        port,
        forwarding: 'masquerade',
        weight: 1,
        upperThreshold: 0,
        lowerThreshold: 0,
      }));
      return { server, reals };
    }),
    addresses: [...objects.addresses.keys()].sort(),
  };
}

export function renderIpvs(
  { config, node, families }: Pick<Wanted, 'config' | 'node' | 'families'>,
  { family, options, table }: WantedFamily,
): IpvsDocument[] {
  const { scheduler, excludeCIDRs } = config.ipvs;
  const contents = ipvsContents({ ...options, scheduler, excludeCIDRs }, table, node.localAddresses);
  const sets = contents.sets.flatMap(({ definition, entries }) => [
    printDefinition(definition),
    ...entries.map((text) => `add ${definition.name} ${text}`),
  ]);
  const servers = contents.servers.flatMap(({ server, reals }) => [
    printServer(server),
    ...reals.map((real) => printRealServer(server, real)),
  ]);
  const bits = family === 'IPv6' ? 128 : 32;
  const restore = `${family === 'IPv6' ? 'ip6tables' : 'iptables'}-restore --noflush`;
  return [
    { name: 'ipset.save', load: 'ipset restore -exist -file', text: lines(sets), comments: true },
    { name: 'rules', load: restore, text: printRules(contents.rules, jumps), comments: true },
    { name: 'ipvsadm.save', load: 'ipvsadm --restore <', text: lines(servers), comments: false },
    {
      name: 'addresses.ip',
      load: 'ip -batch',
      text: lines([
        // One device serves both families.
        ...(families[0]?.family === family ? [`link add ${deviceName} type dummy`] : []),
        ...contents.addresses.map((ip) => `addr add ${ip}/${bits} dev ${deviceName}`),
      ]),
      comments: true,
    },
  ];
}

function lines(texts: readonly string[]): string {
  return texts.map((text) => `${text}\n`).join('');
}
