/**
 * Wanted against the output of `nft -j list ruleset`: both in the form that is interpreted, for nft's own form leaves
 * out what no packet sees. What history decides is not compared, as in nftablesDiff; nor are the numbers under which
 * clients are remembered.
 */
import { tableFromKernel } from '../explain/nft/fromNetlink.ts';
import type { Expr, NftElement, NftRule, NftSet, NftStatement, NftTable } from '../explain/nft/form.ts';
import { nftablesContents } from '../render/nftables.ts';
import type { RuleConfig } from '../render/node.ts';
import type { WantedFamily } from '../render/wanted.ts';
import type { Difference } from './difference.ts';
import {
  diffChains,
  diffEntries,
  hookText,
  ownerOf,
  slottedEntries,
  type AddDifference,
  type ChainText,
  type Entry,
  type Slot,
} from './nftablesDiff.ts';

export const savedNftNote =
  'Session affinity is compared by its rules and by the Services that have it, not by the numbers it goes by.';

export function diffSavedNftables(
  family: WantedFamily,
  tables: readonly NftTable[],
  localAddresses: readonly string[],
  serviceCounters: RuleConfig['extras']['serviceCounters'] = 'off',
): Difference[] {
  const wanted = tableFromKernel(nftablesContents(family, localAddresses, serviceCounters));
  const name = `${wanted.family} ${wanted.name}`;
  const found: Difference[] = [];
  const add: AddDifference = (difference, servicePort = '') => {
    found.push({ family: family.family, servicePort, ...difference });
  };
  const actual = tables.find((one) => one.family === wanted.family && one.name === wanted.name);
  if (actual === undefined) {
    add({ kind: 'missing', object: 'table', where: name, wanted: [], actual: [] });
    return found;
  }
  diffChains(chainTexts(wanted), chainTexts(actual), name, add);
  const owner = ownerOf(family);
  for (const set of wanted.sets.values()) {
    const where = `${name} ${set.name}`;
    const there = actual.sets.get(set.name);
    if (there === undefined) add({ kind: 'missing', object: 'set', where, wanted: [], actual: [] });
    else diffEntries(entriesOf(set), entriesOf(there), where, owner, add);
  }
  for (const set of actual.sets.keys()) {
    if (!wanted.sets.has(set))
      add({ kind: 'extra', object: 'set', where: `${name} ${set}`, wanted: [], actual: [] });
  }
  return found;
}

function chainTexts({ chains }: NftTable): ChainText[] {
  return [...chains.values()].map(({ name, hook, rules }) => ({
    name,
    hook: hookText(hook),
    rules: rules.map((rule) => ({ sign: signRule(rule), text: rule.text })),
  }));
}

function signRule({ statements }: NftRule): string {
  return sign(statements.filter(({ kind }) => kind !== 'nothing').map(plain));
}

function sign(value: unknown): string {
  return JSON.stringify(value, (_, one: unknown) => (typeof one === 'bigint' ? `${one}n` : one));
}

/** nft prints shorter forms of what the kernel has: `ct state new`, `meta mark | 0x4000`, `dnat to MAP`. */
function plain(statement: NftStatement): NftStatement {
  switch (statement.kind) {
    case 'match': {
      const { left, operator, right } = statement;
      const isFlags = left.kind === 'bits' && left.operator === '&' && left.left.kind === 'field';
      if (!isFlags || !/^ct (state|status)$/.test(left.left.name)) return statement;
      const isAny = operator === '!=' && 'kind' in right && right.kind === 'value' && right.value === 0n;
      return isAny ? { kind: 'match', left: left.left, operator: 'in', right: left.right } : statement;
    }
    case 'set':
      return { ...statement, value: plainBits(statement.value) };
    case 'dnat': {
      const { address, port } = statement;
      const both = address?.kind === 'part' && port?.kind === 'part' && sign(address.of) === sign(port.of);
      return both ? { kind: 'dnat', address: address.of, port: undefined } : statement;
    }
    default:
      return statement;
  }
}

/** The kernel has every change of bits as `field & mask ^ value`. */
function plainBits(expr: Expr): Expr {
  if (expr.kind !== 'bits' || expr.operator !== '^') return expr;
  const { left, right } = expr;
  if (left.kind !== 'bits' || left.operator !== '&') return expr;
  if (left.right.kind !== 'value' || right.kind !== 'value') return expr;
  const [mask, bits] = [left.right.value, right.value];
  if (typeof mask !== 'bigint' || typeof bits !== 'bigint') return expr;
  if (mask === 0xffffffffn) return { kind: 'bits', operator: '^', left: left.left, right };
  return (mask ^ bits) === 0xffffffffn && (mask & bits) === 0n
    ? { kind: 'bits', operator: '|', left: left.left, right }
    : expr;
}

function entriesOf({ name, elements }: NftSet): Entry[] {
  if (name.endsWith('sticky-ids')) {
    return elements.map(({ key, text }) => ({
      key: sign(key),
      value: '',
      text: text.split(' : ', 1)[0]!,
    }));
  }
  if (name.startsWith('sticky-')) return [];
  if (name.endsWith('endpoints')) return slottedEntries(elements.map(slotOf));
  return elements.map(({ key, value, verdict, text }) => ({
    key: sign(key),
    value: sign([value, verdict]),
    text,
  }));
}

function slotOf({ key, text }: NftElement): Slot {
  return { frontend: sign(key.slice(0, -1)), number: Number(key.at(-1)), text };
}
