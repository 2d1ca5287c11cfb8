/** IPVS mode: sets, rules, virtual servers and the addresses of kube-ipvs0, each for its own tool, in the order of loading. */
import { deviceName, setDefinition, setIds } from '../dataplane/ipvs/names.ts';
import { jumps, printRules, rulesOf } from '../dataplane/ipvs/rules.ts';
import { settingsOf } from '../dataplane/ipvs/settings.ts';
import { translate } from '../dataplane/ipvs/translate.ts';
import { Wanted as Objects } from '../dataplane/ipvs/wanted.ts';
import { sortedRoutes } from '../dataplane/iptables/document.ts';
import { printDefinition } from '../linux/netlink/ipset/objects.ts';
import { printRealServer, printServer } from '../linux/netlink/ipvs/objects.ts';
import { familyOf, isLoopback } from '../services/ip.ts';
import { matchingAddresses } from '../services/nodePortAddresses.ts';
import type { Wanted, WantedFamily } from './wanted.ts';

export interface IpvsDocument {
  readonly name: string;
  readonly load: string;
  readonly text: string;
  /** The tool takes lines that begin with #. */
  readonly comments: boolean;
}

export function renderIpvs(
  { config, node }: Pick<Wanted, 'config' | 'node'>,
  wanted: WantedFamily,
): IpvsDocument[] {
  const { family, options, table } = wanted;
  const { scheduler, excludeCIDRs } = config.ipvs;
  const settings = settingsOf({ ...options, scheduler, excludeCIDRs }, true);
  const own = node.localAddresses.filter(
    (ip) => familyOf(ip) === family && !isLoopback(ip) && !/^fe[89ab][0-9a-f]:/.test(ip),
  );
  const side = { addresses: new Set(own), nodePorts: matchingAddresses(options.nodePortAddresses, own) };
  const objects = new Objects();
  for (const route of sortedRoutes(table.routes.values())) objects.add(translate(route, settings, side));

  const sets: string[] = [];
  for (const id of setIds) {
    const definition = setDefinition(id, family);
    sets.push(printDefinition(definition));
    for (const text of [...objects.entries(id).keys()].sort()) sets.push(`add ${definition.name} ${text}`);
  }
  const rules = rulesOf(settings, (id) => objects.filled(id), objects.outFilter);
  const servers: string[] = [];
  for (const key of [...objects.serverKeys].sort()) {
    const { server, endpoints } = objects.server(key)!;
    servers.push(printServer(server));
    for (const { ip, port } of endpoints) {
      const real = { address: ip, port, forwarding: 'masquerade', weight: 1 } as const;
      servers.push(printRealServer(server, { ...real, upperThreshold: 0, lowerThreshold: 0 }));
    }
  }
  const bits = family === 'IPv6' ? 128 : 32;
  const addresses = [...objects.addresses.keys()].sort();
  const restore = `${family === 'IPv6' ? 'ip6tables' : 'iptables'}-restore --noflush`;
  return [
    { name: 'ipset.save', load: 'ipset restore -exist -file', text: lines(sets), comments: true },
    { name: 'rules', load: restore, text: printRules(rules, jumps), comments: true },
    { name: 'ipvsadm.save', load: 'ipvsadm --restore <', text: lines(servers), comments: false },
    {
      name: 'addresses.ip',
      load: 'ip -batch',
      text: lines([
        `link add ${deviceName} type dummy`,
        ...addresses.map((ip) => `addr add ${ip}/${bits} dev ${deviceName}`),
      ]),
      comments: true,
    },
  ];
}

function lines(texts: readonly string[]): string {
  return texts.map((text) => `${text}\n`).join('');
}
