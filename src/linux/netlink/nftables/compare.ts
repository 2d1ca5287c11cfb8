/**
 * Whether two objects mean the same, however the kernel spells what it gives back: it adds defaults, repeats the end of
 * a range, and drops numbers that only counted inside a batch.
 */
import type { Expression } from './expressions.ts';
import type { Chain, Element, NftSet, Rule } from './objects.ts';

/** Fields that are the same absent and with this value. */
const defaults: Readonly<Record<string, number | bigint>> = {
  flags: 0,
  offset: 0,
  operation: 0,
  timeout: 0n,
};
/** Fields that say nothing about what a rule does. */
const ignored = new Set(['setId', 'unknown']);

/** Text that is equal for rules that do the same in the same table (handles, comments and counts aside). */
export function signExpressions(expressions: readonly Expression[]): string {
  return JSON.stringify(expressions.map(sign));
}

function sign(expression: Expression): unknown {
  if (expression.kind === 'unknown') return [expression.name, expression.attributes.map(plain)];
  const values = expression as unknown as Readonly<Record<string, unknown>>;
  const parts: unknown[] = [expression.kind];
  for (const name of Object.keys(values).toSorted()) {
    const value = values[name];
    if (name === 'kind' || ignored.has(name) || value === undefined) continue;
    // dynset's and bitwise's first operation is a number 0 as well as a name.
    if (defaults[name] === value) continue;
    if (expression.kind === 'counter') continue;
    // A reset has no code, though nft sends one.
    if (expression.kind === 'reject' && expression.type === 'tcp reset' && name === 'code') continue;
    if (expression.kind === 'nat') {
      if (name === 'addressMax' && value === values['addressMin']) continue;
      if (name === 'portMax' && value === values['portMin']) continue;
      // The kernel adds what follows from the registers: 1 addresses, 2 ports are given.
      if (name === 'flags') {
        parts.push(name, (value as number) & ~3);
        continue;
      }
    }
    if (name === 'expression') parts.push('expressions', [sign(value as Expression)]);
    else if (name === 'expressions') parts.push(name, (value as readonly Expression[]).map(sign));
    else parts.push(name, plain(value));
  }
  // nft leaves these flags out where there are none.
  if (expression.kind === 'nat' && expression.flags === undefined) parts.push('flags', 0);
  return parts;
}

function plain(value: unknown): unknown {
  if (typeof value === 'bigint') return String(value);
  if (value instanceof Uint8Array) return Buffer.from(value).toString('hex');
  if (Array.isArray(value)) return value.map(plain);
  if (typeof value !== 'object' || value === null) return value;
  return Object.entries(value)
    .toSorted(([a], [b]) => (a < b ? -1 : 1))
    .map(([name, inner]) => [name, plain(inner)]);
}

/** Same chain, statements and comment. */
export function sameRule(a: Rule, b: Rule): boolean {
  return (
    a.chain === b.chain &&
    (a.comment ?? '') === (b.comment ?? '') &&
    signExpressions(a.expressions) === signExpressions(b.expressions)
  );
}

/** Same hook, priority and policy: what cannot be changed in a chain that exists. The name is not compared. */
export function sameHook(a: Chain, b: Chain): boolean {
  if (a.hook === undefined || b.hook === undefined) return a.hook === b.hook;
  return (
    a.hook.type === b.hook.type &&
    a.hook.hook === b.hook.hook &&
    a.hook.priority === b.hook.priority &&
    (a.hook.policy ?? 'accept') === (b.hook.policy ?? 'accept')
  );
}

/** Same key, value, flags, time-out and size: what cannot be changed in a set that exists. */
export function sameSet(a: NftSet, b: NftSet): boolean {
  return (
    a.flags === b.flags &&
    a.timeout === b.timeout &&
    a.size === b.size &&
    String(a.key) === String(b.key) &&
    String(a.value) === String(b.value)
  );
}

/** Same value, verdict, end and flags for the same key; comments are compared, time-outs are not. */
export function sameElement(a: Element, b: Element): boolean {
  return (
    sameBytes(a.key, b.key) &&
    sameBytes(a.keyEnd, b.keyEnd) &&
    sameBytes(a.data, b.data) &&
    a.verdict?.code === b.verdict?.code &&
    a.verdict?.chain === b.verdict?.chain &&
    (a.flags ?? 0) === (b.flags ?? 0) &&
    (a.comment ?? '') === (b.comment ?? '')
  );
}

function sameBytes(a: Uint8Array | undefined, b: Uint8Array | undefined): boolean {
  if (a === undefined || b === undefined) return a === b;
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}
