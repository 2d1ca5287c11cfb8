/**
 * New connections as conntrack announces them: works in every mode and needs no counters, but costs this process some
 * microseconds a connection, so only for as long as somebody watches.
 */
import { readEntry } from '../linux/netlink/conntrack-entry.ts';
import { NETLINK_NETFILTER, NetlinkSocket } from '../linux/netlink/socket.ts';
import type { CountersDocument, EndpointCount, ServiceCount, ServiceLabels } from './documents.ts';
import type { FlowIndex, ServedFlow } from './flowIndex.ts';

/** NFNLGRP_CONNTRACK_NEW is group 1. */
const groupNew = 1;
const receiveBuffer = 8 << 20;
/** Endpoints told apart; connections to more are counted for the service only. */
const endpointsMax = 20_000;

type Mutable<T> = { -readonly [K in keyof T]: T[K] };

/** Counts flows; pure. */
export class FlowTally {
  readonly #services = new Map<string, Mutable<ServiceCount>>();
  readonly #endpoints = new Map<string, Mutable<EndpointCount>>();

  add({ route, endpoint, known }: ServedFlow): void {
    const { id, family, namespace, service, portName, protocol } = route.port;
    const labels: ServiceLabels = { id, family, namespace, service, port: portName, protocol };
    const key = `${family} ${id}`;
    const count = this.#services.get(key);
    if (count === undefined) this.#services.set(key, { ...labels, connections: 1 });
    else count.connections++;
    const endpointKey = `${key} ${endpoint}`;
    const one = this.#endpoints.get(endpointKey);
    if (one !== undefined) one.connections++;
    else if (this.#endpoints.size < endpointsMax) {
      this.#endpoints.set(endpointKey, { ...labels, endpoint, pod: known?.pod ?? '', connections: 1 });
    }
  }

  /** Copies: the counts go on. */
  counts(): Pick<CountersDocument, 'services' | 'endpoints'> {
    return {
      services: [...this.#services.values()].map((one) => ({ ...one })),
      endpoints: [...this.#endpoints.values()].map((one) => ({ ...one })),
    };
  }
}

/** Listens in the network namespace it is made in, until closed. */
export class FlowCounter {
  readonly tally = new FlowTally();
  /** How often the kernel had more to say than there was room for. */
  lost = 0;
  readonly #socket: NetlinkSocket;
  #index: FlowIndex;

  constructor(index: FlowIndex) {
    this.#index = index;
    this.#socket = new NetlinkSocket({
      protocol: NETLINK_NETFILTER,
      groups: 1 << (groupNew - 1),
      receiveBuffer,
    });
    this.#socket.subscribe(
      (message) => {
        const entry = readEntry(message);
        const flow = entry === undefined ? undefined : this.#index.find(entry);
        if (flow !== undefined) this.tally.add(flow);
      },
      () => {
        this.lost++;
      },
    );
  }

  /** The routes as they are now. */
  setIndex(index: FlowIndex): void {
    this.#index = index;
  }

  close(): void {
    this.#socket.close();
  }
}
