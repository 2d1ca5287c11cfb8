/**
 * The chains that services share, made when the first service needs one and removed after the last. Their names say
 * what they do:
 *
 *     [node-port-][external-][local-][sticky-]pick-SIZE[-LOCALSIZE]      sticky-time-SECONDS
 *
 * `pick-8` chooses among up to 8 cluster endpoints of the frontend, `local-pick-2` among those of this node,
 * `sticky-pick-8` remembers the client's endpoint, `external-…` is for frontends that outsiders use: it masquerades,
 * or, with policy Local (`external-local-pick-8-2`), tells outsiders from Pods and this node.
 */
import { chain, rule } from '../../linux/netlink/nftables/objects.ts';
import { ct, fib, meta, numgen, th } from '../../linux/netlink/nftables/selectors.ts';
import * as statement from '../../linux/netlink/nftables/statements.ts';
import type { Statement } from '../../linux/netlink/nftables/statements.ts';
import type { ChainWithRules, Layout } from './layout.ts';
import { draws } from './sizeClasses.ts';

/** A shared chain and the chains it goes to, which have to be there before it. */
export interface ServiceChain extends ChainWithRules {
  readonly uses: readonly string[];
}

const pickName = /^(node-port-)?(external-)?(local-)?(sticky-)?pick-(\d+)(?:-(\d+))?$/;
const timeName = /^sticky-time-(\d+)$/;

/** Behind DNAT, in front of everything else. */
const recordPriority = -99;

/** Chains that record which endpoint a client got; hooked only while there are services with affinity. */
export const recordingChains: readonly string[] = ['sticky-prerouting', 'sticky-output'];

/** True for names of chains that `buildServiceChain` makes. */
export function isServiceChain(name: string): boolean {
  return pickName.test(name) || timeName.test(name) || recordingChains.includes(name);
}

/** Throws for a name that is none of these. */
export function buildServiceChain(layout: Layout, name: string): ServiceChain {
  if (recordingChains.includes(name)) return recordingChain(layout, name);
  const seconds = timeName.exec(name)?.[1];
  if (seconds !== undefined) return timeChain(layout, name, Number(seconds));
  const parts = pickName.exec(name);
  if (parts === null) throw new RangeError(`no kind of chain is called ${name}`);
  const [, nodePort = '', external, local = '', sticky = '', size = '0', localSize] = parts;
  if (external === undefined) {
    return sticky === ''
      ? pickChain(layout, name, nodePort, local, Number(size))
      : stickyChain(layout, name, nodePort, local, Number(size));
  }
  const cluster = size === '0' ? undefined : `${nodePort}${sticky}pick-${size}`;
  if (localSize === undefined) return externalChain(layout, name, cluster ?? '');
  const locals = localSize === '0' ? undefined : `${nodePort}local-${sticky}pick-${localSize}`;
  return externalLocalChain(layout, name, cluster, locals);
}

function make(
  { table }: Layout,
  name: string,
  rules: readonly (readonly Statement[])[],
  uses: readonly string[] = [],
): ServiceChain {
  return { chain: chain(table, name), rules: rules.map((one) => rule(table, name, one)), uses };
}

/** For readers of the listing; -1 = the last rule. */
const drawComments: ReadonlyMap<number, string> = new Map([
  [0, 'draws a slot'],
  [1, 'again if that was empty'],
  [-1, 'slots that are never empty'],
]);

/** A draw that finds no endpoint ends its rule; the next rule draws again, the last one always finds one. */
function pickChain(
  layout: Layout,
  name: string,
  nodePort: string,
  local: string,
  size: number,
): ServiceChain {
  const { family, selectors } = layout;
  const key = nodePort === '' ? selectors.frontend : selectors.nodePort;
  const moduli = draws(size);
  const last = moduli.length - 1;
  const rules = moduli.map((modulus, index) => {
    const pick = statement.dnatToMap(family, [...key, numgen(modulus)], `${nodePort}${local}endpoints`);
    const comment = last === 0 ? undefined : drawComments.get(index === last ? -1 : index);
    return rule(layout.table, name, [pick], comment);
  });
  return { chain: chain(layout.table, name), rules, uses: [] };
}

/**
 * The packet's priority carries the service port's number from rule to rule, as far as the hook right behind DNAT,
 * which takes it off again: the choice has been made by then, and the packet itself says which it was.
 */
function stickyChain(
  layout: Layout,
  name: string,
  nodePort: string,
  local: string,
  size: number,
): ServiceChain {
  const { family, selectors } = layout;
  const key = nodePort === '' ? selectors.frontend : selectors.nodePort;
  const pick = `${nodePort}${local}pick-${size}`;
  const number: Statement = [
    ...statement.lookup(key, `${nodePort}${local}sticky-ids`),
    { kind: 'set meta', key: 'priority', source: 1 },
  ];
  const again = statement.dnatToMap(family, [meta.priority, meta.l4proto, selectors.saddr], 'sticky-clients');
  // Counts, and nothing else: who got here was not remembered.
  const draw = layout.sets.has('sticky-draws') ? [[statement.inSet([meta.priority], 'sticky-draws')]] : [];
  return make(layout, name, [[number], [again], ...draw, [statement.goTo(pick)]], [pick]);
}

function externalChain(layout: Layout, name: string, target: string): ServiceChain {
  return make(layout, name, [[statement.markOr(layout.mark)], [statement.goTo(target)]], [target]);
}

function externalLocalChain(
  layout: Layout,
  name: string,
  cluster: string | undefined,
  local: string | undefined,
): ServiceChain {
  const fromNode = statement.match(fib.saddrType, 'local');
  const rules: (readonly Statement[])[] = [];
  if (cluster !== undefined) {
    if (layout.fromPod !== undefined) rules.push([layout.fromPod, statement.goTo(cluster)]);
    rules.push([fromNode, statement.markOr(layout.mark)], [fromNode, statement.goTo(cluster)]);
  }
  if (local !== undefined) rules.push([statement.goTo(local)]);
  return make(
    layout,
    name,
    rules,
    [cluster, local].filter((one) => one !== undefined),
  );
}

function timeChain(layout: Layout, name: string, seconds: number): ServiceChain {
  const { selectors } = layout;
  const translated = statement.matchBits(ct.status, ['dnat']);
  const record = statement.update('sticky-clients', [meta.priority, meta.l4proto, selectors.saddr], {
    timeout: seconds * 1000,
    data: [selectors.daddr, th.dport],
  });
  const takeOff: Statement = [
    { kind: 'immediate', register: 1, data: { value: new Uint8Array(4) } },
    { kind: 'set meta', key: 'priority', source: 1 },
  ];
  const target = statement.inSet([meta.priority, selectors.daddr, th.dport], 'sticky-targets');
  const count = layout.sets.has('sticky-targets') ? [[translated, target]] : [];
  return make(layout, name, [[translated, record], ...count, [takeOff]]);
}

function recordingChain({ table }: Layout, name: string): ServiceChain {
  const hook = name === 'sticky-output' ? 'output' : 'prerouting';
  const isNew = statement.matchBits(ct.state, ['new']);
  return {
    chain: chain(table, name, { type: 'filter', hook, priority: recordPriority, policy: 'accept' }),
    rules: [rule(table, name, [isNew, statement.vmap([meta.priority], 'sticky-times')])],
    uses: [],
  };
}
