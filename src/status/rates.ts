/** From two readings of counters to connections per second. Pure. */
import type { CountersDocument, EndpointCount, RefusedCount, ServiceLabels } from './documents.ts';

/** What a reading has to have; from rules or from conntrack's events. */
export type Counts = Pick<CountersDocument, 'services' | 'endpoints' | 'refused' | 'masqueraded'>;

export interface Rates {
  readonly seconds: number;
  /** Connections per second, all service ports together; likewise the next two. */
  readonly connections: number;
  readonly refused: number;
  readonly masqueraded: number;
  /** Sorted as asked. */
  readonly services: readonly ServiceRate[];
  readonly refusals: readonly RefusalRate[];
}

export interface ServiceRate extends ServiceLabels {
  readonly perSecond: number;
  readonly total: number;
  readonly endpoints: readonly EndpointRate[];
}

export interface EndpointRate {
  readonly endpoint: string;
  readonly pod: string;
  readonly perSecond: number;
  readonly total: number;
}

export interface RefusalRate extends Omit<RefusedCount, 'packets'> {
  readonly perSecond: number;
  readonly total: number;
}

export const sortings = ['rate', 'total', 'name'] as const;
export type Sorting = (typeof sortings)[number];

export function ratesBetween(before: Counts, after: Counts, seconds: number, sorting: Sorting): Rates {
  const rate = (now: number, was: number | undefined): number =>
    // A count that shrank began anew.
    Math.max(0, was === undefined || was > now ? now : now - was) / seconds;
  const old = new Map(before.services.map((one) => [serviceKey(one), one.connections]));
  const oldEndpoints = new Map(before.endpoints.map((one) => [endpointKey(one), one.connections]));
  const oldRefused = new Map(before.refused.map((one) => [refusalKey(one), one.packets]));
  const endpoints = new Map<string, EndpointRate[]>();
  for (const one of after.endpoints) {
    const key = serviceKey(one);
    const { endpoint, pod, connections: total } = one;
    const perSecond = rate(total, oldEndpoints.get(endpointKey(one)));
    const list = endpoints.get(key);
    if (list === undefined) endpoints.set(key, [{ endpoint, pod, perSecond, total }]);
    else list.push({ endpoint, pod, perSecond, total });
  }
  const services = after.services.map((one): ServiceRate => {
    const key = serviceKey(one);
    const { id, family, namespace, service, port, protocol, connections: total } = one;
    return {
      id,
      family,
      namespace,
      service,
      port,
      protocol,
      perSecond: rate(total, old.get(key)),
      total,
      endpoints: endpoints.get(key) ?? [],
    };
  });
  const refusals = after.refused.map(({ packets: total, ...one }): RefusalRate => ({
    ...one,
    perSecond: rate(total, oldRefused.get(refusalKey({ ...one, packets: total }))),
    total,
  }));
  const masqueradedBefore = sum(before.masqueraded.map(({ connections }) => connections));
  const masqueradedNow = sum(after.masqueraded.map(({ connections }) => connections));
  return {
    seconds,
    connections: sum(services.map(({ perSecond }) => perSecond)),
    refused: sum(refusals.map(({ perSecond }) => perSecond)),
    masqueraded: rate(masqueradedNow, masqueradedBefore),
    services: services.sort(comparisons[sorting]),
    refusals: refusals.sort((a, b) => b.perSecond - a.perSecond || b.total - a.total),
  };
}

const byName = (a: ServiceRate, b: ServiceRate): number =>
  a.id < b.id ? -1 : a.id > b.id ? 1 : a.family < b.family ? -1 : 1;
const comparisons: Readonly<Record<Sorting, (a: ServiceRate, b: ServiceRate) => number>> = {
  rate: (a, b) => b.perSecond - a.perSecond || b.total - a.total || byName(a, b),
  total: (a, b) => b.total - a.total || byName(a, b),
  name: byName,
};

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}

function serviceKey({ family, id }: ServiceLabels): string {
  return `${family} ${id}`;
}

function endpointKey(one: EndpointCount): string {
  return `${serviceKey(one)} ${one.endpoint}`;
}

function refusalKey({ family, reason, verdict, id }: RefusedCount): string {
  return `${family} ${reason} ${verdict} ${id ?? ''}`;
}
