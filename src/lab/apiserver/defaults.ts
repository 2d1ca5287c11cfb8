/** What every cluster has from its first second: the system namespaces, the service range, `default/kubernetes`. */
import type { Registry } from './registry.ts';
import { resourceById } from './resources.ts';

export const defaultServiceCidrs = ['10.96.0.0/16', 'fd00:10:96::/112'] as const;

const options = { fieldManager: 'kube-apiserver' };

export function createDefaults(
  registry: Registry,
  serviceCidrs: readonly string[],
  kubernetesIp: string,
): void {
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
  createKubernetesService(registry, kubernetesIp);
  registry.storage.subscribe('services', ({ type, key }) => {
    if (type !== 'DELETED' || key !== 'default/kubernetes') return;
    // Like kube-apiserver, which puts its own Service back.
    setImmediate(() => {
      const exists = registry.find(resourceById('services'), 'default', 'kubernetes') !== undefined;
      if (!exists && !registry.allocators.ipTaken(kubernetesIp))
        createKubernetesService(registry, kubernetesIp);
    });
  });
}

function createKubernetesService(registry: Registry, clusterIP: string): void {
  const input = {
    metadata: { name: 'kubernetes', labels: { component: 'apiserver', provider: 'kubernetes' } },
    spec: {
      type: 'ClusterIP',
      clusterIP,
      ports: [{ name: 'https', protocol: 'TCP', port: 443, targetPort: 6443 }],
    },
  };
  registry.create(resourceById('services'), 'default', input, options);
}
