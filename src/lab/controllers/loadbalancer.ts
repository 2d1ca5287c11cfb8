/** LoadBalancer Services get an address of a pool for each of their families. */
import type { KubeObject } from '../apiserver/objects.ts';
import { parseCidr, type IpRange } from '../apiserver/addresses.ts';
import type { ServiceObject } from '../apiserver/strategies/serviceTypes.ts';
import { makeController, services, splitKey, type Controller, type ControllerBase } from './controller.ts';

export const defaultLoadBalancerPools = ['192.0.2.0/24', '2001:db8:1::/64'] as const;

export function startLoadBalancerController(base: ControllerBase, pools: readonly string[]): Controller {
  const { registry } = base;
  const ranges = pools.map((pool): IpRange => {
    const range = parseCidr(pool);
    if (range === undefined)
      throw new Error(`load balancer pool ${pool} is not a CIDR, such as 192.0.2.0/24`);
    return range;
  });

  const work = (key: string): void => {
    const [namespace, name] = splitKey(key);
    const service = registry.find(services, namespace, name);
    if (service === undefined) return;
    const { spec, status } = service as unknown as ServiceObject;
    const isOurs = spec?.type === 'LoadBalancer' && spec.loadBalancerClass === undefined;
    // An address that is there, whoever set it, stays.
    if (!isOurs || (status?.loadBalancer?.ingress?.length ?? 0) > 0) return;
    const ingress = (spec.ipFamilies ?? []).flatMap((family) => {
      const range = ranges.find((one) => one.family === family);
      const ip = range === undefined ? undefined : registry.allocators.nextInPool(range);
      return ip === undefined ? [] : [{ ip, ipMode: 'VIP' }];
    });
    if (ingress.length === 0) return;
    const wanted: KubeObject = { ...service, status: { ...service.status, loadBalancer: { ingress } } };
    const options = { fieldManager: 'cloud-controller-manager', subresource: 'status' } as const;
    registry.update(services, namespace, name, structuredClone(wanted), options);
  };

  return makeController(
    base,
    'loadbalancer',
    {
      [services.storage]: ({ type, key, object }) =>
        type !== 'DELETED' && object.spec?.['type'] === 'LoadBalancer' ? [key] : [],
    },
    work,
  );
}
