/** The rules of each service port by themselves: what two renderings are compared by. */
import type { Rule } from '../linux/iptables/rule.ts';
import { dispatchRules, ownRules } from '../dataplane/iptables/serviceRules.ts';
import { makeLayout } from '../dataplane/nftables/layout.ts';
import { Mirror } from '../dataplane/nftables/mirror.ts';
import { poolsOf, routeRules } from '../dataplane/userspace/rules.ts';
import { printElement } from '../linux/netlink/nftables/print.ts';
import type { ServicePortId } from '../services/types.ts';
import { iptablesSettings } from './iptables.ts';
import { renderIpvs } from './ipvs.ts';
import type { Wanted, WantedFamily } from './wanted.ts';

/** Lines in the kernel tool's syntax by service port, in a stable order. */
export function ruleLines(wanted: Wanted, family: WantedFamily): Map<ServicePortId, string[]> {
  switch (wanted.config.mode) {
    case 'nftables':
      return nftablesLines(family);
    case 'userspace':
      return userspaceLines(family);
    case 'ipvs':
      return ipvsLines(wanted, family);
    case 'iptables':
      return iptablesLines(wanted, family);
  }
}

function iptablesLines(wanted: Wanted, family: WantedFamily): Map<ServicePortId, string[]> {
  const settings = iptablesSettings(wanted, family);
  const lines = new Map<ServicePortId, string[]>();
  for (const [id, route] of family.table.routes) {
    const dispatch = dispatchRules(route, settings);
    const print = (table: string) => (rule: Rule) => `-t ${table} -A ${rule.chain} ${rule.args}`;
    lines.set(id, [
      ...dispatch.filter.map(print('filter')),
      ...[...dispatch.nat, ...ownRules(route, settings, true).rules].map(print('nat')),
    ]);
  }
  return lines;
}

/** Numbers of affinity are left out: they count services, so one more would change those of others. */
function nftablesLines({ options, table }: WantedFamily): Map<ServicePortId, string[]> {
  const layout = makeLayout(options);
  const lines = new Map<ServicePortId, string[]>();
  for (const [id, route] of table.routes) {
    const own: string[] = [];
    // A table of its own for each, so that what two services share shows up with both.
    const mirror = new Mirror(layout, options.nodeIP);
    mirror.apply(id, route, {
      add: (name, element) => {
        if (name === 'sticky-times' || name === 'sticky-draws' || name === 'sticky-targets') return;
        const set = layout.sets.get(name)!;
        const text = printElement(set, element);
        own.push(`${name} { ${name.endsWith('sticky-ids') ? text.replace(/ : .*$/, '') : text} }`);
      },
      remove: () => undefined,
    });
    if (route.port.affinitySeconds > 0 && own.some((line) => line.includes('sticky-ids')))
      own.push(`sticky-times { ${route.port.affinitySeconds}s }`);
    lines.set(id, own.sort());
  }
  return lines;
}

function userspaceLines({ family, options, table }: WantedFamily): Map<ServicePortId, string[]> {
  const settings = { family, detector: options.localDetector, hostIP: options.nodeIP };
  const lines = new Map<ServicePortId, string[]>();
  for (const [id, route] of table.routes) {
    // Ports are chosen by the daemon: what matters here is whether there is a listener.
    const pools = route.port.protocol === 'SCTP' ? [] : poolsOf(route);
    const targets = Object.fromEntries(pools.map((pool) => [pool, { host: '', port: 0 }]));
    const rules = routeRules(route, targets, settings);
    const own = rules.map((rule) => `-t ${rule.table} -A ${rule.chain} ${rule.args}`);
    const served = pools.flatMap((pool) =>
      route[pool].map((endpoint) => `${pool} listener → ${endpoint.key}`),
    );
    lines.set(id, [...own, ...served]);
  }
  return lines;
}

/** What the service port has in the sets and in IPVS, as one alone would; the rules themselves name no service. */
function ipvsLines(wanted: Wanted, family: WantedFamily): Map<ServicePortId, string[]> {
  const lines = new Map<ServicePortId, string[]>();
  for (const [id, route] of family.table.routes) {
    const alone = { ...family, table: { family: family.family, routes: new Map([[id, route]]) } };
    const own = renderIpvs(wanted, alone).flatMap(({ name, text }) =>
      name === 'rules' ? [] : text.split('\n').filter((line) => line !== '' && !/^(create|link) /.test(line)),
    );
    lines.set(id, own);
  }
  return lines;
}
