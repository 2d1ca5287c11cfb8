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

/** The API server's own addresses behind default/kubernetes, as kube-apiserver publishes them: of the Service's family. */
export function publishEndpoints(
  registry: Registry,
  { addresses, port }: { readonly addresses: readonly string[]; readonly port: number },
): void {
  const service = registry.get(resourceById('services'), 'default', 'kubernetes');
  const family = (service.spec?.['ipFamilies'] as readonly string[] | undefined)?.[0] ?? 'IPv4';
  const own = addresses.filter((ip) => ip.includes(':') === (family === 'IPv6'));
  const ports = [{ name: 'https', port, protocol: 'TCP' }];
  registry.create(
    resourceById('endpoints'),
    'default',
    {
      metadata: { name: 'kubernetes', labels: { 'endpointslice.kubernetes.io/skip-mirror': 'true' } },
      subsets: [{ addresses: own.map((ip) => ({ ip })), ports }],
    },
    options,
  );
  registry.create(
    resourceById('endpointslices.discovery.k8s.io'),
    'default',
    {
      metadata: { name: 'kubernetes', labels: { 'kubernetes.io/service-name': 'kubernetes' } },
      addressType: family,
      endpoints: own.map((ip) => ({ addresses: [ip], conditions: { ready: true } })),
      ports,
    },
    options,
  );
}
