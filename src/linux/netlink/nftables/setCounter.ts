/** Sets and maps each of whose elements counts the packets that find it. */
import { MessageWriter, NLA_F_NESTED } from '../message.ts';
import { writeExpressionBody } from './expressions.ts';
import type { NftSet } from './objects.ts';

/** NFTA_SET_EXPR: what every element of the set does when it is found. */
const setExpression = 17;

export function withCounter(set: NftSet): NftSet {
  const writer = new MessageWriter(64);
  writeExpressionBody(writer, { kind: 'counter', bytes: 0n, packets: 0n });
  return { ...set, unknown: [{ type: setExpression | NLA_F_NESTED, value: writer.written().slice() }] };
}

export function isCounted(set: NftSet): boolean {
  return (
    set.unknown?.some(
      ({ type, value }) =>
        (type & ~NLA_F_NESTED) === setExpression && Buffer.from(value).includes('counter\0', 'latin1'),
    ) ?? false
  );
}
