/** More mistakes around Services, each with what is said about it: ports, namespaces, families, load balancers. */
import { manifest, redirects, save, toCluster, type Mistake } from './mistakes.ts';

const from = ['--from', '10.244.1.50', '--to'];

const balancer = (service: string): string =>
  manifest({ service }).replace('type: NodePort', 'type: LoadBalancer');

/** A second Service that claims the cluster IP of the first. */
const claim = `---
kind: Service
apiVersion: v1
metadata: {name: zweb, namespace: shop}
spec: {clusterIP: 10.96.0.20, ports: [{name: http, port: 80, targetPort: 9000}]}
---
kind: EndpointSlice
apiVersion: discovery.k8s.io/v1
metadata: {name: zweb-1, namespace: shop, labels: {kubernetes.io/service-name: zweb}}
addressType: IPv4
ports: [{name: http, port: 9000}]
endpoints: [{addresses: [10.244.2.33], nodeName: node-2}]
`;

export const moreMistakes: readonly Mistake[] = [
  {
    name: 'a slice whose addressType is not that of its addresses',
    yaml: manifest({ sliceType: 'IPv6' }),
    args: toCluster,
    reason: 'wrong_family',
    says: 'EndpointSlice shop/web-1 of Service shop/web says addressType IPv6, but its addresses are IPv4: proxies pass over them, so connections are refused (port unreachable). → Make the slice anew with addressType IPv4; the field cannot be changed.',
  },
  {
    name: 'a slice of names',
    yaml: manifest({ sliceType: 'FQDN', endpoints: '{addresses: [web.example.com]}' }),
    args: toCluster,
    reason: 'wrong_family',
    says: 'Service shop/web has endpoints of FQDN only, and the packet is IPv4, so connections are refused (port unreachable). → No proxy serves slices of names (FQDN): give addresses, or make the Service one of type ExternalName.',
  },
  {
    name: 'a slice without the label',
    yaml: manifest({}).replace('labels: {kubernetes.io/service-name: web}', 'labels: {}'),
    args: toCluster,
    reason: 'slice_label',
    says: "EndpointSlice shop/web-1 has no label kubernetes.io/service-name, so it is nobody's: Service shop/web has no endpoints, so connections are refused (port unreachable). → Give it the label: kubectl label endpointslice -n shop web-1 kubernetes.io/service-name=web",
  },
  {
    name: 'a misspelt label, and another namespace with the same application',
    yaml: `${manifest({ endpoints: '' }).replace('labels: {app: web}', 'labels: {app: wbe}')}---
kind: Pod
apiVersion: v1
metadata: {name: web-9, namespace: staging, labels: {app: web}}
spec: {nodeName: node-2, containers: [{name: web, image: web}]}
status: {podIP: 10.244.2.90, phase: Running}
`,
    args: toCluster,
    reason: 'selector_matches_nothing',
    says: "spec.selector of Service shop/web is app=web, which matches no Pod: Pod shop/web-1 has app=wbe; Pod staging/web-9 has these labels, but a selector finds only Pods of the Service's own namespace. Without a Pod it has no endpoints, so connections are refused (port unreachable). → Is spec.selector misspelt? Set it to app=wbe, or change the label. If it is right: make the Service in namespace staging, or the Pods in shop.",
  },
  {
    name: 'a slice of a Service that is gone, whose name only ends alike',
    yaml: manifest({ owner: 'db' }),
    args: toCluster,
    reason: 'no_endpoints',
    says: 'Service shop/web has no endpoints anywhere (there is no EndpointSlice for it), so connections are refused (port unreachable).',
  },
  {
    name: 'a slice without the label in a namespace of a long name',
    yaml: manifest({})
      .replace('labels: {kubernetes.io/service-name: web}', 'labels: {}')
      .replaceAll(/\bshop\b/g, 'web-shop-of-the-north'),
    args: ['--from', '10.244.1.50', '--to', '10.96.0.20:80'],
    reason: 'slice_label',
    says: "EndpointSlice web-shop-of-the-north/web-1 has no label kubernetes.io/service-name, so it is nobody's: Service web-shop-of-the-north/web has no endpoints, so connections are refused (port unreachable). → Give it the label: kubectl label endpointslice -n web-shop-of-the-north web-1 kubernetes.io/service-name=web",
  },
  {
    name: 'a slice in another namespace',
    yaml: manifest({}).replace(
      '{name: web-1, namespace: shop, labels: {kubernetes.io',
      '{name: web-1, labels: {kubernetes.io',
    ),
    args: toCluster,
    reason: 'slice_label',
    says: 'EndpointSlice default/web-1 is labelled as one of a Service web, but it is in namespace default, and Service shop/web takes slices of its own namespace only, so connections are refused (port unreachable). → Make the slice in namespace shop.',
  },
  {
    name: 'a slice with the label of headless Services',
    yaml: manifest({}).replace(
      'service-name: web}',
      'service-name: web, service.kubernetes.io/headless: ""}',
    ),
    args: toCluster,
    reason: 'slice_label',
    says: 'EndpointSlice shop/web-1 is of Service shop/web, but proxies pass over it: metadata.labels["service.kubernetes.io/headless"] says that the Service is headless, so connections are refused (port unreachable). → Remove the label service.kubernetes.io/headless from the slice.',
  },
  {
    name: 'a slice of another protocol',
    yaml: manifest({ slice: 'name: http, port: 8080, protocol: UDP' }),
    args: toCluster,
    reason: 'port_name',
    says: 'The EndpointSlices of Service shop/web have no port named "http" of TCP: they have http 8080/UDP, so connections are refused (port unreachable).',
  },
  {
    name: 'port and targetPort swapped, the port that was meant dialled',
    yaml: manifest({ slice: 'name: http, port: 80' }).replace(
      'port: 80, targetPort: 8080',
      'port: 8080, targetPort: 80',
    ),
    args: [...from, '10.96.0.20:80'],
    reason: 'no_such_port',
    says: 'Service shop/web has no port 80/TCP: it has http 8080/TCP. The packet is passed on as it is, most likely into the void. → 80 is the targetPort, at which the Pods listen; clients dial 8080.',
  },
  {
    name: 'port and targetPort swapped, the Service dialled by name',
    yaml: manifest({ slice: 'name: http, port: 80' }).replace(
      'port: 80, targetPort: 8080',
      'port: 8080, targetPort: 80',
    ),
    args: toCluster,
    reason: 'target_port',
    severity: 'warning',
    says: 'spec.ports[].targetPort of Service shop/web leads to port 80, but the containers of Pod shop/web-1 declare 8080 (http). If nobody listens at 80, the Pod itself refuses the connection.',
  },
  {
    name: 'the node port dialled at the cluster IP',
    yaml: manifest({}),
    args: [...from, '10.96.0.20:30080'],
    reason: 'no_such_port',
    says: 'Service shop/web has no port 30080/TCP: it has http 80/TCP. The packet is passed on as it is, most likely into the void. → 30080 is its node port: it is for addresses of nodes; at this address dial 80.',
  },
  {
    name: 'UDP where TCP is served',
    yaml: manifest({}),
    args: [...from, 'shop/web:80', '--proto', 'udp'],
    reason: 'no_such_port',
    says: 'Service shop/web has no port 80/UDP: it has http 80/TCP. The packet is passed on as it is, most likely into the void. → Port 80 is TCP, not UDP.',
  },
  {
    name: 'Pods in another namespace than the Service',
    yaml: manifest({ endpoints: '' }).replace(
      '{name: web-1, namespace: shop, labels: {app',
      '{name: web-1, labels: {app',
    ),
    args: toCluster,
    reason: 'selector_matches_nothing',
    says: "spec.selector of Service shop/web is app=web, which matches no Pod: Pod default/web-1 has these labels, but a selector finds only Pods of the Service's own namespace. Without a Pod it has no endpoints, so connections are refused (port unreachable). → Make the Service in namespace default, or the Pods in shop.",
  },
  {
    name: 'two Services with one cluster IP',
    yaml: `${manifest({})}${claim}`,
    args: [...from, 'shop/zweb:http'],
    reason: 'duplicate_frontend',
    severity: 'warning',
    says: 'Two Services claim 10.96.0.20:80: Service shop/web, which is older and has it, and Service shop/zweb, whose clients reach Service shop/web instead. → Give Service shop/zweb another address.',
  },
  {
    name: 'an external IP that nobody routes',
    yaml: manifest({ service: '  externalIPs: [192.0.2.50]' }),
    args: ['--to', '192.0.2.50:80'],
    reason: 'external_ip',
    severity: 'note',
    says: "192.0.2.50 is in spec.externalIPs of Service shop/web. Kubernetes brings nobody's packets for it to a node: that is for your network to do. → If nothing arrives, see where the routers send this address.",
  },
  {
    name: 'a load balancer of a class that nobody serves',
    yaml: balancer('  loadBalancerClass: example.com/lb'),
    args: ['--to', '203.0.113.9:80'],
    reason: 'no_such_service',
    says: 'No Service answers at 203.0.113.9: it is no cluster IP, external IP or load balancer address of any Service. The proxy has no say: the packet is routed like any other. → Is it to be the address of Service shop/web? That has none yet, because the controller for spec.loadBalancerClass example.com/lb has made none (status.loadBalancer is empty). Does the controller of that class run? Is the class misspelt? kubectl describe service shows its events.',
  },
  {
    name: 'a load balancer address that was asked for and not given',
    yaml: balancer('  loadBalancerIP: 203.0.113.9'),
    args: ['--to', '203.0.113.9:80'],
    reason: 'load_balancer_pending',
    says: 'Service shop/web asks for 203.0.113.9 (spec.loadBalancerIP), but has not got it: nobody has made a load balancer for it (status.loadBalancer is empty). Until then no rule knows the address. → Is there a controller for load balancers in the cluster (of the cloud, or MetalLB and the like)? kubectl describe service shows its events.',
  },
  {
    name: 'a load balancer that has a name only',
    yaml: balancer('status: {loadBalancer: {ingress: [{hostname: lb.example.com}]}}'),
    args: ['--to', '203.0.113.9:80'],
    reason: 'no_such_service',
    says: 'No Service answers at 203.0.113.9: it is no cluster IP, external IP or load balancer address of any Service. The proxy has no say: the packet is routed like any other. → Is it to be the address of Service shop/web? That has none yet, because status.loadBalancer has the host name lb.example.com only, which is for clients, not for nodes. Dial lb.example.com.',
  },
  {
    name: 'a load balancer address with ipMode Proxy',
    yaml: balancer('status: {loadBalancer: {ingress: [{ip: 203.0.113.9, ipMode: Proxy}]}}'),
    args: ['--to', '203.0.113.9:80'],
    reason: 'load_balancer_proxy',
    severity: 'note',
    says: '203.0.113.9 is a load balancer address of Service shop/web with ipMode: Proxy: nodes leave it to the load balancer, which takes every connection itself and sends it on to a node port or a Pod.',
  },
  {
    name: 'source ranges that do not guard a node port',
    yaml: balancer('  loadBalancerSourceRanges: [192.0.2.0/24]'),
    args: ['--to', '172.31.0.11:30080'],
    reason: 'ranges_elsewhere',
    severity: 'note',
    says: 'spec.loadBalancerSourceRanges of Service shop/web (192.0.2.0/24) guards its load balancer addresses only: at 172.31.0.11:30080 everybody is let in.',
  },
  {
    name: "the Service's port dialled at a Pod",
    yaml: manifest({}),
    args: [...from, 'pod/shop/web-1:80'],
    reason: 'pod_address',
    severity: 'warning',
    says: '10.244.2.10 is the address of Pod shop/web-1: no Service, no proxy has a say. Its containers declare 8080 (http), not 80. 80 is the port of Service shop/web. → Dial 10.244.2.10:8080, or the Service: shop/web:80.',
  },
  {
    name: 'a Pod that is gone',
    yaml: manifest({}),
    args: [...from, '10.244.2.99:8080'],
    reason: 'pod_address',
    severity: 'warning',
    says: '10.244.2.99 is of a network of Pods, but no Pod that is known here has it: no Service, no proxy has a say. → Addresses of Pods are not kept: was the Pod replaced? Dial a Service instead.',
  },
  {
    name: 'a cluster IP of another family than the Service',
    yaml: manifest({}).replace('clusterIP: 10.96.0.20', 'clusterIP: 10.96.0.20\n  ipFamilies: [IPv6]'),
    args: [...from, '10.96.0.20:80'],
    reason: 'not_served',
    says: 'Service shop/web has 10.96.0.20 and port 80/TCP, but no rule: something in the object keeps proxies from serving it. → pointsman render --check says what is wrong with it.',
  },
  {
    name: "another node's program",
    yaml: manifest({}),
    args: ['--from', 'node-2', '--to', 'shop/web:http'],
    reason: 'other_node',
    severity: 'warning',
    says: 'A program on node-2 sends it: the rules of that node are the first to see its packets, and these are the rules of node-1. → Ask about that node: --node node-2 --from node; or on it.',
  },
  {
    name: "somebody else's rule that sends it to a proxy",
    yaml: manifest({}),
    args: [...toCluster, '--dump', 'FOLDER/rules.txt'],
    files: {
      'rules.txt': save('').replace(
        '-A PREROUTING -j KUBE-SERVICES',
        '-A PREROUTING -p tcp -m tcp --dport 80 -j DNAT --to-destination 192.0.2.9:3128\n-A PREROUTING -j KUBE-SERVICES',
      ),
    },
    reason: 'foreign_rule',
    says: 'A rule that is not the service proxy\'s sends the packet to 192.0.2.9:3128, before the rules of the service proxy are asked: rule "-p tcp -m tcp --dport 80 -j DNAT --to-destination 192.0.2.9:3128" in chain PREROUTING (nat PREROUTING).',
  },
  {
    name: "somebody else's rule that spares it translation",
    yaml: manifest({}),
    args: [...toCluster, '--dump', 'FOLDER/rules.txt'],
    files: {
      'rules.txt': redirects('').replace(
        '-A PREROUTING -j KUBE-PORTALS-CONTAINER',
        '-A PREROUTING -d 10.0.0.0/8 -j ACCEPT\n-A PREROUTING -j KUBE-PORTALS-CONTAINER',
      ),
    },
    reason: 'foreign_rule',
    says: 'A rule that is not the service proxy\'s lets the packet pass, before the rules of the service proxy are asked: rule "-d 10.0.0.0/8 -j ACCEPT" in chain PREROUTING (nat PREROUTING).',
  },
  {
    name: "a rule that is missing, before somebody else's that lets everything pass",
    yaml: manifest({}),
    args: [...toCluster, '--dump', 'FOLDER/rules.txt'],
    files: {
      'rules.txt': save('')
        .replace('-d 10.96.0.20/32', '-d 10.96.0.21/32')
        .replace('-j KUBE-SERVICES', '-j KUBE-SERVICES\n-A PREROUTING -s 10.0.0.0/8 -j ACCEPT'),
    },
    reason: 'rules_missing',
    says: 'The rules do not translate the packet, though Service shop/web has endpoints: rules are missing. → Is the proxy running? pointsman diff shows what is missing.',
  },
  {
    name: "a rule that is missing, before somebody else's that sends it elsewhere",
    yaml: manifest({}),
    args: [...toCluster, '--dump', 'FOLDER/rules.txt'],
    files: {
      'rules.txt': save('')
        .replace('-d 10.96.0.20/32', '-d 10.96.0.21/32')
        .replace(
          '-j KUBE-SERVICES',
          '-j KUBE-SERVICES\n-A PREROUTING -p tcp -j DNAT --to-destination 192.0.2.9:3128',
        ),
    },
    reason: 'foreign_rule',
    says: 'A rule that is not the service proxy\'s sends the packet to 192.0.2.9:3128, after the rules of the service proxy had none for it: rule "-p tcp -j DNAT --to-destination 192.0.2.9:3128" in chain PREROUTING (nat PREROUTING). → Rules of the proxy are missing: is it running? pointsman diff shows which.',
  },
  {
    name: 'a connection to a Pod that is gone',
    yaml: manifest({}),
    args: [...toCluster, '--conntrack', 'FOLDER/flows.txt'],
    files: {
      'flows.txt':
        'tcp      6 86390 ESTABLISHED src=10.244.1.50 dst=10.96.0.20 sport=43210 dport=80 src=10.244.2.66 dst=10.244.1.50 sport=8080 dport=43210 [ASSURED] mark=0 use=1\n',
    },
    reason: 'old_connection',
    severity: 'warning',
    says: 'The kernel remembers a connection of this client (port 43210) to 10.244.2.66:8080, no endpoint of Service shop/web any more. A connection that is open stays where it went; only new ones follow the rules.',
  },
];
