/** The whole rule set of one family as one iptables-restore document: for `render`, for tests, and to read. */
import type { Route } from '../../services/types.ts';
import { canaryChain, filterChains, firewallChain, natChains } from './names.ts';
import { printChain, printRule, type Rule } from '../../linux/iptables/rule.ts';
import { dispatchRules, ownRules } from './serviceRules.ts';
import type { Settings } from './settings.ts';
import { firewallRules, forwardRules, jumpArgs, jumps, postroutingRules } from './staticRules.ts';

/** More endpoints than this in all: endpoint rules go without comments. */
export const largeClusterEndpoints = 1000;

/** Routes by printable name, then protocol: the order of documents, so that equal tables give equal text. */
export function sortedRoutes(routes: Iterable<Route>): Route[] {
  return [...routes].sort((a, b) =>
    a.port.name === b.port.name
      ? compare(a.port.protocol, b.port.protocol)
      : compare(a.port.name, b.port.name),
  );
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

export function wantsComments(routes: Iterable<Route>): boolean {
  let endpoints = 0;
  for (const route of routes) endpoints += route.endpoints.length;
  return endpoints <= largeClusterEndpoints;
}

export interface DocumentOptions {
  /**
   * With what a start of the daemon makes beside it: canary chains, and jumps from the built-in chains (inserted: loaded
   * twice, they are there twice). It makes an empty machine one on which the daemon has just synced.
   */
  readonly start?: boolean;
}

/** `tail` = the node port rules that end KUBE-SERVICES (staticRules.ts, nodePortTail). */
export function wholeDocument(
  routes: readonly Route[],
  settings: Settings,
  tail: readonly Rule[],
  { start = false }: DocumentOptions = {},
): string {
  const comments = wantsComments(routes);
  const firewall = firewallRules(settings);
  const filter: Rule[] = [...firewall];
  const nat: Rule[] = [...postroutingRules(settings)];
  const chains: string[] = [];
  for (const route of sortedRoutes(routes)) {
    const dispatch = dispatchRules(route, settings);
    const own = ownRules(route, settings, comments);
    for (const rule of dispatch.filter) filter.push(rule);
    for (const rule of dispatch.nat) nat.push(rule);
    for (const rule of own.rules) nat.push(rule);
    for (const chain of own.chains) chains.push(chain);
  }
  const canary = start ? [printChain(canaryChain)] : [];
  const inserts = (table: 'filter' | 'nat'): string[] =>
    start ? jumps.flatMap((jump) => (jump.table === table ? [`-I ${jump.from} ${jumpArgs(jump)}`] : [])) : [];
  return [
    ...(start ? ['*mangle', ...canary, 'COMMIT'] : []),
    '*filter',
    ...[...filterChains, ...(start || firewall.length > 0 ? [firewallChain] : [])].map(printChain),
    ...canary,
    ...[...filter, ...forwardRules(settings)].map(printRule),
    ...inserts('filter'),
    'COMMIT',
    '*nat',
    ...[...natChains, ...chains].map(printChain),
    ...canary,
    ...[...nat, ...tail].map(printRule),
    ...inserts('nat'),
    'COMMIT',
    '',
  ].join('\n');
}
