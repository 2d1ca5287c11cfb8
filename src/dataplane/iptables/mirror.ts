/**
 * What we believe the kernel holds: the routes as they were applied. Routes are shared with the routing table, and
 * their rules are rendered again when they are to be compared, so this costs a few words per service port.
 */
import type { Route, RoutingTable, ServicePortId } from '../../services/types.ts';
import type { Rule } from '../../linux/iptables/rule.ts';
import { ownRules } from './serviceRules.ts';
import type { Settings } from './settings.ts';
import { firewallRules, forwardRules, postroutingRules } from './staticRules.ts';

export interface Applied {
  readonly route: Route;
  /** Endpoint rules were written with comments. */
  readonly comments: boolean;
}

export interface Mirror {
  readonly applied: Map<ServicePortId, Applied>;
  readonly settings: Settings;
  /** Node port rules at the end of KUBE-SERVICES. */
  tail: readonly Rule[];
  /** Sum of all endpoints of all routes: decides on comments. */
  endpoints: number;
  /** Rules in the kernel that are ours. */
  filter: number;
  nat: number;
}

export function emptyMirror(settings: Settings, tail: readonly Rule[]): Mirror {
  return {
    applied: new Map(),
    settings,
    tail,
    endpoints: 0,
    filter: forwardRules(settings).length + firewallRules(settings).length,
    nat: postroutingRules(settings).length + tail.length,
  };
}

/** The routes applied, as a table that nobody changes. */
export function routesOf(mirror: Mirror): RoutingTable {
  const routes = new Map<ServicePortId, Route>();
  for (const [id, { route }] of mirror.applied) routes.set(id, route);
  return { family: mirror.settings.family, routes };
}

/** Text of each chain of the route: its rule lines with their newlines, and how many they are. */
export function ownChainTexts(
  route: Route,
  settings: Settings,
  comments: boolean,
): Map<string, { text: string; count: number }> {
  const own = ownRules(route, settings, comments);
  const texts = new Map<string, { text: string; count: number }>();
  for (const chain of own.chains) texts.set(chain, { text: '', count: 0 });
  for (const rule of own.rules) {
    const entry = texts.get(rule.chain);
    if (entry === undefined) continue;
    entry.text += `-A ${rule.chain} ${rule.args}\n`;
    entry.count++;
  }
  return texts;
}
