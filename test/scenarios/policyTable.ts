/**
 * The decision table of traffic policies as scenarios: every combination of policies, states of endpoints, frontends and
 * clients, each with what kube-proxy does with it. What is expected is computed here from the rules as they are
 * documented, on its own, so that a mistake in the program is no mistake in its test.
 */
import type { JsonObject } from '../../src/lab/scenario/generate.ts';

export type Family = 4 | 6;
type State = 'ready' | 'draining' | 'unready';
const modes = ['iptables', 'nftables', 'ipvs', 'userspace'] as const;
type Mode = (typeof modes)[number];

interface Policies {
  readonly internal: 'Cluster' | 'Local';
  readonly external: 'Cluster' | 'Local';
}

const policies: readonly Policies[] = [
  { internal: 'Cluster', external: 'Cluster' },
  { internal: 'Cluster', external: 'Local' },
  { internal: 'Local', external: 'Cluster' },
  { internal: 'Local', external: 'Local' },
];

const pods = [
  { name: 'a1', node: 'node-1', ip: '10.244.1.10' },
  { name: 'a2', node: 'node-1', ip: '10.244.1.11' },
  { name: 'b1', node: 'node-2', ip: '10.244.2.10' },
  { name: 'b2', node: 'node-2', ip: '10.244.2.11' },
] as const;

type PodName = (typeof pods)[number]['name'];
type Phase = Partial<Readonly<Record<PodName, State>>>;

const phases: Readonly<Record<string, Phase>> = {
  'ready-both': { a1: 'ready', b1: 'ready' },
  'draining-here': { a1: 'draining', a2: 'unready', b1: 'ready', b2: 'draining' },
  'ready-and-draining-here': { a1: 'draining', a2: 'ready' },
  'ready-elsewhere': { a1: 'unready', b1: 'ready' },
  'draining-elsewhere': { b1: 'draining', b2: 'draining' },
  'draining-both': { a1: 'draining', b1: 'draining' },
  'none-usable': { a1: 'unready', b1: 'unready' },
  'no-endpoints': {},
};

type Frontend = 'clusterIP' | 'externalIP' | 'loadBalancerIP' | 'nodePort' | 'secondNodePort' | 'localhost';

function address(frontend: Frontend, service: number, family: Family, port: number): string {
  const six = family === 6;
  const at = {
    clusterIP: six ? `fd00:10:96::21${service}` : `10.96.2.1${service}`,
    externalIP: six ? `2001:db8:1::3${service}` : `192.0.2.3${service}`,
    loadBalancerIP: six ? `2001:db8:1::2${service}` : `192.0.2.2${service}`,
    nodePort: six ? 'fd00:31::11' : '172.31.0.11',
    secondNodePort: six ? 'fd00:31:1::11' : '172.31.1.11',
    localhost: six ? '::1' : '127.0.0.1',
  }[frontend];
  const number = ['nodePort', 'secondNodePort', 'localhost'].includes(frontend) ? 30100 + service : port;
  return six ? `[${at}]:${number}` : `${at}:${number}`;
}

const clients: readonly (readonly [from: string, frontends: readonly Frontend[]])[] = [
  ['client', ['clusterIP', 'externalIP', 'loadBalancerIP', 'nodePort', 'secondNodePort']],
  ['pod/c1', ['clusterIP', 'externalIP', 'loadBalancerIP', 'nodePort']],
  ['node/node-1', ['clusterIP', 'externalIP', 'loadBalancerIP', 'nodePort', 'localhost']],
  ['node/node-2', ['nodePort']],
];

/** What one connection sees. */
function expected(
  phase: Phase,
  policy: Policies,
  frontend: Frontend,
  from: string,
  family: Family,
  mode: Mode,
): JsonObject {
  if (frontend === 'secondNodePort' && mode === 'nftables') return { outcome: 'refused' };
  const inState = (state: State, here: boolean): string[] =>
    pods
      .filter((pod) => phase[pod.name] === state && (!here || pod.node === 'node-1'))
      .map((pod) => pod.name);
  const firstOf = (here: boolean): string[] => {
    const ready = inState('ready', here);
    return ready.length > 0 ? ready : inState('draining', here);
  };
  const [everywhere, here] = [firstOf(false), firstOf(true)];
  const node = from === 'node/node-1';
  // In userspace mode a listener of the process is behind localhost, too.
  if (frontend === 'localhost' && mode !== 'userspace' && (family === 6 || mode !== 'iptables')) {
    // Nobody listens there; but iptables mode drops what goes to the number of a node port without local endpoints.
    const dropped =
      mode === 'iptables' && policy.external === 'Local' && everywhere.length > 0 && here.length === 0;
    return { outcome: dropped ? 'timeout' : 'refused' };
  }
  if (everywhere.length === 0) {
    // iptables mode looks for frontends without endpoints where packets come in and pass through, not where the node sends.
    const unseen =
      mode === 'iptables' && node && (frontend === 'externalIP' || frontend === 'loadBalancerIP');
    return { outcome: unseen ? 'timeout' : 'refused' };
  }
  const local = (backends: string[], source: string): JsonObject =>
    backends.length === 0 ? { outcome: 'timeout' } : { outcome: 'ok', backends, source };
  const pod = from.startsWith('pod/');
  const translated = 'node-ip/node-1';
  const kept = from === 'node/node-2' ? 'node-ip/node-2' : 'client-ip';
  if (frontend === 'clusterIP')
    return local(policy.internal === 'Local' ? here : everywhere, pod ? kept : translated);
  // A virtual server cannot tell who asks: in IPVS mode everybody gets those of this node, if there are any.
  const inside = mode === 'ipvs' && policy.external === 'Local' && here.length > 0 ? here : everywhere;
  if (policy.external === 'Cluster' || node) return local(inside, translated);
  return pod ? local(inside, kept) : local(here, kept);
}

function same(a: JsonObject, b: JsonObject): boolean {
  return JSON.stringify(a) === JSON.stringify(b);
}

function services(families: readonly Family[]): JsonObject[] {
  return policies.map((policy, i) => {
    const of = (frontend: Frontend): string[] =>
      families.map((family) => address(frontend, i, family, 0).replace(/:0$/, '').replace(/[[\]]/g, ''));
    const clusterIPs = of('clusterIP');
    return {
      kind: 'Service',
      metadata: { name: `s${i}` },
      spec: {
        type: 'LoadBalancer',
        clusterIP: clusterIPs[0] ?? '',
        clusterIPs,
        ipFamilies: families.map((family) => `IPv${family}`),
        ipFamilyPolicy: families.length > 1 ? 'RequireDualStack' : 'SingleStack',
        externalIPs: of('externalIP'),
        internalTrafficPolicy: policy.internal,
        externalTrafficPolicy: policy.external,
        ...(policy.external === 'Local' ? { healthCheckNodePort: 30200 + i } : {}),
        ports: [
          { name: 'http', port: 80, targetPort: 8080, nodePort: 30100 + i, protocol: 'TCP' },
          { name: 'dns', port: 53, targetPort: 8080, nodePort: 30100 + i, protocol: 'UDP' },
        ],
      },
      status: { loadBalancer: { ingress: of('loadBalancerIP').map((ip) => ({ ip })) } },
    };
  });
}

function slices(phase: Phase, families: readonly Family[]): JsonObject[] {
  return policies.flatMap((_, i) =>
    families.map((family) => ({
      kind: 'EndpointSlice',
      metadata: { name: `s${i}-${family}`, labels: { 'kubernetes.io/service-name': `s${i}` } },
      addressType: `IPv${family}`,
      ports: [
        { name: 'http', port: 8080, protocol: 'TCP' },
        { name: 'dns', port: 8080, protocol: 'UDP' },
      ],
      endpoints: pods
        .filter((pod) => phase[pod.name] !== undefined)
        .map((pod) => {
          const state = phase[pod.name];
          const [, , node, last] = pod.ip.split('.');
          return {
            addresses: [family === 6 ? `fd00:10:244:${node}::${last}` : pod.ip],
            nodeName: pod.node,
            conditions: {
              ready: state === 'ready',
              serving: state !== 'unready',
              terminating: state === 'draining',
            },
          };
        }),
    })),
  );
}

function probes(name: string, phase: Phase, family: Family, proto: 'tcp' | 'udp'): JsonObject[] {
  return policies.flatMap((policy, i) =>
    clients.flatMap(([from, frontends]) =>
      frontends.flatMap((frontend): JsonObject[] => {
        const outcomes = modes.map((mode) => expected(phase, policy, frontend, from, family, mode));
        const [first, ...others] = outcomes;
        if (first === undefined) return [];
        // A send that a rule of the own host drops is an error of that send, not silence.
        if (proto === 'udp' && from === 'node/node-1') return [];
        const backends = outcomes.find((outcome) => outcome['backends'] !== undefined)?.['backends'];
        return [
          {
            probe: {
              id: `${name}, internal ${policy.internal}, external ${policy.external}: ${from} to ${frontend} (IPv${family} ${proto})`,
              from,
              to: address(frontend, i, family, proto === 'tcp' ? 80 : 53),
              proto,
              count: Array.isArray(backends) ? (backends.length > 1 ? 16 : 3) : 1,
              parallel: 16,
              expect: others.every((other) => same(first, other))
                ? first
                : Object.fromEntries(modes.map((mode, i) => [mode, outcomes[i] ?? first])),
            },
          },
        ];
      }),
    ),
  );
}

/** One scenario of the table for one family and protocol. JSON, so YAML too. */
export function policyScenario(family: Family, proto: 'tcp' | 'udp'): string {
  const families: readonly Family[] = [family];
  const [first, ...rest] = Object.entries(phases);
  if (first === undefined) throw new Error('there are no phases');
  return JSON.stringify({
    name: `policy-table-${family}-${proto}`,
    description: `Traffic policies, states of endpoints, frontends and clients, over IPv${family} and ${proto}.`,
    families: [`ipv${family}`],
    pods: [
      ...pods.map((pod) => ({ ...pod, ports: ['tcp/8080', 'udp/8080'] })),
      { name: 'c1', node: 'node-1', ip: '10.244.1.20' },
    ],
    objects: [...services(families), ...slices(first[1], families)],
    steps: [
      ...probes(first[0], first[1], family, proto),
      ...rest.flatMap(([name, phase]) => [
        { apply: slices(phase, families) },
        ...probes(name, phase, family, proto),
      ]),
    ],
  });
}
