/** `render --diff A B`: what a change of objects changes in the rules, service port by service port, and for traffic. */
import type { Endpoint, Frontend, Route, ServicePortId, Verdict } from '../services/types.ts';
import { frontendKey } from '../services/claims.ts';
import { ruleLines } from './ruleLines.ts';
import type { Wanted, WantedFamily } from './wanted.ts';

export interface PortChange {
  readonly family: 'IPv4' | 'IPv6';
  readonly id: ServicePortId;
  readonly change: 'added' | 'removed' | 'changed';
  /** One sentence each. */
  readonly means: readonly string[];
  readonly removed: readonly string[];
  readonly added: readonly string[];
}

/** By family, then service port. Both sides are rendered for the same mode. */
export function changesBetween(before: Wanted, after: Wanted): PortChange[] {
  const changes: PortChange[] = [];
  for (const family of ['IPv4', 'IPv6'] as const) {
    const old = before.families.find((one) => one.family === family);
    const now = after.families.find((one) => one.family === family);
    const oldLines = old === undefined ? new Map<string, string[]>() : ruleLines(before, old);
    const nowLines = now === undefined ? new Map<string, string[]>() : ruleLines(after, now);
    for (const id of [...new Set([...oldLines.keys(), ...nowLines.keys()])].sort()) {
      const [gone, come] = [oldLines.get(id), nowLines.get(id)];
      const removed = without(gone ?? [], come ?? []);
      const added = without(come ?? [], gone ?? []);
      if (gone !== undefined && come !== undefined && removed.length === 0 && added.length === 0) continue;
      changes.push({
        family,
        id,
        change: gone === undefined ? 'added' : come === undefined ? 'removed' : 'changed',
        means: explain(routeOf(old, id), routeOf(now, id)),
        removed,
        added,
      });
    }
  }
  return changes;
}

function routeOf(family: WantedFamily | undefined, id: ServicePortId): Route | undefined {
  return family?.table.routes.get(id);
}

function without(lines: readonly string[], others: readonly string[]): string[] {
  const rest = new Map<string, number>();
  for (const line of others) rest.set(line, (rest.get(line) ?? 0) + 1);
  return lines.filter((line) => {
    const count = rest.get(line) ?? 0;
    if (count > 0) rest.set(line, count - 1);
    return count === 0;
  });
}

/** What the change means for packets, in sentences. */
function explain(before: Route | undefined, after: Route | undefined): string[] {
  if (after === undefined) {
    if (before === undefined) return [];
    return [`Nothing answers at ${frontends(before.frontends)} any more.`];
  }
  if (before === undefined) return [`New: ${frontends(after.frontends)} ${outcome(after)}.`];
  const means: string[] = [];
  const had = new Map(before.frontends.map((one) => [frontendKey(one), one]));
  const has = new Map(after.frontends.map((one) => [frontendKey(one), one]));
  const gone = [...had].filter(([key]) => !has.has(key)).map(([, one]) => one);
  const come = [...has].filter(([key]) => !had.has(key)).map(([, one]) => one);
  if (come.length > 0) means.push(`Answers at ${frontends(come)} too.`);
  if (gone.length > 0) means.push(`No longer answers at ${frontends(gone)}.`);
  if (before.internal !== after.internal)
    means.push(
      `Connections to the cluster IP ${verdict(after.internal, after)}; before, they ${verdict(before.internal, before)}.`,
    );
  if (after.hasExternal && before.hasExternal && before.external !== after.external)
    means.push(
      `Connections from outside ${verdict(after.external, after)}; before, they ${verdict(before.external, before)}.`,
    );
  means.push(...endpointSentences(before, after));
  const [old, now] = [before.port, after.port];
  if (old.affinitySeconds !== now.affinitySeconds)
    means.push(
      now.affinitySeconds === 0
        ? 'Clients no longer stay with one endpoint.'
        : `Clients stay with their endpoint for ${now.affinitySeconds} s after their last connection${old.affinitySeconds === 0 ? '' : ` (before: ${old.affinitySeconds} s)`}.`,
    );
  if (old.sourceRanges.join() !== now.sourceRanges.join())
    means.push(
      now.sourceRanges.length === 0
        ? 'The load balancer addresses are open to every client.'
        : `The load balancer addresses take clients from ${now.sourceRanges.join(', ')} only.`,
    );
  if (old.externalPolicyLocal !== now.externalPolicyLocal)
    means.push(
      now.externalPolicyLocal
        ? 'Clients from outside keep their address, and reach endpoints of this node only.'
        : 'Clients from outside reach endpoints of all nodes, and show up with the address of this node.',
    );
  if (old.healthCheckNodePort !== now.healthCheckNodePort)
    means.push(
      now.healthCheckNodePort === 0
        ? 'No health-check node port any more.'
        : `Load balancers check this node on port ${now.healthCheckNodePort}.`,
    );
  if (means.length === 0) means.push('Same destinations; the rules that lead there are written differently.');
  return means;
}

function endpointSentences(before: Route, after: Route): string[] {
  const had = new Set(before.reachable.map(({ key }) => key));
  const has = new Set(after.reachable.map(({ key }) => key));
  const come = after.reachable.filter(({ key }) => !had.has(key));
  const gone = before.reachable.filter(({ key }) => !has.has(key));
  if (come.length === 0 && gone.length === 0) return [];
  const sentences: string[] = [];
  if (gone.length > 0) {
    const now = new Map(after.endpoints.map((one) => [one.key, one]));
    const drained = gone.filter(({ key }) => now.get(key)?.terminating === true);
    const why = drained.length === gone.length ? ' (terminating: open connections stay)' : '';
    sentences.push(`New connections no longer go to ${endpoints(gone)}${why}.`);
  }
  if (come.length > 0) sentences.push(`New connections go to ${endpoints(come)} too.`);
  if (after.reachable.length > 0)
    sentences.push(
      `${after.reachable.length} ${after.reachable.length === 1 ? 'endpoint serves' : 'endpoints serve'} it from here; before, ${before.reachable.length}.`,
    );
  return sentences;
}

function outcome(route: Route): string {
  if (!route.hasAny) return 'refuses connections: there is no endpoint';
  return route.internal === 'drop' ? 'drops packets' : `leads to ${endpoints(route.reachable)}`;
}

function verdict(verdict: Verdict, route: Route): string {
  switch (verdict) {
    case 'cluster':
      return `go to ${endpoints(route.cluster)}`;
    case 'local':
      return `go to ${endpoints(route.local)} on this node`;
    case 'reject':
      return 'are refused, for there is no endpoint';
    case 'drop':
      return 'are dropped, for no endpoint is on this node';
  }
}

function endpoints(list: readonly Endpoint[]): string {
  const names = list.slice(0, 4).map(({ key, pod }) => (pod === '' ? key : `${key} (${pod})`));
  return list.length > 4 ? `${names.join(', ')} and ${list.length - 4} more` : names.join(', ') || 'nobody';
}

function frontends(list: readonly Frontend[]): string {
  return list
    .map(({ kind, ip, port, protocol }) =>
      kind === 'nodePort' ? `node port ${port}/${protocol}` : frontendKey({ kind, ip, port, protocol }),
    )
    .join(', ');
}

/** Lines for a terminal. */
export function printChanges(changes: readonly PortChange[]): string {
  return changes
    .map(
      ({ family, id, change, means, removed, added }) =>
        `${family} ${id} ${change}\n${means.map((text) => `  # ${text}\n`).join('')}${removed.map((line) => `- ${line}\n`).join('')}${added.map((line) => `+ ${line}\n`).join('')}`,
    )
    .join('\n');
}
