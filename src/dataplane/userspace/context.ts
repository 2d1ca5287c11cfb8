/** What all listeners of the proxy share. */
import type { Family, Protocol } from '../../api/objects.ts';
import type { Logger } from '../../log/logger.ts';
import type { Endpoint } from '../../services/types.ts';
import type { SocketBudget } from './socketBudget.ts';

/**
 * Why a client was turned away: too many open sockets; no endpoint took the connection; the address may not use this
 * load balancer, or its policy has no endpoint here.
 */
export type Refusal = 'socket_limit' | 'no_endpoint_answers' | 'not_allowed';

export interface ProxyContext {
  readonly family: Family;
  readonly log: Logger;
  readonly sockets: SocketBudget;
  readonly refused: (why: Refusal) => void;
  /** False where dialling the endpoint would lead back into this proxy. */
  readonly mayDial: (endpoint: Endpoint, protocol: Protocol) => boolean;
  /** Milliseconds without a datagram after which a UDP session ends. */
  readonly udpIdleTimeout: number;
}

/** Whoever connects; asking a socket for its peer's address costs, so it is asked only where it matters. */
export interface Peer {
  readonly remoteAddress?: string | undefined;
}

/** Finds endpoints for the clients of one listener. */
export interface Chooser {
  /**
   * Undefined = no endpoint is there, `forbidden` = this client may not come here.
   * `again`: the one chosen before did not answer.
   */
  choose(peer: Peer, again: boolean): Endpoint | undefined | 'forbidden';
  /** The endpoint of this client is no good: its next choice is to be another. */
  forget(peer: Peer): void;
}

/** Where to listen. */
export interface ListenAddress {
  readonly host: string;
  /** 0 = the kernel chooses. */
  readonly port: number;
}

/** A listening socket of either protocol. */
export interface Listener {
  /** The port it listens on. */
  readonly port: number;
  /** Sessions that hang on an endpoint that is gone are to end, where the protocol cannot drain them. */
  endpointsChanged(serves: (key: string) => boolean): void;
  /** Stops listening. What is connected stays, unless `hard`. */
  close(hard: boolean): void;
}
