/**
 * Translation: which packets are redirected to which of our listeners, and which are refused, as iptables rules. Pure.
 *
 * A frontend whose traffic nobody may serve is not redirected but refused by a rule, so that its clients see what
 * they see in iptables mode.
 */
import type { Family, Protocol } from '../../api/objects.ts';
import { cidrContains, formatAddressPort, parseCIDR } from '../../services/ip.ts';
import type { Frontend, Route } from '../../services/types.ts';
import type { LocalDetector } from '../../services/localDetection.ts';
import { podMatch } from '../podMatch.ts';
import type { Pool } from './balancer.ts';
import {
  nodePortContainer,
  nodePortHost,
  nodePortRefuse,
  nonLocal,
  portalsContainer,
  portalsHost,
  portalsRefuse,
  type RuleTable,
} from './names.ts';

export interface Rule {
  readonly table: RuleTable;
  readonly chain: string;
  /** What follows `-A CHAIN `. */
  readonly args: string;
}

/** A listener of ours. */
export interface Target {
  /** The address it listens on; empty = all. */
  readonly host: string;
  readonly port: number;
}

/** The listeners of a service port, by the pool that they choose from. One that could not be opened is missing. */
export type Targets = Readonly<Partial<Record<Pool, Target>>>;

export interface RuleSettings {
  readonly family: Family;
  readonly detector: LocalDetector | undefined;
  /** Where this host's own packets are sent; empty if no address is known, and then loopback it is. */
  readonly hostIP: string;
}

/** What happens to packets of one kind of source. */
type Fate = { readonly to: Target } | 'reject' | 'drop';

/** Pools that the traffic of a route is sent to: the listeners it needs. */
export function poolsOf(route: Route): Pool[] {
  const pools = new Set<Pool>();
  const add = (verdict: Route['internal']): void => {
    if (verdict === 'cluster' || verdict === 'local') pools.add(verdict);
  };
  for (const { kind } of route.frontends) {
    if (kind === 'clusterIP') add(route.internal);
    else {
      add(route.external);
      if (route.hasAny) pools.add('cluster');
    }
  }
  return [...pools];
}

/**
 * Rules that come before those of all routes: where node ports are not to answer on loopback addresses
 * (`iptables.localhostNodePorts`), packets there are nobody's business.
 */
export function commonRules(family: Family, localhostNodePorts: boolean): Rule[] {
  if (localhostNodePorts) return [];
  const args = `-d ${family === 'IPv4' ? '127.0.0.0/8' : '::1/128'} -j RETURN`;
  return [
    { table: 'nat', chain: nodePortContainer, args },
    { table: 'nat', chain: nodePortHost, args },
    { table: 'filter', chain: nodePortRefuse, args },
  ];
}

/** The rules of a route, in order. Chains know no other order: rules of different routes match different packets. */
export function routeRules(route: Route, targets: Targets, settings: RuleSettings): Rule[] {
  const rules: Rule[] = [];
  const said = `-m comment --comment "${route.port.name}"`;
  const fate = (verdict: Route['internal']): Fate => {
    if (verdict === 'reject' || verdict === 'drop') return verdict;
    const to = targets[verdict];
    // Without a listener nobody can serve it: better a clear answer than silence.
    return to === undefined ? 'reject' : { to };
  };
  const outside = fate(route.external);
  const inside = fate(route.hasAny ? 'cluster' : 'reject');
  for (const frontend of route.frontends) {
    if (frontend.kind === 'clusterIP') {
      const internal = fate(route.internal);
      pushFrontend(rules, said, frontend, internal, internal, [], settings);
    } else {
      const ranges = frontend.kind === 'loadBalancerIP' ? route.port.sourceRanges : [];
      pushFrontend(rules, said, frontend, inside, outside, ranges, settings);
    }
  }
  const hasNodePort = route.frontends.some(({ kind }) => kind === 'nodePort');
  for (const target of new Set(Object.values(targets))) {
    const match = `${said} ${protocolMatch(route.port.protocol, target.port)}`;
    // Our ports are no frontends: whoever dials one himself would pass by source ranges and policies.
    push(rules, 'filter', nonLocal, `${match} -m conntrack ! --ctstate DNAT -j REJECT`);
    if (hasNodePort) push(rules, 'filter', nonLocal, `${match} -m state --state NEW -j ACCEPT`);
  }
  return rules;
}

function pushFrontend(
  rules: Rule[],
  said: string,
  frontend: Frontend,
  inside: Fate,
  outside: Fate,
  ranges: readonly string[],
  settings: RuleSettings,
): void {
  const node = frontend.kind === 'nodePort';
  const where = node ? '' : `-d ${frontend.ip}/${settings.family === 'IPv4' ? 32 : 128} `;
  const match = `${where}${said} ${protocolMatch(frontend.protocol, frontend.port)}`;
  const container = node ? nodePortContainer : portalsContainer;
  const host = node ? nodePortHost : portalsHost;

  if (typeof inside === 'object') {
    const alike = typeof outside === 'object' && inside.to === outside.to;
    if (!alike && settings.detector !== undefined) {
      for (const source of podSources(settings.detector, ranges))
        push(rules, 'nat', container, `${source}${match} -j ${redirect(inside.to)}`);
    }
    for (const source of hostSources(frontend, ranges, settings))
      push(rules, 'nat', host, `${source}${match} -j ${translate(inside.to, settings)}`);
  }
  if (typeof outside === 'object') {
    for (const source of ranges.length === 0 ? [''] : ranges.map((range) => `-s ${range} `))
      push(rules, 'nat', container, `${source}${match} -j ${redirect(outside.to)}`);
  }
  // Redirected packets have another destination by now: what still has this one is refused.
  const refusal = refusalOf(inside, outside, ranges.length > 0);
  if (refusal !== undefined)
    push(rules, 'filter', node ? nodePortRefuse : portalsRefuse, `${match} -j ${refusal}`);
}

function refusalOf(inside: Fate, outside: Fate, restricted: boolean): 'REJECT' | 'DROP' | undefined {
  if (outside === 'reject') return 'REJECT';
  if (outside === 'drop' || restricted) return 'DROP';
  return inside === 'reject' ? 'REJECT' : undefined;
}

/** Matches for packets from Pods that the source ranges let in. */
function podSources(detector: LocalDetector, ranges: readonly string[]): string[] {
  switch (detector.kind) {
    case 'interface':
    case 'interfacePrefix': {
      const match = podMatch(detector);
      return ranges.length === 0 ? [`${match} `] : ranges.map((range) => `-s ${range} ${match} `);
    }
    case 'cidr':
      if (ranges.length === 0) return [`-s ${detector.cidr} `];
      return ranges.flatMap((range) => {
        const both = intersection(range, detector.cidr);
        return both === undefined ? [] : [`-s ${both} `];
      });
  }
}

/** Matches for packets from this host. Where it may use the load balancer, it may do so from that very address too. */
function hostSources(frontend: Frontend, ranges: readonly string[], settings: RuleSettings): string[] {
  if (ranges.length === 0) return [''];
  const sources = ranges.map((range) => `-s ${range} `);
  const own = ranges.some((text) => {
    const range = parseCIDR(text);
    return range !== undefined && settings.hostIP !== '' && cidrContains(range, settings.hostIP);
  });
  if (own) sources.push(`-s ${frontend.ip}/${settings.family === 'IPv4' ? 32 : 128} `);
  return sources;
}

/** One of two networks holds the other, or they have nothing in common. */
function intersection(a: string, b: string): string | undefined {
  const one = parseCIDR(a);
  const two = parseCIDR(b);
  if (one === undefined || two === undefined || one.family !== two.family) return undefined;
  const [wide, narrow] = one.prefix <= two.prefix ? [one, two] : [two, one];
  return cidrContains(wide, narrow.bytes) ? narrow.text : undefined;
}

function protocolMatch(protocol: Protocol, port: number): string {
  const name = protocol.toLowerCase();
  return `-p ${name} -m ${name} --dport ${port}`;
}

function redirect(to: Target): string {
  return to.host === '' ? `REDIRECT --to-ports ${to.port}` : dnat(to.host, to.port);
}

/** For packets of this host: REDIRECT would send them to loopback, and the answer would come from elsewhere. */
function translate(to: Target, settings: RuleSettings): string {
  const host = to.host === '' ? settings.hostIP : to.host;
  return host === '' ? `REDIRECT --to-ports ${to.port}` : dnat(host, to.port);
}

function dnat(host: string, port: number): string {
  return `DNAT --to-destination ${formatAddressPort(host, port)}`;
}

function push(rules: Rule[], table: RuleTable, chain: string, args: string): void {
  rules.push({ table, chain, args });
}

export function sameRules(a: readonly Rule[], b: readonly Rule[]): boolean {
  return (
    a.length === b.length &&
    a.every((rule, i) => {
      const other = b[i] as Rule;
      return rule.args === other.args && rule.chain === other.chain && rule.table === other.table;
    })
  );
}
