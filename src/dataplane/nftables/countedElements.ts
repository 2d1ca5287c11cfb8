/** Elements with counters, as the kernel lists and announces them. */
import type { AttributeReader } from '../../linux/netlink/message.ts';

/** NFTA_SET_ELEM_… */
const ELEM_KEY = 1;
const ELEM_DATA = 2;
const ELEM_EXPR = 7;
const ELEM_EXPRESSIONS = 11;
const EXPR_NAME = 1;
const EXPR_DATA = 2;
const COUNTER_PACKETS = 2;
/** NFTA_DATA_VALUE or NFTA_DATA_VERDICT comes first and alone. */
const dataHeader = 4;

export interface CountedElement {
  readonly key: Uint8Array;
  /** Empty in a set. */
  readonly data: Uint8Array;
  readonly packets: number;
}

/**
 * Undefined: it has counted nothing so far, and `unused` ones are not wanted. Those are most of a large table, so
 * without garbage until then.
 */
export function readCounted(reader: AttributeReader, unused: boolean): CountedElement | undefined {
  const { bytes } = reader;
  let key = 0;
  let keyEnd = 0;
  let data = 0;
  let dataEnd = 0;
  let packets = 0;
  while (reader.next()) {
    switch (reader.type) {
      case ELEM_KEY:
        key = reader.start + dataHeader;
        keyEnd = reader.end;
        break;
      case ELEM_DATA:
        data = reader.start + dataHeader;
        dataEnd = reader.end;
        break;
      case ELEM_EXPR:
        packets = counterPackets(reader.nested());
        break;
      case ELEM_EXPRESSIONS: {
        const list = reader.nested();
        while (list.next()) packets = Math.max(packets, counterPackets(list.nested()));
        break;
      }
    }
  }
  if (packets === 0 && !unused) return undefined;
  return { key: bytes.slice(key, keyEnd), data: bytes.slice(data, dataEnd), packets };
}

/** NFTA_EXPR_NAME, NFTA_EXPR_DATA { NFTA_COUNTER_BYTES, NFTA_COUNTER_PACKETS } of a counter; 0 for anything else. */
function counterPackets(expression: AttributeReader): number {
  let isCounter = false;
  while (expression.next()) {
    if (expression.type === EXPR_NAME) isCounter = expression.string() === 'counter';
    else if (expression.type === EXPR_DATA && isCounter) {
      const counter = expression.nested();
      while (counter.next()) if (counter.type === COUNTER_PACKETS) return Number(counter.u64());
    }
  }
  return 0;
}
