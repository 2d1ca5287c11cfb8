/** Objects as they were written down, read without believing anything about their form. */
import type { EndpointSlice, Node, Service } from '../api/objects.ts';
import type { ClusterObjects } from './cluster.ts';

export type Json = Readonly<Record<string, unknown>>;

/** The map itself, or an empty one if it is none. */
export function mapOf(value: unknown): Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Json) : {};
}

/** The list itself, or an empty one if it is none. */
export function listOf(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? (value as unknown[]) : [];
}

/** Undefined for an object of a live cluster. */
export function written(
  object: Service | EndpointSlice | Node,
  { sources }: ClusterObjects,
): Json | undefined {
  const source = sources.get(object);
  return source === undefined ? undefined : mapOf(source.value);
}
