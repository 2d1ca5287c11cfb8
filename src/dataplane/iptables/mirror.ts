/**
 * What we believe the kernel holds: the routes as they were applied. Routes are shared with the routing table, and
 * their rules are rendered again when they are to be compared, so this costs a few words per service port.
 */
import type { Route, ServicePortId } from '../../services/types.ts';
import type { Rule } from './rule.ts';
import { dispatchRules, ownRules } from './serviceRules.ts';
import type { Settings } from './settings.ts';
import { firewallRules, forwardRules, postroutingRules } from './staticRules.ts';

export interface Applied {
  readonly route: Route;
  /** Endpoint rules were written with comments. */
  readonly comments: boolean;
}

export interface RuleCounts {
  readonly filter: number;
  readonly nat: number;
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

/** Number of rules of one route, by table. */
export function countRules(route: Route, settings: Settings): RuleCounts {
  const dispatch = dispatchRules(route, settings);
  return {
    filter: dispatch.filter.length,
    nat: dispatch.nat.length + ownRules(route, settings, false).rules.length,
  };
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
