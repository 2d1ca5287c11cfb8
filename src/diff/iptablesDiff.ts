/** Wanted against iptables-save, chain by chain. Comments and counters say nothing about packets and are not compared. */
import { wholeDocument } from '../dataplane/iptables/document.ts';
import {
  externalServicesChain,
  firewallChain,
  isOwnChain,
  nodePortsChain,
  proxyFirewallChain,
  servicesChain,
} from '../dataplane/iptables/names.ts';
import { dispatchRules, ownRules } from '../dataplane/iptables/serviceRules.ts';
import { jumpArgs, jumps, nodePortTail } from '../dataplane/iptables/staticRules.ts';
import { canonicalRule } from '../linux/iptables/canonical.ts';
import { parseSave, type SavedChain, type SavedTable } from '../linux/iptables/save.ts';
import { iptablesSettings, type IptablesAssumptions } from '../render/iptables.ts';
import type { Wanted, WantedFamily } from '../render/wanted.ts';
import { unmatched, type Difference } from './difference.ts';

/** Chains in which the order of rules means nothing, but for the one that has to be last. */
const unordered: ReadonlySet<string> = new Set([
  servicesChain,
  nodePortsChain,
  externalServicesChain,
  proxyFirewallChain,
]);

const separator = '\u0001';

/** Equal texts do the same to a packet, whatever they say of themselves and count. */
export function signRule(args: string): string {
  return canonicalRule(args)
    .split(separator)
    .filter((option) => !option.startsWith('--comment') && !option.startsWith('--nfacct-name'))
    .join(separator);
}

export function diffIptables(
  wanted: Pick<Wanted, 'config' | 'node'>,
  family: WantedFamily,
  actual: readonly SavedTable[],
  assumptions: IptablesAssumptions = {},
  localAddresses: readonly string[] = wanted.node.localAddresses,
): Difference[] {
  // A rule of its own is made for the counter of node ports on localhost, where counters exist.
  const counters = actual.some(({ chains }) =>
    [...chains.values()].some(({ rules }) => rules.some((rule) => rule.includes('--nfacct-name'))),
  );
  const settings = iptablesSettings(wanted, family, { counters, ...assumptions });
  const routes = [...family.table.routes.values()];
  const tail = nodePortTail(settings, localAddresses).rules;
  const document = parseSave(wholeDocument(routes, settings, tail, { start: true }));
  const owners = ownersOf(family, settings);
  const found: Difference[] = [];
  const add = (difference: Omit<Difference, 'family' | 'servicePort'>, servicePort = ''): void => {
    found.push({ family: family.family, servicePort, ...difference });
  };
  for (const { table, chains } of document) {
    const have = actual.find((one) => one.table === table)?.chains ?? new Map<string, SavedChain>();
    for (const [name, { rules }] of chains) {
      const there = have.get(name);
      const where = `${table} ${name}`;
      const print = (args: string): string => `-A ${name} ${args}`;
      const owner = owners.chains.get(name) ?? '';
      if (there === undefined) {
        // Empty, it does nothing: the kubelet makes it where it wants it.
        if (name === firewallChain && rules.length === 0) continue;
        add({ kind: 'missing', object: 'chain', where, wanted: rules.map(print), actual: [] }, owner);
        continue;
      }
      const { missing, extra } = unmatched(rules, there.rules, signRule);
      // The kubelet has rules of its own in there.
      const surplus = name === firewallChain ? [] : extra;
      const rule = (kind: Difference['kind'], lines: readonly string[], side: 'wanted' | 'actual'): void => {
        for (const args of lines) {
          const whose = owner === '' ? (owners.rules.get(signRule(args)) ?? '') : owner;
          add({ kind, object: 'rule', where, wanted: [], actual: [], [side]: [print(args)] }, whose);
        }
      };
      if (owner !== '' && missing.length > 0 && surplus.length > 0) {
        const sides = { wanted: missing.map(print), actual: surplus.map(print) };
        add({ kind: 'altered', object: 'rule', where, ...sides }, owner);
      } else {
        rule('missing', missing, 'wanted');
        rule('extra', surplus, 'actual');
      }
      if (
        missing.length === 0 &&
        surplus.length === 0 &&
        name !== firewallChain &&
        !sameOrder(name, rules, there.rules)
      ) {
        const sides = { wanted: rules.map(print), actual: there.rules.map(print) };
        add({ kind: 'altered', object: 'rule', where: `${where} (order)`, ...sides }, owner);
      }
    }
    for (const [name, { rules }] of have) {
      if (!isOwnChain(name) || chains.has(name)) continue;
      const lines = rules.map((args) => `-A ${name} ${args}`);
      add({ kind: 'extra', object: 'chain', where: `${table} ${name}`, wanted: [], actual: lines });
    }
  }
  for (const jump of jumps) {
    const there = actual.find((one) => one.table === jump.table)?.chains.get(jump.from);
    const args = jumpArgs(jump);
    if (there?.rules.some((rule) => signRule(rule) === signRule(args)) === true) continue;
    // The kubelet's, where there is nothing to refuse.
    if (jump.to === firewallChain && !settings.localhostNodePorts) continue;
    const where = `${jump.table} ${jump.from}`;
    add({ kind: 'missing', object: 'jump', where, wanted: [`-I ${jump.from} ${args}`], actual: [] });
  }
  return found;
}

function sameOrder(chain: string, wanted: readonly string[], actual: readonly string[]): boolean {
  if (!unordered.has(chain)) return wanted.every((rule, i) => signRule(rule) === signRule(actual[i] ?? ''));
  const last = wanted.filter((rule) => rule.endsWith(`-j ${nodePortsChain}`)).map(signRule);
  const end = new Set(actual.slice(actual.length - last.length).map(signRule));
  return last.every((rule) => end.has(rule));
}

/** Whose chains and entries of shared chains are. */
function ownersOf(
  { table }: WantedFamily,
  settings: Parameters<typeof dispatchRules>[1],
): { readonly chains: ReadonlyMap<string, string>; readonly rules: ReadonlyMap<string, string> } {
  const chains = new Map<string, string>();
  const rules = new Map<string, string>();
  for (const route of table.routes.values()) {
    for (const chain of ownRules(route, settings, false).chains) chains.set(chain, route.port.name);
    const { filter, nat } = dispatchRules(route, settings);
    for (const { args } of [...filter, ...nat]) rules.set(signRule(args), route.port.name);
  }
  return { chains, rules };
}
