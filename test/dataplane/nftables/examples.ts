/** The five services of the worked example in the reference, and the same in kube-proxy's own layout. */
import { makeRoute } from '../iptables/routes.ts';

export const workedExample = [
  makeRoute({
    name: 'default/web',
    portName: 'http',
    clusterIP: '10.96.0.10',
    port: 80,
    endpoints: ['10.244.1.5:8080L', '10.244.2.7:8080'],
  }),
  makeRoute({
    name: 'default/lb',
    portName: 'https',
    clusterIP: '10.96.0.20',
    port: 443,
    nodePort: 30443,
    loadBalancerIPs: ['198.51.100.7'],
    sourceRanges: ['203.0.113.0/24', '192.0.2.0/24'],
    externalPolicyLocal: true,
    endpoints: ['10.244.1.6:8443L', '10.244.2.8:8443'],
  }),
  makeRoute({
    name: 'default/sticky',
    clusterIP: '10.96.0.30',
    port: 9000,
    affinitySeconds: 10_800,
    endpoints: ['10.244.1.9:9000L', '10.244.2.9:9000'],
  }),
  makeRoute({
    name: 'kube-system/dns',
    portName: 'dns',
    protocol: 'UDP',
    clusterIP: '10.96.0.53',
    port: 53,
    internalPolicyLocal: true,
    endpoints: ['10.244.2.3:53'],
  }),
  makeRoute({ name: 'default/empty', portName: 'main', clusterIP: '10.96.0.99', port: 80, nodePort: 30999 }),
];
