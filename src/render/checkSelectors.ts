/** Selectors and target ports against the Pods of the manifests, where they hold any. */
import type { OtherObject } from '../cluster/manifests.ts';
import type { ClusterObjects } from './cluster.ts';
import type { Findings } from './findings.ts';
import { listOf, mapOf, type Json } from './written.ts';

/** A Pod, or the Pods that something makes. */
interface PodLike {
  readonly name: string;
  readonly namespace: string;
  readonly labels: Json;
  readonly portNames: ReadonlySet<string>;
}

export function checkSelectors(cluster: ClusterObjects, findings: Findings): void {
  const pods = cluster.others.flatMap(podsOf);
  if (pods.length === 0) return;
  const served = new Set<string>();
  for (const { meta, serviceName, endpoints } of cluster.slices)
    if (endpoints.length > 0) served.add(`${meta.namespace}/${serviceName}`);
  for (const service of cluster.services) {
    // With endpoints, somebody has found Pods for it: the manifests are not all there is.
    if (served.has(`${service.meta.namespace}/${service.meta.name}`)) continue;
    const source = cluster.sources.get(service);
    if (source === undefined) continue;
    const spec = mapOf(source.value['spec']);
    const selector = mapOf(spec['selector']);
    if (Object.keys(selector).length === 0) continue;
    const near = pods.filter(({ namespace }) => namespace === service.meta.namespace);
    const selected = near.filter(({ labels }) => matches(selector, labels));
    if (selected.length === 0) {
      const text = Object.entries(selector)
        .map(([key, value]) => `${key}=${String(value)}`)
        .join(',');
      const others = near.slice(0, 3).map(({ name }) => name);
      const tried =
        others.length === 0
          ? `there are none in namespace ${service.meta.namespace}`
          : `not ${others.join(', ')}${near.length > 3 ? ', …' : ''}`;
      findings.about(
        'warning',
        service,
        'spec.selector',
        'selector_matches_nothing',
        `${text} matches no Pod of these manifests: ${tried}`,
      );
      continue;
    }
    listOf(spec['ports']).forEach((published, i) => {
      const target = mapOf(published)['targetPort'];
      if (typeof target !== 'string' || /^\d+$/.test(target)) return;
      const without = selected.filter(({ portNames }) => !portNames.has(target));
      if (without.length === 0) return;
      const known = [...new Set(without.flatMap(({ portNames }) => [...portNames]))];
      const message = `no container of ${without[0]!.name} has a port named ${JSON.stringify(target)}${known.length === 0 ? '' : `, only ${known.join(', ')}`}: it gets no endpoint for this port`;
      findings.about('warning', service, `spec.ports[${i}].targetPort`, 'target_port_name', message);
    });
  }
}

function podsOf({ kind, value }: OtherObject): PodLike[] {
  const metadata = mapOf(value['metadata']);
  const pod = kind === 'Pod' ? value : mapOf(mapOf(value['spec'])['template']);
  const { containers, initContainers } = mapOf(pod['spec']);
  const sidecars = listOf(initContainers).filter((one) => mapOf(one)['restartPolicy'] === 'Always');
  const portNames = new Set<string>();
  for (const container of [...listOf(containers), ...sidecars]) {
    for (const port of listOf(mapOf(container)['ports'])) {
      const name = mapOf(port)['name'];
      if (typeof name === 'string') portNames.add(name);
    }
  }
  const { namespace } = metadata;
  return [
    {
      name: `${kind} ${String(metadata['name'])}`,
      namespace: typeof namespace === 'string' && namespace !== '' ? namespace : 'default',
      labels: mapOf(mapOf(pod['metadata'])['labels']),
      portNames,
    },
  ];
}

function matches(selector: Json, labels: Json): boolean {
  return Object.entries(selector).every(([key, value]) => labels[key] === value);
}
