/**
 * Which endpoint is in which slot of a service port's list. Slots are 0 to N-1 without gaps; an endpoint keeps its
 * slot for as long as it can, so that a change costs the slots it touches.
 */
import type { Endpoint } from '../../services/types.ts';

export interface SlotChange {
  readonly slots: readonly Endpoint[];
  /** Slots whose endpoint differs from before, came or went; ascending is not promised. */
  readonly changed: readonly number[];
}

const NONE: readonly number[] = [];

/** A new endpoint takes the place of one that is gone; the last ones move into places that stay empty. */
export function assignSlots(before: readonly Endpoint[], wanted: readonly Endpoint[]): SlotChange {
  if (before.length === 0) return { slots: wanted, changed: wanted.map((_, slot) => slot) };
  if (wanted.length === 0) return { slots: wanted, changed: before.map((_, slot) => slot) };
  const rest = new Map<string, Endpoint>();
  for (const endpoint of wanted) rest.set(endpoint.key, endpoint);
  const slots: Endpoint[] = [];
  const holes: number[] = [];
  for (let slot = 0; slot < before.length; slot++) {
    const endpoint = rest.get(before[slot]!.key);
    if (endpoint === undefined) holes.push(slot);
    else rest.delete(endpoint.key);
    slots.push(endpoint ?? before[slot]!);
  }
  if (holes.length === 0 && rest.size === 0) return { slots, changed: NONE };
  const changed = new Set<number>();
  let filled = 0;
  for (const endpoint of rest.values()) {
    const slot = filled < holes.length ? holes[filled++]! : slots.length;
    slots[slot] = endpoint;
    changed.add(slot);
  }
  let lastHole = holes.length - 1;
  while (filled <= lastHole) {
    const last = slots.length - 1;
    changed.add(last);
    const moved = slots.pop()!;
    if (holes[lastHole] === last) lastHole--;
    else {
      const slot = holes[filled++]!;
      slots[slot] = moved;
      changed.add(slot);
    }
  }
  return { slots, changed: [...changed] };
}
