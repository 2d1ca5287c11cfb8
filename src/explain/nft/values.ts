/** Expressions, matches and lookups in the sets and maps of one table. */
import type { Flow, Surroundings } from '../flow.ts';
import { fieldValue, NotKnown } from './fields.ts';
import type { Expr, NftElement, NftRule, NftTable, SetRef, Value } from './form.ts';
import { matchesPart, SetIndex } from './lookup.ts';

/** The element that was found last: for the step that is shown. */
export interface Looked {
  element: Pick<NftElement, 'text' | 'comment'> | undefined;
}

export class TableValues {
  readonly #table: NftTable;
  readonly #indexes = new Map<unknown, SetIndex>();

  constructor(table: NftTable) {
    this.#table = table;
  }

  /** Throws NotKnown unless the flow has assumed an answer. */
  match(
    { left, operator, right }: { left: Expr; operator: string; right: Expr | SetRef },
    value: (expr: Expr) => readonly Value[] | undefined,
    rule: NftRule,
  ): boolean {
    const have = value(left);
    if (have === undefined) return false;
    const not = operator === '!=';
    if (!('kind' in right)) {
      if ('name' in right) {
        const set = this.#table.sets.get(right.name);
        if (set === undefined) throw new NotKnown(`set ${right.name} has it`);
      }
      return (this.index(right).find(have) !== undefined) !== not;
    }
    const bits = left.kind === 'field' && (left.name === 'ct state' || left.name === 'ct status');
    if (right.kind === 'value') {
      const [first] = have;
      const wanted = right.value;
      if (bits && typeof wanted === 'bigint' && typeof first === 'bigint')
        return ((first & wanted) !== 0n) !== not;
      if (first === undefined) return false;
      if (operator === '==' || operator === 'in' || not) return matchesPart(wanted, first) !== not;
      if (typeof wanted !== 'bigint' || typeof first !== 'bigint') throw new NotKnown(rule.text);
      return operator === '<'
        ? first < wanted
        : operator === '<='
          ? first <= wanted
          : operator === '>'
            ? first > wanted
            : first >= wanted;
    }
    const other = value(right);
    if (other === undefined) throw new NotKnown(rule.text);
    return (have.length === other.length && have.every((one, i) => one === other[i])) !== not;
  }

  index(set: SetRef): SetIndex {
    const key = 'inline' in set ? set.inline : set.name;
    let index = this.#indexes.get(key);
    if (index === undefined) {
      const elements =
        'inline' in set ? set.inline.elements : (this.#table.sets.get(set.name)?.elements ?? []);
      index = new SetIndex(elements);
      this.#indexes.set(key, index);
    }
    return index;
  }

  /** Undefined: there is no such value, which ends the rule (a map without the key). Throws NotKnown. */
  value(
    expr: Expr,
    flow: Flow,
    at: Surroundings,
    drawn: number | undefined,
    looked: Looked,
  ): readonly Value[] | undefined {
    const again = (inner: Expr): readonly Value[] | undefined => this.value(inner, flow, at, drawn, looked);
    switch (expr.kind) {
      case 'value': {
        const { value } = expr;
        if (typeof value === 'bigint' || typeof value === 'string') return [value];
        throw new NotKnown('a range where one value is needed');
      }
      case 'field':
        return fieldValue(expr.name, flow, at);
      case 'random':
        return drawn === undefined ? undefined : [BigInt(drawn + expr.offset)];
      case 'concat': {
        const parts: Value[] = [];
        for (const part of expr.parts) {
          const found = again(part);
          if (found === undefined) return undefined;
          parts.push(...found);
        }
        return parts;
      }
      case 'map': {
        const key = again(expr.key);
        if (key === undefined) return undefined;
        const found = this.index(expr.set).find(key);
        if (found?.value === undefined) return undefined;
        looked.element = { text: found.text, comment: found.comment };
        return found.value;
      }
      case 'part': {
        const part = again(expr.of)?.[expr.index];
        return part === undefined ? undefined : [part];
      }
      case 'bits': {
        const left = again(expr.left)?.[0];
        const right = again(expr.right)?.[0];
        if (typeof left !== 'bigint' || typeof right !== 'bigint') return undefined;
        return [expr.operator === '&' ? left & right : expr.operator === '|' ? left | right : left ^ right];
      }
      case 'unknown':
        throw new NotKnown(expr.text);
    }
  }
}
