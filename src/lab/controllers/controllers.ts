/** The lab's controllers, which run in the API server's process and use its verbs. */
import type { Registry } from '../apiserver/registry.ts';
import type { Controller, ControllerBase, Report } from './controller.ts';
import { startDeploymentController } from './deployment.ts';
import { startEndpointsController } from './endpoints.ts';
import { startEndpointSliceController } from './endpointslice.ts';
import { startGarbageCollector, startNamespaceController } from './housekeeping.ts';
import { defaultLoadBalancerPools, startLoadBalancerController } from './loadbalancer.ts';
import { startReplicaSetController } from './replicaset.ts';
import { startScheduler } from './scheduler.ts';

export interface ControllerOptions {
  /** Deployments, ReplicaSets, scheduling, EndpointSlices and Endpoints; default true. */
  readonly workloads?: boolean;
  /** Address ranges for LoadBalancer Services, at most one a family; none = no load balancer. */
  readonly loadBalancerPools?: readonly string[];
  /** Told of what a controller could not do. */
  readonly report?: Report;
}

export interface Controllers {
  stop(): void;
}

export function startControllers(registry: Registry, options: ControllerOptions): Controllers {
  const report: Report =
    options.report ??
    ((controller, key, error) => {
      process.stderr.write(
        `${controller} ${key}: ${error instanceof Error ? error.message : String(error)}\n`,
      );
    });
  const base: ControllerBase = { registry, report };
  const running: Controller[] = [startGarbageCollector(base), startNamespaceController(base)];
  if (options.workloads !== false) {
    running.push(
      startDeploymentController(base),
      startReplicaSetController(base),
      startScheduler(base),
      startEndpointSliceController(base),
      startEndpointsController(base),
    );
  }
  const pools = options.loadBalancerPools ?? defaultLoadBalancerPools;
  if (pools.length > 0) running.push(startLoadBalancerController(base, pools));
  return {
    stop: () => {
      for (const controller of running) controller.stop();
    },
  };
}
