/** Reading objects as published, which may be anything. */

export type Json = Readonly<Record<string, unknown>>;

export function map(value: unknown): Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Json) : {};
}

export function list(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? (value as readonly unknown[]) : [];
}

export function text(value: unknown): string {
  return typeof value === 'string' ? value : '';
}

export function textMap(value: unknown): Record<string, string> {
  return Object.fromEntries(Object.entries(map(value)).map(([key, one]) => [key, String(one)]));
}
