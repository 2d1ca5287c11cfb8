/** What the daemon watches at the API server, and whom it tells. */
import type { ApiObject, EndpointSlice, Service, ServiceCIDR } from '../api/objects.ts';
import type { ApiClient } from '../cluster/apiClient.ts';
import type { ObjectProblem } from '../cluster/decode/problem.ts';
import { Reflector, type ObjectHandler } from '../cluster/reflector.ts';
import { endpointSlices, nodeNamed, serviceCIDRs, services, type Resource } from '../cluster/resources.ts';
import type { Logger } from '../log/logger.ts';
import type { Families } from './families.ts';
import type { NodeState } from './nodeState.ts';

export interface WatchesOptions {
  readonly client: ApiClient;
  readonly log: Logger;
  /** An object, or a part of one, could not be decoded (and is logged already). */
  readonly problem: (problem: ObjectProblem) => void;
}

export class Watches {
  private readonly options: WatchesOptions;
  private readonly reflectors: { stop(): Promise<void> }[] = [];

  constructor(options: WatchesOptions) {
    this.options = options;
  }

  /** The Node of this machine. */
  node(state: NodeState): void {
    this.watch(nodeNamed(state.name), {
      add: (node) => state.set(node),
      update: (_old, node) => state.set(node),
      delete: () => state.deleted(),
      synced: () => state.setSynced(),
    });
  }

  /** Services, EndpointSlices and ServiceCIDRs; what one read brings goes to the kernel in the same turn. */
  objects(families: Families): void {
    const batchEnd = (): void => families.batchEnd();
    this.watch(
      services,
      {
        add: (service) => families.upsertService(service),
        update: (_old, service) => families.upsertService(service),
        delete: (service) => families.deleteService(service),
        synced: () => families.servicesSynced(),
      },
      { batchEnd, keep: keptOfService },
    );
    this.watch(endpointSlices, sliceHandler(families), { batchEnd, keep: keptOfSlice });
    const known = new Map<string, ServiceCIDR>();
    const changed = (): void => families.setServiceCIDRs(known.values());
    this.watch(
      serviceCIDRs,
      {
        add: (object) => {
          known.set(object.meta.name, object);
          changed();
        },
        update: (_old, object) => {
          known.set(object.meta.name, object);
          changed();
        },
        delete: (object) => {
          known.delete(object.meta.name);
          changed();
        },
        synced: () => undefined,
      },
      { batchEnd },
    );
  }

  /** Resolves when no more events will come. */
  async stop(): Promise<void> {
    await Promise.all(this.reflectors.map((reflector) => reflector.stop()));
  }

  private watch<T extends ApiObject>(
    resource: Resource<T>,
    handler: ObjectHandler<T>,
    { batchEnd, keep }: { readonly batchEnd?: () => void; readonly keep?: (object: T) => T } = {},
  ): void {
    const { client, log, problem } = this.options;
    const hooks = { problem, ...(batchEnd !== undefined && { batchEnd }) };
    const reflector = new Reflector({
      client,
      resource,
      handler,
      log,
      hooks,
      ...(keep !== undefined && { keep }),
    });
    this.reflectors.push(reflector);
    reflector.start();
  }
}

const none: readonly never[] = [];

/** Who it is: what it says lives on in the routes, once. */
function keptOfService(service: Service): Service {
  return {
    ...service,
    clusterIPs: none,
    ipFamilies: none,
    ports: none,
    externalIPs: none,
    loadBalancerIngress: none,
    loadBalancerSourceRanges: none,
  };
}

/** Who it is, and whom it concerns: its endpoints live on in the routes, once. */
function keptOfSlice(slice: EndpointSlice): EndpointSlice {
  return { ...slice, ports: none, endpoints: none };
}

function sliceHandler(families: Families): ObjectHandler<EndpointSlice> {
  return {
    add: (slice) => families.upsertSlice(slice),
    update: (old, slice) => {
      // The API forbids it, but a slice made anew under its old name may come as a change.
      if (old.addressType !== slice.addressType) families.deleteSlice(old);
      families.upsertSlice(slice);
    },
    delete: (slice) => families.deleteSlice(slice),
    synced: () => families.slicesSynced(),
  };
}
