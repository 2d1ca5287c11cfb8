/** `nft -j list table`, in a form in which two tables that mean the same are equal. */
import type { World } from './harness.ts';

type Json = string | number | null | readonly Json[] | { readonly [name: string]: Json };

interface Listed {
  readonly chains: Record<string, { readonly hook: Json; readonly rules: Json[] }>;
  /** set → sorted elements; endpoint maps: frontend → sorted endpoints. */
  readonly sets: Record<string, readonly string[] | Record<string, readonly string[]>>;
}

type Fields = { readonly [name: string]: Json };

const slotted = /endpoints$/;
const numbered = /sticky-ids$/;

function text(json: Json): string {
  return JSON.stringify(json);
}

/**
 * Slot order, handles and the numbers of affinity are chosen by history: slots must be 0 to N-1 and are then
 * forgotten, numbers are replaced by the name of the service port they stand for.
 */
export function listTable(world: World): Listed {
  const { nftables } = JSON.parse(world.nft('-j', 'list', 'table', world.table, 'kube-proxy')) as {
    nftables: readonly Fields[];
  };
  const names = new Map<string, string>();
  for (const one of nftables) {
    const map = one['map'] as Fields | undefined;
    if (map?.['name'] !== 'sticky-times') continue;
    for (const [key] of (map['elem'] ?? []) as readonly [Fields, Json][]) {
      const { val, comment } = key['elem'] as Fields;
      names.set(text(val!), comment as string);
    }
  }
  const chains: Listed['chains'] = {};
  const sets: Listed['sets'] = {};
  for (const one of nftables) {
    const { chain, rule, set, map } = one as { [name: string]: Fields | undefined };
    if (chain !== undefined) {
      const { type = null, hook = null, prio = null, policy = null } = chain;
      chains[chain['name'] as string] = { hook: [type, hook, prio, policy], rules: [] };
    } else if (rule !== undefined) {
      chains[rule['chain'] as string]!.rules.push([rule['expr']!, rule['comment'] ?? null]);
    } else if (set !== undefined || map !== undefined) {
      const object = (set ?? map)!;
      const name = object['name'] as string;
      const elements = (object['elem'] ?? []) as readonly Json[];
      if (name === 'sticky-clients') continue;
      if (slotted.test(name)) sets[name] = bySlots(elements as readonly [Fields, Json][]);
      else if (numbered.test(name))
        sets[name] = (elements as readonly [Json, Json][])
          .map(([key, number]) => text([key, names.get(text(number)) ?? `unknown ${text(number)}`]))
          .toSorted();
      else if (name === 'sticky-times')
        sets[name] = (elements as readonly [Fields, Json][])
          .map(([key, verdict]) => text([(key['elem'] as Fields)['comment']!, verdict]))
          .toSorted();
      else sets[name] = elements.map(text).toSorted();
    }
  }
  const sorted = <T>(record: Record<string, T>): Record<string, T> =>
    Object.fromEntries(Object.entries(record).sort(([a], [b]) => (a < b ? -1 : 1)));
  return { chains: sorted(chains), sets: sorted(sets) };
}

function bySlots(elements: readonly (readonly [Fields, Json])[]): Record<string, readonly string[]> {
  const lists = new Map<string, string[]>();
  for (const [key, endpoint] of elements) {
    const parts = key['concat'] as readonly Json[];
    const frontend = text(parts.slice(0, -1));
    const list = lists.get(frontend) ?? [];
    list[Number(parts.at(-1))] = text(endpoint);
    lists.set(frontend, list);
  }
  const result: Record<string, readonly string[]> = {};
  for (const [frontend, list] of [...lists].sort(([a], [b]) => (a < b ? -1 : 1))) {
    for (let slot = 0; slot < list.length; slot++) {
      if (list[slot] === undefined) throw new Error(`${frontend}: slot ${slot} of ${list.length} is empty`);
    }
    result[frontend] = list.toSorted();
  }
  return result;
}
