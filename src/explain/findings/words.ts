/** Pieces of sentences. */
import type { Endpoint } from '../../services/types.ts';

/** Where the ready endpoints on other nodes are. */
export function elsewhere(endpoints: readonly Endpoint[]): string {
  const nodes = new Map<string, number>();
  for (const { ready, isLocal, nodeName } of endpoints) {
    if (ready && !isLocal) nodes.set(nodeName, (nodes.get(nodeName) ?? 0) + 1);
  }
  if (nodes.size === 0) return 'nor on any other';
  return [...nodes]
    .slice(0, 4)
    .map(([node, n]) => `${node === '' ? 'another node' : node} has ${n}`)
    .join(', ');
}

/** The first of them, by address and Pod. */
export function names(endpoints: readonly Endpoint[]): string {
  const shown = endpoints.slice(0, 4).map(({ key, pod }) => (pod === '' ? key : `${key} (Pod ${pod})`));
  return endpoints.length > shown.length
    ? `${shown.join(', ')} and ${endpoints.length - shown.length} more`
    : shown.join(', ');
}

export function count(n: number, noun: string): string {
  return `${n} ${noun}${n === 1 ? '' : 's'}`;
}

/** `a`, `a and b`, `a, b and 3 more` */
export function list(items: readonly string[], most = 3): string {
  const shown = items.slice(0, items.length <= most + 1 ? most + 1 : most);
  if (shown.length < items.length) return `${shown.join(', ')} and ${items.length - shown.length} more`;
  return shown.length < 2 ? (shown[0] ?? '') : `${shown.slice(0, -1).join(', ')} and ${shown.at(-1)}`;
}

/** `33.3 %` */
export function percent(probability: number): string {
  const value = probability * 100;
  return `${value > 99.95 ? '100' : value < 0.05 ? '<0.1' : value.toFixed(1)} %`;
}

/** `If A, and unless B` */
export function conditions(all: readonly string[]): string {
  const text = all.join(', and ');
  return text.charAt(0).toUpperCase() + text.slice(1);
}
