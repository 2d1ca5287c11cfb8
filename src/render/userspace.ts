/** Userspace mode: the redirects to the process's listeners, whose ports a rendering has to make up. */
import { parsePortRange, type PortRange } from '../config/portRange.ts';
import { sortedRoutes } from '../dataplane/iptables/document.ts';
import { fullDocument, jumpsFor } from '../dataplane/userspace/ruleSet.ts';
import { finish } from '../dataplane/userspace/steps.ts';
import {
  commonRules,
  poolsOf,
  routeRules,
  type Rule,
  type RuleSettings,
  type Target,
  type Targets,
} from '../dataplane/userspace/rules.ts';
import { isLoopback } from '../services/ip.ts';
import type { Route, ServicePortId } from '../services/types.ts';
import type { Wanted, WantedFamily } from './wanted.ts';

/** The made-up ports, in this order, if the configuration has no range for them. */
const unranged: readonly PortRange[] = [
  { first: 40_000, last: 65_535 },
  { first: 1024, last: 39_999 },
];

type ListenerConfig = { readonly config: Pick<Wanted['config'], 'bindAddress' | 'portRange'> };
type RuleConfig = {
  readonly config: Pick<Wanted['config'], 'bindAddress' | 'portRange' | 'localhostNodePorts'>;
};
type UserspaceFamily = Pick<WantedFamily, 'family' | 'options' | 'table'>;

/** A service port with its listeners, whose ports are made up, and the rules that lead to them. */
export interface UserspacePort {
  readonly route: Route;
  readonly targets: Targets;
  readonly rules: readonly Rule[];
}

export function userspacePorts({ config }: ListenerConfig, wanted: UserspaceFamily): UserspacePort[] {
  const { family, options, table } = wanted;
  const ownFamily = config.bindAddress.includes(':') === (family === 'IPv6');
  const bound = ownFamily && !['0.0.0.0', '::'].includes(config.bindAddress) ? config.bindAddress : '';
  const hostIP = bound !== '' ? bound : isLoopback(options.nodeIP) ? '' : options.nodeIP;
  const settings: RuleSettings = { family, detector: options.localDetector, hostIP };
  const range = parsePortRange(config.portRange);
  const free = portsIn(range === undefined || range === 'invalid' ? unranged : [range]);
  return sortedRoutes(table.routes.values()).map((route) => {
    const pools = route.port.protocol === 'SCTP' ? [] : poolsOf(route);
    const host = route.port.protocol === 'UDP' ? hostIP : bound;
    const targets: Partial<Record<'cluster' | 'local', Target>> = {};
    for (const pool of pools) {
      // When none is free any more, the daemon cannot open the listener either, and refuses the connections.
      const { value: port } = free.next();
      if (port !== undefined) targets[pool] = { host, port };
    }
    return { route, targets, rules: routeRules(route, targets, settings) };
  });
}

function* portsIn(ranges: readonly PortRange[]): Generator<number, undefined> {
  for (const { first, last } of ranges) for (let port = first; port <= last; port++) yield port;
}

/** Rules of each service port; those of none as of ``. */
export function userspaceRules(
  { config }: RuleConfig,
  wanted: UserspaceFamily,
): ReadonlyMap<ServicePortId, readonly Rule[]> {
  return new Map([
    ['', commonRules(wanted.family, config.localhostNodePorts)],
    ...userspacePorts({ config }, wanted).map(({ route, rules }) => [route.port.id, rules] as const),
  ]);
}

export function renderUserspace(wanted: Pick<Wanted, 'config'>, family: WantedFamily): string {
  return finish(
    fullDocument([], jumpsFor(family.options.nodePortAddresses), userspaceRules(wanted, family)),
  ).join('');
}
