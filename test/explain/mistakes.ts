/** The classic mistakes around Services, each with what is said about it. */

const nodes = `
kind: Node
apiVersion: v1
metadata: {name: node-1}
spec: {podCIDRs: [10.244.1.0/24]}
status: {addresses: [{type: InternalIP, address: 172.31.0.11}]}
---
kind: Node
apiVersion: v1
metadata: {name: node-2}
spec: {podCIDRs: [10.244.2.0/24]}
status: {addresses: [{type: InternalIP, address: 172.31.0.12}]}
---
kind: Pod
apiVersion: v1
metadata: {name: web-1, namespace: shop, labels: {app: web}}
spec: {nodeName: node-2, containers: [{name: web, image: web, ports: [{containerPort: 8080, name: http}]}]}
status: {podIP: 10.244.2.10, phase: Running, conditions: [{type: Ready, status: 'POD_READY'}]}
---
`;

const serviceCIDR = `---
kind: ServiceCIDR
apiVersion: networking.k8s.io/v1
metadata: {name: kubernetes}
spec: {cidrs: [10.96.0.0/16]}
`;

interface Parts {
  readonly service?: string;
  readonly labels?: string;
  readonly metadata?: string;
  readonly endpoints?: string;
  readonly slice?: string;
  readonly sliceType?: string;
  readonly owner?: string;
  readonly targetPort?: string;
  readonly podReady?: boolean;
  readonly phase?: 'Running' | 'Pending';
}

export function manifest({
  service = '',
  metadata = '',
  labels,
  endpoints,
  slice = 'name: http, port: 8080',
  sliceType = 'IPv4',
  owner = 'web',
  targetPort = '8080',
  podReady = true,
  phase = 'Running',
}: Parts): string {
  return `${nodes
    .replace('POD_READY', podReady ? 'True' : 'False')
    .replace('Running', phase)
    .replace('podIP: 10.244.2.10, ', phase === 'Pending' ? '' : 'podIP: 10.244.2.10, ')}
kind: Service
apiVersion: v1
metadata: {name: web, namespace: shop${metadata}}
spec:
  clusterIP: 10.96.0.20
  selector: {${labels ?? 'app: web'}}
  ports: [{name: http, port: 80, targetPort: ${targetPort}, nodePort: 30080}]
  type: NodePort
${service}
---
kind: EndpointSlice
apiVersion: discovery.k8s.io/v1
metadata: {name: web-1, namespace: shop, labels: {kubernetes.io/service-name: ${owner}}}
addressType: ${sliceType}
ports: [{${slice}}]
endpoints: [${endpoints ?? '{addresses: [10.244.2.10], nodeName: node-2, targetRef: {kind: Pod, namespace: shop, name: web-1}}'}]
`;
}

export interface Mistake {
  readonly name: string;
  readonly yaml: string;
  readonly args: readonly string[];
  readonly files?: Readonly<Record<string, string>>;
  readonly reason: string;
  readonly says: string;
  readonly severity?: 'warning' | 'note';
}

export const toCluster = ['--from', '10.244.1.50', '--to', 'shop/web:http'];

export const save = (foreign: string): string => `*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
${foreign}
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:KUBE-SERVICES - [0:0]
:KUBE-SEP-A - [0:0]
-A PREROUTING -j KUBE-SERVICES
-A KUBE-SERVICES -d 10.96.0.20/32 -p tcp -m tcp --dport 80 -j KUBE-SEP-A
-A KUBE-SEP-A -p tcp -m tcp -j DNAT --to-destination 10.244.2.10:8080
COMMIT
`;

/** Rules of userspace mode beside somebody else's. */
export const redirects = (foreign: string): string => `*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
${foreign}
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:KUBE-PORTALS-CONTAINER - [0:0]
:KUBE-PORTALS-HOST - [0:0]
-A PREROUTING -j KUBE-PORTALS-CONTAINER
-A KUBE-PORTALS-CONTAINER -d 10.96.0.20/32 -p tcp -m tcp --dport 80 -j REDIRECT --to-ports 40000
COMMIT
`;

export const mistakes: readonly Mistake[] = [
  {
    name: 'a misspelt selector',
    yaml: manifest({ labels: 'app: wbe', endpoints: '' }),
    args: toCluster,
    reason: 'selector_matches_nothing',
    says: 'spec.selector of Service shop/web is app=wbe, which matches no Pod: Pod shop/web-1 has app=web. Without a Pod it has no endpoints, so connections are refused (port unreachable).',
  },
  {
    name: 'a targetPort at which nobody listens',
    yaml: manifest({ slice: 'name: http, port: 8081' }),
    args: toCluster,
    reason: 'target_port',
    severity: 'warning',
    says: 'spec.ports[].targetPort of Service shop/web leads to port 8081, but the containers of Pod shop/web-1 declare 8080 (http). If nobody listens at 8081, the Pod itself refuses the connection.',
  },
  {
    name: 'Pods that are not ready',
    yaml: manifest({
      endpoints: '{addresses: [10.244.2.10], nodeName: node-2, conditions: {ready: false, serving: false}}',
    }),
    args: toCluster,
    reason: 'not_ready',
    says: 'Service shop/web has 1 endpoint, but none is ready, so connections are refused (port unreachable): 10.244.2.10:8080.',
  },
  {
    name: 'no endpoints anywhere',
    yaml: manifest({ endpoints: '' }),
    args: toCluster,
    reason: 'no_endpoints',
    says: 'Service shop/web has no endpoints anywhere (its EndpointSlices are empty), so connections are refused (port unreachable).',
  },
  {
    name: 'policy Local without a Pod on the node',
    yaml: manifest({ service: '  externalTrafficPolicy: Local' }),
    args: ['--from', 'outside', '--to', '172.31.0.11:30080'],
    reason: 'local_policy',
    says: 'spec.externalTrafficPolicy of Service shop/web is Local and no ready endpoint is on node-1; node-2 has 1. The packet is dropped without an answer.',
  },
  {
    name: 'internal policy Local without a Pod on the node',
    yaml: manifest({ service: '  internalTrafficPolicy: Local' }),
    args: toCluster,
    reason: 'local_policy',
    says: 'spec.internalTrafficPolicy of Service shop/web is Local and no ready endpoint is on node-1; node-2 has 1. The packet is dropped without an answer.',
  },
  {
    name: 'a client outside the source ranges',
    yaml: manifest({
      service:
        '  loadBalancerSourceRanges: [192.0.2.0/24]\nstatus: {loadBalancer: {ingress: [{ip: 203.0.113.9}]}}',
    }).replace('type: NodePort', 'type: LoadBalancer'),
    args: ['--from', 'outside', '--to', '203.0.113.9:80'],
    reason: 'source_range',
    says: 'spec.loadBalancerSourceRanges of Service shop/web lets only 192.0.2.0/24 in; 198.51.100.77 is not among them, so the packet is dropped without an answer.',
  },
  {
    name: "another node's address",
    yaml: manifest({}),
    args: ['--from', 'outside', '--to', '172.31.0.12:30080'],
    reason: 'wrong_node_address',
    says: "30080 is a node port of Service shop/web, but 172.31.0.12 is not an address of node-1 (it is node-2's): no rule here translates it.",
  },
  {
    name: 'the service port dialled at a node',
    yaml: manifest({}),
    args: ['--from', 'outside', '--to', '172.31.0.11:80'],
    reason: 'no_such_node_port',
    says: 'No Service has node port 80/TCP. 80 is the port of Service shop/web at its cluster IP; its node port is 30080.',
  },
  {
    name: 'a port that the Service does not have',
    yaml: manifest({}),
    args: ['--from', '10.244.1.50', '--to', '10.96.0.20:8080'],
    reason: 'no_such_port',
    says: 'Service shop/web has no port 8080/TCP: it has http 80/TCP. The packet is passed on as it is, most likely into the void.',
  },
  {
    name: 'an address that no Service has',
    yaml: manifest({}),
    args: ['--from', '10.244.1.50', '--to', '10.96.0.99:80'],
    reason: 'no_such_service',
    says: 'No Service answers at 10.96.0.99: it is no cluster IP, external IP or load balancer address of any Service. The proxy has no say: the packet is routed like any other.',
  },
  {
    name: 'an address that no Service has any more',
    yaml: `${manifest({})}${serviceCIDR}`,
    args: ['--from', '10.244.1.50', '--to', '10.96.0.99:80'],
    reason: 'no_such_service',
    says: 'No Service answers at 10.96.0.99: it is no cluster IP, external IP or load balancer address of any Service, though of a range for cluster IPs. The packet is passed on as it is, most likely into the void.',
  },
  {
    name: "an address that is nobody's business here",
    yaml: `${manifest({})}${serviceCIDR}`,
    args: ['--from', '10.244.1.50', '--to', '203.0.113.9:443'],
    reason: 'no_such_service',
    severity: 'note',
    says: 'No Service answers at 203.0.113.9: it is no cluster IP, external IP or load balancer address of any Service, and of no range for cluster IPs. The proxy has no say: it is routed like any other packet.',
  },
  {
    name: 'a Service of another proxy',
    yaml: manifest({ metadata: ', labels: {service.kubernetes.io/service-proxy-name: mesh}' }),
    args: ['--from', '10.244.1.50', '--to', '10.96.0.20:80'],
    reason: 'other_proxy',
    says: 'Service shop/web is not ours to serve: label service.kubernetes.io/service-proxy-name gives it to another proxy (metadata.labels["service.kubernetes.io/service-proxy-name"]).',
  },
  {
    name: 'endpoints of the other family only',
    yaml: manifest({ endpoints: '{addresses: ["fd00::10"], nodeName: node-2}', sliceType: 'IPv6' }),
    args: toCluster,
    reason: 'wrong_family',
    says: 'Service shop/web has endpoints of IPv6 only, and the packet is IPv4, so connections are refused (port unreachable).',
  },
  {
    name: 'port names that differ',
    yaml: manifest({ slice: 'name: web, port: 8080' }),
    args: toCluster,
    reason: 'port_name',
    says: 'The EndpointSlices of Service shop/web have no port named "http" of TCP: they have web 8080/TCP, so connections are refused (port unreachable).',
  },
  {
    name: "somebody else's rule in the way",
    yaml: manifest({}),
    args: [...toCluster, '--dump', 'FOLDER/rules.txt'],
    files: { 'rules.txt': save('-A FORWARD -d 10.244.2.0/24 -m comment --comment "do not touch" -j DROP') },
    reason: 'foreign_rule',
    says: 'A rule that is not the service proxy\'s drops the packet: rule "-d 10.244.2.0/24 -m comment --comment "do not touch" -j DROP" in chain FORWARD (filter FORWARD).',
  },
  {
    name: 'rules that are older than the objects',
    yaml: manifest({ endpoints: '{addresses: [10.244.2.99], nodeName: node-2}' }),
    args: [...toCluster, '--dump', 'FOLDER/rules.txt'],
    files: { 'rules.txt': save('') },
    reason: 'rules_behind',
    says: 'The rules lead to 10.244.2.10:8080, which is no usable endpoint of Service shop/web: the rules are older than the objects.',
  },
  {
    name: 'a UDP flow to a Pod that is gone',
    yaml: manifest({ slice: 'name: http, port: 8080, protocol: UDP' }).replace(
      '{name: http, port: 80,',
      '{name: http, port: 80, protocol: UDP,',
    ),
    args: [...toCluster, '--conntrack', 'FOLDER/flows.txt'],
    files: {
      'flows.txt':
        'udp      17 29 src=10.244.1.50 dst=10.96.0.20 sport=5353 dport=80 [UNREPLIED] src=10.244.2.66 dst=10.244.1.50 sport=8080 dport=5353 mark=0 use=1\n',
    },
    reason: 'stale_udp_flow',
    says: 'The kernel remembers a UDP flow of this client (port 5353) to 10.244.2.66:8080, which is no endpoint any more; as long as datagrams come from that port, rules are not asked again, and nobody answers.',
  },
  {
    name: 'affinity to a Pod that is gone',
    yaml: manifest({ service: '  sessionAffinity: ClientIP' }),
    args: [...toCluster, '--dump', 'FOLDER/rules.json'],
    files: {
      'rules.json': JSON.stringify({
        nftables: [
          { table: { family: 'ip', name: 'kube-proxy' } },
          {
            chain: {
              family: 'ip',
              table: 'kube-proxy',
              name: 'nat-prerouting',
              type: 'nat',
              hook: 'prerouting',
              prio: -100,
              policy: 'accept',
            },
          },
          {
            map: {
              family: 'ip',
              table: 'kube-proxy',
              name: 'sticky-clients',
              type: 'ipv4_addr',
              map: ['ipv4_addr', 'inet_service'],
              flags: ['timeout', 'dynamic'],
              elem: [
                [
                  { elem: { val: '10.244.1.50', timeout: 10800, expires: 7200 } },
                  { concat: ['10.244.2.66', 8080] },
                ],
              ],
            },
          },
          {
            rule: {
              family: 'ip',
              table: 'kube-proxy',
              chain: 'nat-prerouting',
              expr: [
                {
                  dnat: {
                    family: 'ip',
                    addr: {
                      map: { key: { payload: { protocol: 'ip', field: 'saddr' } }, data: '@sticky-clients' },
                    },
                  },
                },
              ],
            },
          },
        ],
      }),
    },
    reason: 'affinity_to_gone',
    says: 'Session affinity (spec.sessionAffinity: ClientIP) still sends this client to 10.244.2.66:8080, which is no usable endpoint of Service shop/web any more.',
  },
  {
    name: 'a targetPort whose name no container has',
    yaml: manifest({ targetPort: 'htttp' }).replace('ports: [{name: http, port: 8080}]', 'ports: []'),
    args: toCluster,
    reason: 'target_port_name',
    says: 'spec.ports[].targetPort of Service shop/web is the name "htttp", and no container of Pod shop/web-1 has a TCP port of that name: they have http=8080. So Kubernetes finds no port to send to, and connections are refused (port unreachable). → Is it misspelt? Set targetPort to http.',
  },
  {
    name: 'Pods that wait to be scheduled',
    yaml: manifest({ endpoints: '', phase: 'Pending' }),
    args: toCluster,
    reason: 'not_running',
    says: 'The Pod that Service shop/web selects does not run, so connections are refused (port unreachable): Pod shop/web-1 (Pending).',
  },
  {
    name: 'Pods that have shut down',
    yaml: manifest({
      endpoints:
        '{addresses: [10.244.2.10], nodeName: node-2, conditions: {ready: false, serving: false, terminating: true}}',
    }),
    args: toCluster,
    reason: 'terminating',
    says: 'Service shop/web has 1 endpoint, but it is shutting down and serves no more, so connections are refused (port unreachable): 10.244.2.10:8080.',
  },
  {
    name: 'Pods that are shutting down alone serve',
    yaml: manifest({
      endpoints:
        '{addresses: [10.244.2.10], nodeName: node-2, conditions: {ready: false, serving: true, terminating: true}}',
    }),
    args: toCluster,
    reason: 'only_terminating',
    severity: 'warning',
    says: 'Nobody is ready: Pods that are shutting down (10.244.2.10:8080) serve as long as they can.',
  },
  {
    name: 'a slice with the name of another Service',
    yaml: manifest({ owner: 'wbe' }),
    args: toCluster,
    reason: 'slice_label',
    says: 'No EndpointSlice is labelled as one of Service shop/web; there is one of shop/wbe, and no such Service, so connections are refused (port unreachable). → Is the label kubernetes.io/service-name of the EndpointSlice misspelt? Set it to web.',
  },
  {
    name: 'node ports that do not answer at this address',
    yaml: manifest({}),
    args: ['--from', 'outside', '--to', '172.31.0.11:30080', '--nodeport-addresses', '192.168.0.0/16'],
    reason: 'node_port_addresses',
    says: '30080 is a node port of Service shop/web, but node ports do not answer at 172.31.0.11 on node-1 (iptables mode, nodePortAddresses 192.168.0.0/16).',
  },
  {
    name: 'a cluster IP dialled from outside the cluster',
    yaml: manifest({}),
    args: ['--to', 'shop/web:http'],
    reason: 'cluster_ip_from_outside',
    severity: 'warning',
    says: '10.96.0.20 is a cluster IP: outside the cluster nobody has a route to it, so the packet usually never comes to a node.',
  },
  {
    name: "another node's rules",
    yaml: manifest({}),
    args: ['--from', 'shop/web-1', '--to', 'shop/web:http'],
    reason: 'other_node',
    severity: 'warning',
    says: 'Pod shop/web-1 on node-2: the rules of that node are the first to see its packets, and these are the rules of node-1. → Ask about that node: --node node-2; or on it.',
  },
  {
    name: 'endpoints that hints keep away',
    yaml: manifest({
      service: '  trafficDistribution: PreferSameNode',
      endpoints:
        '{addresses: [10.244.2.10], nodeName: node-2, hints: {forNodes: [{name: node-2}]}}, {addresses: [10.244.1.10], nodeName: node-1, hints: {forNodes: [{name: node-1}]}}',
    }),
    args: toCluster,
    reason: 'topology',
    severity: 'note',
    says: 'Hints of the EndpointSlices (spec.trafficDistribution, or topology-aware routing) keep the traffic near: 1 endpoint of 2 is used from node-1. Not used: 10.244.2.10:8080.',
  },
  {
    name: 'Pods elsewhere that policy Local leaves out',
    yaml: manifest({
      service: '  externalTrafficPolicy: Local',
      endpoints: '{addresses: [10.244.2.10], nodeName: node-2}, {addresses: [10.244.1.10], nodeName: node-1}',
    }),
    args: ['--from', 'outside', '--to', '172.31.0.11:30080'],
    reason: 'local_only',
    severity: 'note',
    says: 'spec.externalTrafficPolicy of Service shop/web is Local: only endpoints on node-1 are used. Not used: 10.244.2.10:8080.',
  },
  {
    name: 'a Pod that reaches itself',
    yaml: manifest({ endpoints: '{addresses: [10.244.1.50], nodeName: node-1}' }),
    args: toCluster,
    reason: 'hairpin',
    severity: 'note',
    says: "One of the endpoints is the client itself. Such a connection leaves the Pod and comes back to it, with the node's address as its source.",
  },
  {
    name: 'a client that always meets the same Pod',
    yaml: manifest({ service: '  sessionAffinity: ClientIP' }),
    args: toCluster,
    reason: 'affinity',
    severity: 'note',
    says: 'spec.sessionAffinity: ClientIP: a client goes where it went before, until it has stayed away for 10800 s. Clients behind one address count as one.',
  },
  {
    name: 'Pods that are not ready and get connections',
    yaml: manifest({ service: '  publishNotReadyAddresses: true', podReady: false }),
    args: toCluster,
    reason: 'unready_published',
    severity: 'warning',
    says: 'spec.publishNotReadyAddresses of Service shop/web is true, so Pods that are not ready get connections, too: 10.244.2.10:8080 (Pod shop/web-1).',
  },
  {
    name: 'the port of health checks',
    yaml: manifest({
      service: '  externalTrafficPolicy: Local\n  healthCheckNodePort: 31111',
    }).replace('type: NodePort', 'type: LoadBalancer'),
    args: ['--from', 'outside', '--to', '172.31.0.11:31111'],
    reason: 'health_check_port',
    severity: 'note',
    says: '31111 is the healthCheckNodePort of Service shop/web: there the proxy itself tells load balancers whether this node has endpoints. It leads to no Pod.',
  },
  {
    name: 'a network policy',
    yaml: manifest({}),
    args: [...toCluster, '--dump', 'FOLDER/rules.txt'],
    files: {
      'rules.txt': save(
        '-A FORWARD -j KUBE-POD-FW-X\n-A KUBE-POD-FW-X -d 10.244.2.10/32 -j REJECT --reject-with icmp-port-unreachable',
      ).replace(':OUTPUT ACCEPT [0:0]\n', ':OUTPUT ACCEPT [0:0]\n:KUBE-POD-FW-X - [0:0]\n'),
    },
    reason: 'foreign_rule',
    says: 'A rule of kube-router, not of the service proxy, rejects the packet: rule "-d 10.244.2.10/32 -j REJECT --reject-with icmp-port-unreachable" in chain KUBE-POD-FW-X (filter FORWARD).',
  },
  {
    name: 'a rule between the process of userspace mode and all endpoints',
    yaml: manifest({}),
    args: [...toCluster, '--dump', 'FOLDER/rules.txt'],
    files: { 'rules.txt': redirects('-A OUTPUT -p tcp -m tcp --dport 8080 -j DROP') },
    reason: 'foreign_rule',
    says: 'A rule that is not the service proxy\'s drops the packet: rule "-p tcp -m tcp --dport 8080 -j DROP" in chain OUTPUT (filter OUTPUT).',
  },
  {
    name: 'a rule between the process of userspace mode and one of two endpoints',
    yaml: manifest({
      endpoints: '{addresses: [10.244.2.10], nodeName: node-2}, {addresses: [10.244.1.10], nodeName: node-1}',
    }),
    args: [...toCluster, '--dump', 'FOLDER/rules.txt'],
    files: { 'rules.txt': redirects('-A OUTPUT -d 10.244.2.0/24 -j DROP') },
    reason: 'foreign_rule',
    severity: 'warning',
    says: 'A rule that is not the service proxy\'s drops what the process sends to 10.244.2.10:8080: rule "-d 10.244.2.0/24 -j DROP" in chain OUTPUT (filter OUTPUT). It then tries another endpoint, so these clients are served, but later.',
  },
  {
    name: 'a rule of somebody else that stops some',
    yaml: manifest({
      endpoints: '{addresses: [10.244.2.10], nodeName: node-2}, {addresses: [10.244.1.10], nodeName: node-1}',
    }),
    args: [...toCluster, '--dump', 'FOLDER/rules.txt'],
    files: {
      'rules.txt': save('-A FORWARD -d 10.244.2.0/24 -j DROP')
        .replace(':KUBE-SEP-A', ':KUBE-SEP-B - [0:0]\n:KUBE-SEP-A')
        .replace(
          '--dport 80 -j KUBE-SEP-A',
          '--dport 80 -m statistic --mode random --probability 0.25 -j KUBE-SEP-A\n-A KUBE-SERVICES -d 10.96.0.20/32 -p tcp -m tcp --dport 80 -j KUBE-SEP-B\n-A KUBE-SEP-B -p tcp -m tcp -j DNAT --to-destination 10.244.1.10:8080',
        ),
    },
    reason: 'foreign_rule',
    says: 'A rule that is not the service proxy\'s drops 25.0 % of the connections, those to 10.244.2.10:8080: rule "-d 10.244.2.0/24 -j DROP" in chain FORWARD (filter FORWARD).',
  },
];
