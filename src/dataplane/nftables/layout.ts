/**
 * What the table holds whatever services there are: sets and maps, the base chains (named and placed as kube-proxy's,
 * so that either can take over from the other in one transaction) and the chains they lead to.
 */
import {
  chain,
  map,
  rule,
  set,
  table,
  type Chain,
  type HookName,
  type NftSet,
  type Rule,
  type Table,
} from '../../linux/netlink/nftables/objects.ts';
import type { Selector } from '../../linux/netlink/nftables/expressions.ts';
import { ct, fib, ip, ip6, meta, numgen, th } from '../../linux/netlink/nftables/selectors.ts';
import { withCounter } from '../../linux/netlink/nftables/setCounter.ts';
import * as statement from '../../linux/netlink/nftables/statements.ts';
import type { Statement } from '../../linux/netlink/nftables/statements.ts';
import type { TypeName } from '../../linux/netlink/nftables/types.ts';
import type { DataplaneOptions } from '../dataplane.ts';
import type { LocalDetector } from '../../services/localDetection.ts';
import { matchesAll } from '../../services/nodePortAddresses.ts';

export const tableName = 'kube-proxy';

/** Sets and maps by what is in them; all names differ from those that kube-proxy uses in the same table. */
export type SetName =
  | 'virtual-ips'
  | 'service-cidrs'
  | 'node-addresses'
  | 'frontends'
  | 'node-ports'
  | 'endpoints'
  | 'local-endpoints'
  | 'node-port-endpoints'
  | 'node-port-local-endpoints'
  | 'unserved'
  | 'unserved-node-ports'
  | 'guarded'
  | 'source-ranges'
  | 'hairpins'
  | 'sticky-ids'
  | 'local-sticky-ids'
  | 'node-port-sticky-ids'
  | 'node-port-local-sticky-ids'
  | 'sticky-clients'
  | 'sticky-times'
  /** Only where connections are counted. */
  | 'sticky-draws'
  | 'sticky-targets';

/** Clients with affinity that are remembered at most, over all services. */
export const stickyClientsMax = 262_144;

export interface Layout {
  readonly family: 'ip' | 'ip6';
  readonly table: Table;
  readonly sets: ReadonlyMap<SetName, NftSet>;
  /** Chains without a hook, in the order they have to be made, with their rules. */
  readonly chains: readonly ChainWithRules[];
  readonly baseChains: readonly ChainWithRules[];
  readonly selectors: Selectors;
  /** Matches packets from Pods; undefined if that cannot be told. */
  readonly fromPod: Statement | undefined;
  /** `1 << masqueradeBit` */
  readonly mark: number;
  /** All local addresses answer node ports: there is no set of them. */
  readonly allNodeAddresses: boolean;
}

export interface ChainWithRules {
  readonly chain: Chain;
  readonly rules: readonly Rule[];
}

/** What rules look at, in one family. */
export interface Selectors {
  readonly saddr: Selector;
  readonly daddr: Selector;
  /** `ip daddr . meta l4proto . th dport` */
  readonly frontend: readonly Selector[];
  /** `meta l4proto . th dport` */
  readonly nodePort: readonly Selector[];
}

export interface NftablesOptions extends DataplaneOptions {
  /**
   * `services`: every frontend, refusal and masquerading rule counts its new connections (packets and bytes of their
   * first packet); `endpoints`: elements of endpoint maps too. Default off.
   */
  readonly serviceCounters?: 'off' | 'services' | 'endpoints';
}

export function makeLayout(options: NftablesOptions): Layout {
  const family = options.family === 'IPv6' ? 'ip6' : 'ip';
  const kubeProxy = table(family, tableName, {
    comment: 'rules for Kubernetes Services, written by pointsman',
  });
  const { saddr, daddr } = family === 'ip6' ? ip6 : ip;
  const selectors: Selectors = {
    saddr,
    daddr,
    frontend: [daddr, meta.l4proto, th.dport],
    nodePort: [meta.l4proto, th.dport],
  };
  const fromPod = matchPods(options.localDetector, saddr, '==');
  const base = {
    family,
    table: kubeProxy,
    selectors,
    fromPod,
    mark: 2 ** options.masqueradeBit,
    allNodeAddresses: matchesAll(options.nodePortAddresses),
  } as const;
  return {
    ...base,
    sets: makeSets(kubeProxy, selectors, base.allNodeAddresses, options.serviceCounters ?? 'off'),
    chains: makeChains({
      ...base,
      masqueradeAll: options.masqueradeAll,
      counting: (options.serviceCounters ?? 'off') !== 'off',
      localDetector: options.localDetector,
    }),
    baseChains: makeBaseChains(kubeProxy),
  };
}

/** A network of all addresses matches everything, so there is nothing to compare. */
function matchPods(
  detector: LocalDetector | undefined,
  saddr: Selector,
  operator: '==' | '!=',
): Statement | undefined {
  switch (detector?.kind) {
    case undefined:
      return undefined;
    case 'cidr':
      if (!detector.cidr.endsWith('/0')) return statement.matchPrefix(saddr, detector.cidr, operator);
      return operator === '==' ? [] : undefined;
    case 'interface':
      return statement.match(meta.iifname, detector.name, operator);
    case 'interfacePrefix':
      return statement.match(meta.iifname, `${detector.prefix}*`, operator);
  }
}

function makeSets(
  kubeProxy: Table,
  selectors: Selectors,
  allNodeAddresses: boolean,
  serviceCounters: 'off' | 'services' | 'endpoints',
): ReadonlyMap<SetName, NftSet> {
  const address: TypeName = kubeProxy.family === 'ip6' ? 'ipv6_addr' : 'ipv4_addr';
  const nodePort = ['inet_proto', 'inet_service'] as const;
  const frontend = [address, ...nodePort] as const;
  const endpoint = [selectors.daddr, th.dport];
  // The modulus in a set's description means nothing; nft wants one.
  const slot = numgen(2);
  const sets: NftSet[] = [
    set(kubeProxy, 'virtual-ips', [address]),
    set(kubeProxy, 'service-cidrs', [address], { flags: ['interval'] }),
    map(kubeProxy, 'frontends', frontend, 'verdict'),
    map(kubeProxy, 'endpoints', [...selectors.frontend, slot], endpoint),
    map(kubeProxy, 'local-endpoints', [...selectors.frontend, slot], endpoint),
    map(kubeProxy, 'node-ports', nodePort, 'verdict'),
    map(kubeProxy, 'node-port-endpoints', [...selectors.nodePort, slot], endpoint),
    map(kubeProxy, 'node-port-local-endpoints', [...selectors.nodePort, slot], endpoint),
    map(kubeProxy, 'unserved', frontend, 'verdict'),
    map(kubeProxy, 'unserved-node-ports', nodePort, 'verdict'),
    set(kubeProxy, 'guarded', frontend),
    set(kubeProxy, 'source-ranges', [...frontend, address], { flags: ['interval'] }),
    set(kubeProxy, 'hairpins', [address, address, ...nodePort]),
    map(kubeProxy, 'sticky-ids', frontend, ['classid']),
    map(kubeProxy, 'local-sticky-ids', frontend, ['classid']),
    map(kubeProxy, 'node-port-sticky-ids', nodePort, ['classid']),
    map(kubeProxy, 'node-port-local-sticky-ids', nodePort, ['classid']),
    map(kubeProxy, 'sticky-times', ['classid'], 'verdict'),
    map(kubeProxy, 'sticky-clients', [meta.priority, meta.l4proto, selectors.saddr], endpoint, {
      flags: ['dynamic', 'timeout'],
      size: stickyClientsMax,
    }),
  ];
  if (!allNodeAddresses) sets.push(set(kubeProxy, 'node-addresses', [address]));
  if (serviceCounters !== 'off') sets.push(set(kubeProxy, 'sticky-draws', ['classid']));
  if (serviceCounters === 'endpoints')
    sets.push(set(kubeProxy, 'sticky-targets', ['classid', address, 'inet_service']));
  const counted = countedSets[serviceCounters];
  return new Map(
    sets.map((one) => [one.name as SetName, counted.includes(one.name as SetName) ? withCounter(one) : one]),
  );
}

const dispatching: readonly SetName[] = [
  'frontends',
  'node-ports',
  'unserved',
  'unserved-node-ports',
  'sticky-times',
  'sticky-draws',
];
/** Sets whose elements count, in the order in which they are to be read: what is part of another count comes behind it. */
export const countedSets: Readonly<Record<'off' | 'services' | 'endpoints', readonly SetName[]>> = {
  off: [],
  services: dispatching,
  endpoints: [
    ...dispatching,
    'endpoints',
    'local-endpoints',
    'node-port-endpoints',
    'node-port-local-endpoints',
    'sticky-targets',
  ],
};

interface ChainOptions {
  readonly family: 'ip' | 'ip6';
  readonly table: Table;
  readonly selectors: Selectors;
  readonly mark: number;
  readonly allNodeAddresses: boolean;
  readonly masqueradeAll: boolean;
  readonly counting: boolean;
  readonly localDetector: LocalDetector | undefined;
}

function makeChains(options: ChainOptions): ChainWithRules[] {
  const { family, table: kubeProxy, selectors, mark } = options;
  const { saddr, daddr, frontend, nodePort } = selectors;
  const make = (
    name: string,
    ...rules: (readonly [comment: string, ...statements: Statement[]])[]
  ): ChainWithRules => ({
    chain: chain(kubeProxy, name),
    rules: rules.map(([comment, ...statements]) =>
      rule(kubeProxy, name, statements, comment === '' ? undefined : comment),
    ),
  });
  const toVirtualIP = statement.inSet([daddr], 'virtual-ips');
  const notFromPod = options.masqueradeAll ? [] : matchPods(options.localDetector, saddr, '!=');
  const marking: [string, ...Statement[]][] =
    notFromPod === undefined ? [] : [['', toVirtualIP, notFromPod, statement.markOr(mark)]];
  const nodeAddress = statement.inSet([daddr], 'node-addresses');
  const notLoopback =
    family === 'ip6'
      ? statement.match(daddr, '::1', '!=')
      : statement.matchPrefix(daddr, '127.0.0.0/8', '!=');
  const toNode = options.allNodeAddresses
    ? [statement.match(fib.daddrType, 'local'), notLoopback]
    : [nodeAddress];
  // In the input hook the destination is local already.
  const toNodeInput = options.allNodeAddresses ? [notLoopback] : [nodeAddress];
  const masquerade = statement.masquerade({ fullyRandom: true });
  const count = options.counting ? statement.counter : [];
  return [
    make('refuse', ['', statement.reject(family)]),
    make('source-check', [
      'load balancer IPs with source ranges',
      statement.inSet(frontend, 'guarded'),
      statement.inSet([...frontend, saddr], 'source-ranges', { not: true }),
      count,
      statement.drop,
    ]),
    make(
      'dispatch',
      ...marking,
      ['', statement.vmap(frontend, 'frontends')],
      ['', ...toNode, statement.vmap(nodePort, 'node-ports')],
    ),
    make('unserved-check', ['', statement.vmap(frontend, 'unserved')]),
    make('unserved-node-port-check', ['', ...toNodeInput, statement.vmap(nodePort, 'unserved-node-ports')]),
    make(
      'virtual-ip-check',
      ['no such port', toVirtualIP, count, statement.reject(family)],
      ['no such service', statement.inSet([daddr], 'service-cidrs'), count, statement.drop],
    ),
    make(
      'source-nat',
      ['', statement.matchMasked(meta.mark, mark, '!=', 0), statement.markXor(mark), count, masquerade],
      [
        'Pods that reach themselves',
        statement.matchBits(ct.status, ['dnat']),
        statement.inSet([saddr, daddr, meta.l4proto, th.dport], 'hairpins'),
        count,
        masquerade,
      ],
    ),
  ];
}

const baseChains: readonly (readonly [
  name: string,
  type: 'filter' | 'nat',
  hook: HookName,
  priority: number,
  jumps: readonly string[],
])[] = [
  ['filter-prerouting-pre-dnat', 'filter', 'prerouting', -110, ['source-check']],
  ['filter-output-pre-dnat', 'filter', 'output', -110, ['source-check']],
  ['nat-prerouting', 'nat', 'prerouting', -100, ['dispatch']],
  ['nat-output', 'nat', 'output', -100, ['dispatch']],
  ['filter-input', 'filter', 'input', 0, ['unserved-node-port-check', 'unserved-check']],
  ['filter-forward', 'filter', 'forward', 0, ['unserved-check', 'virtual-ip-check']],
  ['filter-output', 'filter', 'output', 0, ['unserved-check', 'virtual-ip-check']],
  ['nat-postrouting', 'nat', 'postrouting', 100, ['source-nat']],
];

function makeBaseChains(kubeProxy: Table): ChainWithRules[] {
  const isNew = statement.matchBits(ct.state, ['new']);
  return baseChains.map(([name, type, hook, priority, jumps]) => ({
    chain: chain(kubeProxy, name, { type, hook, priority, policy: 'accept' }),
    // Nat chains see new connections only.
    rules: jumps.map((target) =>
      rule(kubeProxy, name, [...(type === 'filter' ? [isNew] : []), statement.jump(target)]),
    ),
  }));
}
