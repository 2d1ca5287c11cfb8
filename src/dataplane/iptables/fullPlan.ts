/**
 * From the kernel's rules and the wanted table to the documents that make them one. Nothing equal is written, so over
 * our own rules, or kube-proxy's, a restart writes only what differs, and an empty plan proves that all is in place.
 *
 * Order: base (fixed chains, refusals that are missing, jumps); chains that nothing refers to yet, in parts; then the
 * switch: changed live chains and the dispatch chains in one commit; then refusals that are no longer wanted; then
 * stale chains. If a part fails, what packets pass through is still what the last good sync left. See partialPlan.ts
 * for why refusals come before nat and go after it.
 */
import { canonicalRule } from '../../linux/iptables/canonical.ts';
import type { Route } from '../../services/types.ts';
import type { RoutingTable } from '../dataplane.ts';
import { digest, type Actual, type ActualTable } from './actual.ts';
import { largeClusterEndpoints } from './document.ts';
import { emptyMirror, ownChainTexts, type Mirror } from './mirror.ts';
import {
  canaryChain,
  filterChains,
  firewallChain,
  forwardChain,
  markMasqChain,
  natChains,
  nodePortsChain,
  postroutingChain,
  servicesChain,
} from './names.ts';
import type { Limits } from './partialPlan.ts';
import { documentOf, Section, type RestoreDocument } from './restoreDocument.ts';
import { printRule, type Rule } from '../../linux/iptables/rule.ts';
import { dispatchRules, ownRules } from './serviceRules.ts';
import type { Settings } from './settings.ts';
import { firewallRules, forwardRules, jumpArgs, jumps, postroutingRules } from './staticRules.ts';

/** Routes worked through between two pauses, in which the caller may let others run. */
const pauseEvery = 100;

/**
 * Yields documents as they are to be applied, and `undefined` now and then while it only compares; returns the mirror
 * of the kernel after the last of them. `actual` undefined = the kernel's rules cannot be read: everything is written.
 * With `applied`, a service port has comments as it had there: for a comparison that is not to find old ones wrong.
 */
export function* planFull(
  actual: Actual | undefined,
  table: RoutingTable,
  settings: Settings,
  tail: readonly Rule[],
  limits: Limits,
  applied?: Mirror,
): Generator<RestoreDocument | undefined, Mirror> {
  const mirror = emptyMirror(settings, tail);
  for (const route of table.routes.values()) mirror.endpoints += route.endpoints.length;
  const wantComments = mirror.endpoints <= largeClusterEndpoints;
  const commentsOf = (route: Route): boolean => applied?.applied.get(route.port.id)?.comments ?? wantComments;
  const own = actual?.nat.own ?? new Map<string, string>();

  const filterWanted: Rule[] = [];
  const natWanted: Rule[] = [];
  const createdFor: Route[] = [];
  const changed: { route: Route; chains: ReadonlySet<string> }[] = [];
  const stale = new Set(own.keys());
  let seen = 0;
  for (const [id, route] of table.routes) {
    const comments = commentsOf(route);
    mirror.applied.set(id, { route, comments });
    const dispatch = dispatchRules(route, settings);
    for (const rule of dispatch.filter) filterWanted.push(rule);
    for (const rule of dispatch.nat) natWanted.push(rule);
    const { chains, rules } = ownRules(route, settings, comments);
    mirror.filter += dispatch.filter.length;
    mirror.nat += dispatch.nat.length + rules.length;
    if (chains.some((chain) => !own.has(chain))) createdFor.push(route);
    const differing = differingChains(chains, rules, own);
    if (differing !== undefined) changed.push({ route, chains: differing });
    for (const chain of chains) stale.delete(chain);
    if (++seen % pauseEvery === 0) yield undefined;
  }

  const base = basePlan(actual, settings, filterWanted);
  if (base !== undefined) yield base;

  const live = new Section('nat');
  const dispatch = new Section('nat');
  const dispatchReason = writeDispatch(dispatch, actual?.nat, natWanted, tail);
  const texts = function* (routes: Iterable<Route>): Generator<Section> {
    let section = new Section('nat');
    for (const route of routes) {
      for (const [chain, { text, count }] of ownChainTexts(route, settings, commentsOf(route))) {
        if (own.has(chain)) continue;
        section.chain(chain);
        section.text(text, count);
      }
      if (section.lines >= Math.min(limits.chunkLines, 4000)) {
        yield section;
        section = new Section('nat');
      }
    }
    if (!section.empty) yield section;
  };
  if (limits.chunkLines !== Infinity) {
    for (const section of texts(createdFor)) {
      yield documentOf('chains', missingChains(createdFor), [section]);
    }
    for (const { route, chains } of changed) {
      writeChanged(live, route, chains, settings, commentsOf(route));
      if (live.lines >= limits.atomicLines) {
        yield documentOf('switch', `${changed.length} service ports changed`, [live]);
        live.chains = live.rules = '';
        live.lines = live.count = 0;
      }
    }
    live.chains += dispatch.chains;
    live.text(dispatch.rules, dispatch.count);
    live.lines += dispatch.lines;
    if (!live.empty) yield documentOf('switch', switchReason(changed, dispatchReason), [live]);
  } else {
    for (const { route, chains } of changed) writeChanged(live, route, chains, settings, commentsOf(route));
    const streamed = function* (): Generator<string> {
      yield '*nat\n';
      for (const section of texts(createdFor)) yield section.chains + section.rules;
      yield live.chains + live.rules + dispatch.chains + dispatch.rules;
      yield 'COMMIT\n';
    };
    if (createdFor.length > 0 || !live.empty || !dispatch.empty) {
      yield {
        kind: 'switch',
        text: streamed(),
        filter: 0,
        nat: live.count + dispatch.count,
        what: createdFor.length > 0 ? missingChains(createdFor) : switchReason(changed, dispatchReason),
      };
    }
  }

  const unrefuse = unwantedRefusals(actual, filterWanted);
  if (unrefuse !== undefined) yield unrefuse;

  yield* removalOf([...stale]);
  return mirror;
}

/** Chains removed in one document; deleting thousands at once costs the kernel more than in parts. */
const staleChunk = 1000;

/** Stale chains may refer to one another, so all are emptied before the first is deleted. */
function* removalOf(stale: readonly string[]): Generator<RestoreDocument> {
  const what = 'chains that nothing refers to any more';
  for (const deletes of stale.length > staleChunk ? [false, true] : [true]) {
    for (let start = 0; start < stale.length; start += staleChunk) {
      const section = new Section('nat');
      for (const chain of stale.slice(start, start + staleChunk)) {
        section.chain(chain);
        if (deletes) section.deleteChain(chain);
      }
      yield documentOf('stale', what, [section]);
    }
  }
}

function missingChains(routes: readonly Route[]): string {
  const first = routes[0]?.port.name ?? '';
  return routes.length === 1
    ? `chains of service port ${first} missing`
    : `chains of ${routes.length} service ports missing, ${first} first`;
}

function switchReason(changed: readonly { route: Route }[], dispatchReason: string): string {
  const first = changed[0];
  if (first !== undefined)
    return changed.length === 1
      ? `rules of service port ${first.route.port.name}`
      : `rules of ${changed.length} service ports, ${first.route.port.name} first`;
  return dispatchReason;
}

function writeChanged(
  section: Section,
  route: Route,
  chains: ReadonlySet<string>,
  settings: Settings,
  comments: boolean,
): void {
  for (const [chain, { text, count }] of ownChainTexts(route, settings, comments)) {
    if (!chains.has(chain)) continue;
    section.chain(chain);
    section.text(text, count);
  }
}

/** Those of a route's chains that exist with other rules. */
function differingChains(
  chains: readonly string[],
  rules: readonly Rule[],
  own: ReadonlyMap<string, string>,
): Set<string> | undefined {
  let differing: Set<string> | undefined;
  if (own.size === 0) return undefined;
  const wanted = new Map<string, string[]>();
  for (const chain of chains) if (own.has(chain)) wanted.set(chain, []);
  for (const rule of rules) wanted.get(rule.chain)?.push(canonicalRule(rule.args));
  for (const [chain, list] of wanted) {
    if (own.get(chain) === digest(list)) continue;
    differing ??= new Set();
    differing.add(chain);
  }
  return differing;
}

/** The chains that have to be there, the fixed rules, refusals that are missing, and the jumps. */
function basePlan(
  actual: Actual | undefined,
  settings: Settings,
  filterWanted: readonly Rule[],
): RestoreDocument | undefined {
  const filter = new Section('filter');
  const nat = new Section('nat');
  const reasons: string[] = [];
  const declare = (section: Section, table: ActualTable | undefined, chain: string): void => {
    // Without knowledge of the kernel the chains were made by direct commands: a chain line would empty them.
    if (table === undefined || table.fixed.has(chain)) return;
    section.chain(chain);
    reasons.push(`chain ${chain} of ${section.table} missing`);
  };
  for (const chain of [...filterChains, firewallChain, canaryChain]) declare(filter, actual?.filter, chain);
  for (const chain of [...natChains, canaryChain]) declare(nat, actual?.nat, chain);

  const fixed = (
    section: Section,
    table: ActualTable | undefined,
    chain: string,
    rules: readonly Rule[],
  ): void => {
    const have = table?.fixed.get(chain);
    const wanted = rules.map((rule) => canonicalRule(rule.args));
    if (have !== undefined && have.length === wanted.length && have.every((rule, i) => rule === wanted[i]))
      return;
    if (have !== undefined || table === undefined) section.chain(chain);
    for (const rule of rules) section.append(chain, rule.args);
    if (have !== undefined) reasons.push(`rules of ${chain} in ${section.table} differ`);
  };
  fixed(filter, actual?.filter, forwardChain, forwardRules(settings));
  const post = postroutingRules(settings);
  for (const chain of [postroutingChain, markMasqChain]) {
    fixed(
      nat,
      actual?.nat,
      chain,
      post.filter((rule) => rule.chain === chain),
    );
  }
  // KUBE-FIREWALL is kubelet's too: what is missing is added, nothing is taken away.
  for (const rule of firewallRules(settings)) {
    if (actual?.filter.fixed.get(firewallChain)?.includes(canonicalRule(rule.args)) === true) continue;
    if (actual === undefined) filter.chain(firewallChain);
    filter.append(rule.chain, rule.args);
    reasons.push('rule of KUBE-FIREWALL missing');
  }

  if (actual !== undefined) {
    const missing = new Map<string, Map<string, number>>();
    for (const [chain, rules] of actual.filter.fixed) missing.set(chain, multiset(rules));
    let added = 0;
    for (const rule of filterWanted) {
      if (takeOne(missing.get(rule.chain), canonicalRule(rule.args))) continue;
      filter.append(rule.chain, rule.args);
      added++;
    }
    if (added > 0) reasons.push(`${added} refusals missing`);
    for (const jump of jumps) {
      const table = jump.table === 'filter' ? actual.filter : actual.nat;
      const args = jumpArgs(jump);
      if (table.fixed.get(jump.from)?.includes(canonicalRule(args)) === true) continue;
      (jump.table === 'filter' ? filter : nat).insert(jump.from, args);
      reasons.push(`jump from ${jump.from} to ${jump.to} in ${jump.table} missing`);
    }
  } else {
    for (const rule of filterWanted) filter.append(rule.chain, rule.args);
  }
  if (filter.empty && nat.empty) return undefined;
  return documentOf('base', reasons.slice(0, 5).join(', '), [filter, nat]);
}

/** After the switch: filter chains that hold more than is wanted are written anew. */
function unwantedRefusals(actual: Actual | undefined, wanted: readonly Rule[]): RestoreDocument | undefined {
  const section = new Section('filter');
  for (const chain of filterChains) {
    if (chain === forwardChain) continue;
    const mine = wanted.filter((rule) => rule.chain === chain);
    const rest = multiset(mine.map((rule) => canonicalRule(rule.args)));
    const surplus = (actual?.filter.fixed.get(chain) ?? []).some((rule) => !takeOne(rest, rule));
    if (actual !== undefined && !surplus) continue;
    section.chain(chain);
    for (const rule of mine) section.append(chain, rule.args);
  }
  return section.empty ? undefined : documentOf('switch', 'refusals no longer wanted', [section]);
}

/**
 * Documents for what all service ports share: fixed chains, jumps, dispatch, refusals. The chains of service ports are
 * neither looked at in `actual` nor written. None yielded = all of that is in place.
 */
export function* planFixed(
  actual: Actual,
  table: RoutingTable,
  settings: Settings,
  tail: readonly Rule[],
): Generator<RestoreDocument> {
  const filterWanted: Rule[] = [];
  const natWanted: Rule[] = [];
  for (const route of table.routes.values()) {
    const dispatch = dispatchRules(route, settings);
    for (const rule of dispatch.filter) filterWanted.push(rule);
    for (const rule of dispatch.nat) natWanted.push(rule);
  }
  const base = basePlan(actual, settings, filterWanted);
  if (base !== undefined) yield base;
  const dispatch = new Section('nat');
  const reason = writeDispatch(dispatch, actual.nat, natWanted, tail);
  if (!dispatch.empty) yield documentOf('switch', reason, [dispatch]);
  const unrefuse = unwantedRefusals(actual, filterWanted);
  if (unrefuse !== undefined) yield unrefuse;
}

/**
 * KUBE-SERVICES and KUBE-NODEPORTS of nat, whole, where the kernel's differ as sets or the tail is not last. Answers in
 * a few words what was wrong; empty if nothing.
 */
function writeDispatch(
  section: Section,
  nat: ActualTable | undefined,
  wanted: readonly Rule[],
  tail: readonly Rule[],
): string {
  let reason = '';
  for (const chain of [servicesChain, nodePortsChain]) {
    const end = chain === servicesChain ? tail : [];
    const mine = wanted.filter((rule) => rule.chain === chain);
    const have = nat?.fixed.get(chain) ?? [];
    if (nat !== undefined && sameDispatch(have, mine, end)) continue;
    if (reason === '') reason = dispatchDifference(chain, have, [...mine, ...end]);
    section.chain(chain);
    let text = '';
    for (const rule of mine) text += `${printRule(rule)}\n`;
    for (const rule of end) text += `${printRule(rule)}\n`;
    section.text(text, mine.length + end.length);
  }
  return reason;
}

/** The first rule that is missing, or is not ours, by its text: whoever reads it wants to know which Service it is about. */
function dispatchDifference(chain: string, have: readonly string[], wanted: readonly Rule[]): string {
  if (have.length === 0) return `all ${wanted.length} rules of ${chain} missing`;
  const rest = multiset(have);
  let missing: Rule | undefined;
  let count = 0;
  for (const rule of wanted) {
    if (takeOne(rest, canonicalRule(rule.args))) continue;
    missing ??= rule;
    count++;
  }
  const more = count > 1 ? ` (and ${count - 1} more)` : '';
  if (missing !== undefined) return `rule of ${chain} missing: ${missing.args}${more}`;
  for (const [rule, left] of rest)
    if (left > 0) return `rule of ${chain} is not ours: ${rule.replaceAll(/[^ -~]+/g, ' ')}`;
  return `rules of ${chain} in another order`;
}

function sameDispatch(have: readonly string[], wanted: readonly Rule[], tail: readonly Rule[]): boolean {
  if (have.length !== wanted.length + tail.length) return false;
  for (let i = 0; i < tail.length; i++) {
    if (have[wanted.length + i] !== canonicalRule((tail[i] as Rule).args)) return false;
  }
  const rest = multiset(have.slice(0, wanted.length));
  return wanted.every((rule) => takeOne(rest, canonicalRule(rule.args)));
}

function multiset(items: readonly string[]): Map<string, number> {
  const counts = new Map<string, number>();
  for (const item of items) counts.set(item, (counts.get(item) ?? 0) + 1);
  return counts;
}

function takeOne(counts: Map<string, number> | undefined, item: string): boolean {
  const count = counts?.get(item) ?? 0;
  if (count === 0) return false;
  counts?.set(item, count - 1);
  return true;
}
