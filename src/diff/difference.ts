/** One difference between what a node's proxy wants in the kernel and what is there. */
import type { Family } from '../api/objects.ts';

export interface Difference {
  readonly family: Family;
  /** missing: wanted, not there; extra: there, not wanted; altered: there in another form or order. */
  readonly kind: 'missing' | 'extra' | 'altered';
  readonly object:
    | 'table'
    | 'chain'
    | 'rule'
    | 'jump'
    | 'set'
    | 'element'
    | 'device'
    | 'address'
    | 'virtual server'
    | 'real server';
  /** e.g. `nat KUBE-SERVICES`, `ip kube-proxy frontends` */
  readonly where: string;
  /** `namespace/name:port` of the service port it belongs to; empty if it is everybody's or not known whose. */
  readonly servicePort: string;
  /** Lines in the kernel tool's syntax. */
  readonly wanted: readonly string[];
  readonly actual: readonly string[];
}

/** Lines for a terminal. */
export function printDifference({
  family,
  kind,
  object,
  where,
  servicePort,
  wanted,
  actual,
}: Difference): string {
  const whose = servicePort === '' ? '' : ` (${servicePort})`;
  const lines = [`${family} ${kind} ${object}: ${where}${whose}`];
  for (const line of actual) lines.push(`- ${line}`);
  for (const line of wanted) lines.push(`+ ${line}`);
  return `${lines.join('\n')}\n`;
}

/** Lines of each side that the other lacks; a line that is there twice counts twice. */
export function unmatched<T>(
  wanted: readonly T[],
  actual: readonly T[],
  sign: (one: T) => string,
): { readonly missing: T[]; readonly extra: T[] } {
  const rest = new Map<string, T[]>();
  for (const one of actual) {
    const list = rest.get(sign(one));
    if (list === undefined) rest.set(sign(one), [one]);
    else list.push(one);
  }
  const missing = wanted.filter((one) => rest.get(sign(one))?.pop() === undefined);
  return { missing, extra: [...rest.values()].flat() };
}
