/** What a node's proxy would write into the kernel, in the syntax of the kernel's tools. Pure: no root, no kernel. */
import type { Family } from '../api/objects.ts';
import { renderIptables } from './iptables.ts';
import { renderIpvs } from './ipvs.ts';
import { renderNftables } from './nftables.ts';
import { renderUserspace } from './userspace.ts';
import type { Wanted, WantedFamily } from './wanted.ts';

/** One document for one tool. */
export interface Rendering {
  readonly family: Family;
  /** `iptables-IPv4.rules`, `nftables-IPv6.nft`, … */
  readonly file: string;
  /** How to load it. */
  readonly load: string;
  /** Loadable as it is: the first lines say in comments what it is. */
  readonly text: string;
}

/** One rendering for each family and tool. Equal input gives equal text. */
export function render(wanted: Wanted): Rendering[] {
  const { mode } = wanted.config;
  return wanted.families.flatMap((one): Rendering | Rendering[] => {
    const { family } = one;
    const restore = `${family === 'IPv6' ? 'ip6tables' : 'iptables'}-restore --noflush`;
    switch (mode) {
      case 'iptables':
        return finish(wanted, family, `iptables-${family}.rules`, restore, renderIptables(wanted, one));
      case 'nftables':
        return finish(
          wanted,
          family,
          `nftables-${family}.nft`,
          'nft -f',
          renderNftables(one, wanted.node.localAddresses, wanted.config.extras.serviceCounters),
          remembersIPv6Clients(one)
            ? [
                'nft 1.0.6 cannot read the rules that remember IPv6 clients (it lists them): newer versions can',
              ]
            : [],
        );
      case 'userspace':
        return finish(wanted, family, `userspace-${family}.rules`, restore, renderUserspace(wanted, one), [
          "the listeners' ports are examples: the daemon takes those that are free",
        ]);
      case 'ipvs':
        return renderIpvs(wanted, one).map(({ name, load, text, comments }) => {
          const rendering = finish(wanted, family, `ipvs-${family}.${name}`, load, text);
          return comments ? rendering : { ...rendering, text };
        });
    }
  });
}

/** `update @map { A . ip6 saddr : ip6 daddr . B }`: nft 1.0.6 runs out of registers when it reads that. */
function remembersIPv6Clients({ family, table }: WantedFamily): boolean {
  if (family !== 'IPv6') return false;
  for (const route of table.routes.values()) if (route.port.affinitySeconds > 0 && route.hasAny) return true;
  return false;
}

function finish(
  { config, node }: Wanted,
  family: Family,
  file: string,
  load: string,
  rules: string,
  notes: readonly string[] = [],
): Rendering {
  const who = node.name === '' ? 'a node without a name' : `node ${node.name}`;
  const head = [`${config.mode} mode, ${family}, ${who}; load with: ${load} FILE`, ...notes];
  return { family, file, load, text: `${head.map((line) => `# ${line}\n`).join('')}${rules}` };
}
