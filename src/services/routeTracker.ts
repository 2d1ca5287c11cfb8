/**
 * Keeps the routing table of one family up to date. Events only mark what changed; `take()` folds them in and says
 * which routes differ from those of the take before. Both cost what changed, not what there is.
 */
import type { EndpointSlice, Family, Service } from '../api/objects.ts';
import { Claims } from './claims.ts';
import { Interner, NO_SLICE, readSlice, sliceService } from './endpoints.ts';
import { ProblemLedger } from './problems.ts';
import { buildRoute, lostFrontendProblems } from './routes.ts';
import { servicePorts } from './servicePorts.ts';
import { ServiceState } from './serviceState.ts';
import type {
  ChangeSet,
  HealthCheck,
  Problem,
  Route,
  RouteChange,
  RoutingTable,
  ServicePort,
  ServicePortId,
} from './types.ts';

export interface RouteTrackerOptions {
  readonly family: Family;
  readonly nodeName: string;
  /** The node's zone, if it is known already. */
  readonly zone?: string;
  /** Feature gate AllowServiceExternalIPs; default true. */
  readonly allowExternalIPs?: boolean;
  /** When the tracker came to be, milliseconds since the epoch: changes triggered before are not measured. Default 0. */
  readonly now?: number;
  readonly onProblem?: (problem: Problem) => void;
  /** Instead of `onProblem`: shared by the trackers of both families, so that a problem both see is reported once. */
  readonly problems?: ProblemLedger;
}

/**
 * The service model of one family, as events change it.
 *
 * The event methods return whether the event asks for a sync: it changed something that a route depends on.
 * An event of another family, or one that repeats what is known, does not.
 */
export class RouteTracker {
  /** All routes as of the last take. Live: the next take changes it. */
  readonly table: RoutingTable;

  readonly #options: RouteTrackerOptions;
  readonly #problems: ProblemLedger;
  readonly #interner = new Interner();
  readonly #claims = new Claims();
  readonly #routes = new Map<ServicePortId, Route>();
  readonly #services = new Map<string, ServiceState>();
  /** Which Service a slice is filed under, by the slice's `namespace/name`. */
  readonly #sliceOwners = new Map<string, ServiceState>();
  /** Services with something pending. */
  readonly #dirty = new Set<ServiceState>();
  readonly #healthChecks = new Map<string, HealthCheck>();
  #zone: string;
  #zoneChanged = false;
  #pendingServices = 0;
  #pendingEndpoints = 0;
  #totalEndpoints = 0;
  #noLocalInternal = 0;
  #noLocalExternal = 0;
  #examined = 0;

  constructor(options: RouteTrackerOptions) {
    this.#options = options;
    this.#zone = options.zone ?? '';
    this.#problems = options.problems ?? new ProblemLedger(options.onProblem ?? (() => undefined));
    this.table = { family: options.family, routes: this.#routes };
  }

  upsertService(service: Service): boolean {
    const { namespace, name } = service.meta;
    const problems: Problem[] = [];
    const ports = servicePorts(service, this.#portOptions(), problems);
    this.#report(`Service ${namespace}/${name}`, problems);
    return this.#setPorts(`${namespace}/${name}`, ports);
  }

  deleteService(namespace: string, name: string): boolean {
    this.#report(`Service ${namespace}/${name}`, []);
    return this.#setPorts(`${namespace}/${name}`, []);
  }

  upsertSlice(slice: EndpointSlice): boolean {
    const { family, nodeName, now = 0 } = this.#options;
    const { namespace, name } = slice.meta;
    if (slice.addressType !== family) return this.deleteSlice(namespace, name);
    const object = `${namespace}/${name}`;
    const problems: Problem[] = [];
    const serviceName = sliceService(slice, problems);
    if (serviceName === undefined) {
      const asks = this.deleteSlice(namespace, name);
      this.#report(`EndpointSlice ${object}`, problems);
      return asks;
    }
    const state = this.#state(`${namespace}/${serviceName}`);
    const owner = this.#sliceOwners.get(object);
    // The label says another Service than before: the slice leaves that one.
    const left = owner !== undefined && owner !== state && this.deleteSlice(namespace, name);
    const before = state.slice(name);
    const after = readSlice(slice, before, { family, nodeName, interner: this.#interner }, problems);
    this.#report(`EndpointSlice ${object}`, problems);
    this.#sliceOwners.set(object, state);
    // A slice that says nothing yet is filed all the same, so that its Service is known by it.
    if (after === before && owner === state) return false;
    state.setSlice(name, after);
    this.#dirty.add(state);
    this.#pendingEndpoints++;
    if (slice.lastChangeTriggerTime > now) (state.triggerTimes ??= []).push(slice.lastChangeTriggerTime);
    return state.concerns(before, after) || left;
  }

  deleteSlice(namespace: string, name: string): boolean {
    const object = `${namespace}/${name}`;
    this.#report(`EndpointSlice ${object}`, []);
    const state = this.#sliceOwners.get(object);
    if (state === undefined) return false;
    this.#sliceOwners.delete(object);
    const before = state.slice(name);
    state.setSlice(name, undefined);
    state.triggerTimes = undefined;
    this.#dirty.add(state);
    this.#pendingEndpoints++;
    return state.concerns(before, NO_SLICE);
  }

  /** The node's label `topology.kubernetes.io/zone`; empty if it has none. */
  setZone(zone: string): boolean {
    if (zone === this.#zone) return false;
    this.#zone = zone;
    this.#zoneChanged = true;
    return true;
  }

  /** Services that differ from what was last taken. */
  get pendingServiceChanges(): number {
    return this.#pendingServices;
  }

  /** Slice changes since the last take. */
  get pendingEndpointChanges(): number {
    return this.#pendingEndpoints;
  }

  /** Endpoints of all service ports, in any condition, as of the last take. */
  get totalEndpoints(): number {
    return this.#totalEndpoints;
  }

  /** Service ports whose Local policy finds nobody here while others exist, as of the last take. */
  get noLocalEndpoints(): { readonly internal: number; readonly external: number } {
    return { internal: this.#noLocalInternal, external: this.#noLocalExternal };
  }

  /** Routes that takes have looked at so far: what a sync costs here. */
  get examinedRoutes(): number {
    return this.#examined;
  }

  /** Health check node ports by `namespace/name`, as of the last take. Live. */
  healthChecks(): ReadonlyMap<string, HealthCheck> {
    return this.#healthChecks;
  }

  /** Brings the table up to date and says what that changed. */
  take(): ChangeSet {
    const changes: RouteChange[] = [];
    const triggerTimes: number[] = [];
    const affected = new Set<ServicePortId>();
    const gone = new Set<ServicePortId>();

    // First who has which frontend, for all Services; only then can any route be built.
    for (const state of this.#dirty) {
      state.takeSlices();
      if (state.triggerTimes !== undefined) triggerTimes.push(...state.triggerTimes);
      state.triggerTimes = undefined;
      const before = state.takePorts();
      if (before !== undefined) this.#claim(before, state.ports, affected, gone);
    }
    for (const id of gone) this.#setRoute(id, undefined, changes);
    for (const state of this.#zoneChanged ? this.#services.values() : this.#dirty) {
      for (const port of state.ports) this.#buildRoute(port, state, affected.has(port.id), changes);
    }
    for (const state of this.#dirty) {
      for (const port of state.ports) affected.delete(port.id);
      this.#setHealthCheck(state);
      if (state.isEmpty) this.#services.delete(state.key);
    }
    if (!this.#zoneChanged) {
      for (const id of affected) {
        const route = this.#routes.get(id);
        const state = route && this.#services.get(`${route.port.namespace}/${route.port.service}`);
        if (state !== undefined) this.#buildRoute(route!.port, state, true, changes);
      }
    }
    this.#dirty.clear();
    this.#zoneChanged = false;
    this.#pendingServices = 0;
    this.#pendingEndpoints = 0;
    const udpEndpointsChanged = changes.some(movesUdpFlows);
    return { family: this.#options.family, changes, udpEndpointsChanged, triggerTimes };
  }

  #portOptions(): { readonly family: Family; readonly allowExternalIPs: boolean } {
    return { family: this.#options.family, allowExternalIPs: this.#options.allowExternalIPs ?? true };
  }

  #state(key: string): ServiceState {
    let state = this.#services.get(key);
    if (state === undefined) this.#services.set(key, (state = new ServiceState(key)));
    return state;
  }

  #setPorts(key: string, ports: readonly ServicePort[]): boolean {
    if (ports.length === 0 && !this.#services.has(key)) return false;
    const state = this.#state(key);
    const wasPending = state.hasPendingPorts;
    const asks = state.setPorts(ports);
    this.#pendingServices += Number(state.hasPendingPorts) - Number(wasPending);
    this.#dirty.add(state);
    return asks;
  }

  #claim(
    before: readonly ServicePort[],
    after: readonly ServicePort[],
    affected: Set<ServicePortId>,
    gone: Set<ServicePortId>,
  ): void {
    const rest = new Map(before.map((port) => [port.id, port]));
    for (const port of after) {
      const old = rest.get(port.id);
      rest.delete(port.id);
      if (old === port) continue;
      this.#claims.replace(old, port, affected);
    }
    for (const old of rest.values()) {
      this.#claims.replace(old, undefined, affected);
      gone.add(old.id);
    }
  }

  #buildRoute(port: ServicePort, state: ServiceState, claimsChanged: boolean, changes: RouteChange[]): void {
    this.#examined++;
    const before = this.#routes.get(port.id);
    const endpoints = state.endpoints(port);
    if (before?.port === port && before.endpoints === endpoints && !claimsChanged && !this.#zoneChanged)
      return;
    const place = { nodeName: this.#options.nodeName, zone: this.#zone };
    const route = buildRoute(port, endpoints, place, this.#claims, before);
    if (route !== before) this.#setRoute(port.id, route, changes);
  }

  #setRoute(id: ServicePortId, after: Route | undefined, changes: RouteChange[]): void {
    const before = this.#routes.get(id);
    if (before === undefined && after === undefined) return;
    if (before !== undefined) this.#count(before, -1);
    if (after !== undefined) {
      this.#count(after, 1);
      this.#routes.set(id, after);
    } else this.#routes.delete(id);
    if (before?.lostFrontends !== after?.lostFrontends) {
      this.#report(`claims of ${id}`, after === undefined ? [] : lostFrontendProblems(after, this.#claims));
    }
    changes.push({ id, before, after });
  }

  #count(route: Route, sign: 1 | -1): void {
    this.#totalEndpoints += sign * route.endpoints.length;
    if (route.internal === 'drop') this.#noLocalInternal += sign;
    if (route.hasExternal && route.external === 'drop') this.#noLocalExternal += sign;
  }

  #setHealthCheck(state: ServiceState): void {
    const port = state.ports.find((candidate) => candidate.healthCheckNodePort !== 0)?.healthCheckNodePort;
    if (port === undefined) this.#healthChecks.delete(state.key);
    else this.#healthChecks.set(state.key, { port, localEndpoints: state.countLocalReady() });
  }

  #report(what: string, problems: readonly Problem[]): void {
    this.#problems.replace(`${this.#options.family} ${what}`, problems);
  }
}

/** UDP flows may be on record (conntrack) that would go elsewhere now. */
function movesUdpFlows({ before, after }: RouteChange): boolean {
  if ((after ?? before)?.port.protocol !== 'UDP') return false;
  return (
    before?.endpoints !== after?.endpoints ||
    before?.reachable !== after?.reachable ||
    before?.frontends !== after?.frontends
  );
}
