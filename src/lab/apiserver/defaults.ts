/** What every cluster has from its first second: the system namespaces, the service range, `default/kubernetes`. */
import type { Registry } from './registry.ts';
import { resourceById } from './resources.ts';

export const defaultServiceCidrs = ['10.96.0.0/16', 'fd00:10:96::/112'] as const;

export function createDefaults(
  registry: Registry,
  serviceCidrs: readonly string[],
  kubernetesIp: string,
): void {
  const options = { fieldManager: 'kube-apiserver' };
  for (const name of ['default', 'kube-system', 'kube-public', 'kube-node-lease']) {
    registry.create(resourceById('namespaces'), '', { metadata: { name } }, options);
  }
  const cidrs = resourceById('servicecidrs.networking.k8s.io');
  registry.create(
    cidrs,
    '',
    { metadata: { name: 'kubernetes' }, spec: { cidrs: [...serviceCidrs] } },
    options,
  );
  registry.create(
    resourceById('services'),
    'default',
    {
      metadata: { name: 'kubernetes', labels: { component: 'apiserver', provider: 'kubernetes' } },
      spec: {
        type: 'ClusterIP',
        clusterIP: kubernetesIp,
        ports: [{ name: 'https', protocol: 'TCP', port: 443, targetPort: 6443 }],
      },
    },
    options,
  );
}
