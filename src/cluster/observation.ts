/** What happens with a connection to the API server, for metrics; words and meanings are client-go's (k8s.io/client-go/transport). */
import { lookup } from 'node:dns';
import type { LookupFunction } from 'node:net';
import type { ExecObservation } from './execPlugin.ts';

export type ConnectionObservation =
  | ExecObservation
  /** A host name was looked up, with or without success; addresses are not. */
  | { readonly kind: 'resolved'; readonly host: string; readonly seconds: number }
  /** A request asked for the connections to use: those that are there, or new ones (the first time, other certificates). */
  | { readonly kind: 'transport'; readonly result: 'hit' | 'miss' }
  /** How many sets of connections are kept for requests to come: one or none. */
  | { readonly kind: 'transports'; readonly kept: number }
  /** The file of the certificate authority was looked at again. */
  | { readonly kind: 'authority'; readonly result: 'success'; readonly reason: 'unchanged' | 'updated' }
  | {
      readonly kind: 'authority';
      readonly result: 'failure';
      readonly reason: 'read_error' | 'empty' | 'ca_parse_error';
    };

export type Observe = (observation: ConnectionObservation) => void;

/** Looks names up as every connection does, and says how long it took. */
export function timedLookup(observe: Observe): LookupFunction {
  return (host, options, callback) => {
    const started = performance.now();
    lookup(host, options, (error, address, family) => {
      observe({ kind: 'resolved', host, seconds: (performance.now() - started) / 1000 });
      callback(error, address, family);
    });
  };
}
