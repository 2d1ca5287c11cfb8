/**
 * Rules as iptables-nft puts them into nf_tables, read just as far as counting needs. Matches and targets of iptables
 * are expressions `match` and `target` there (linux/netfilter/nf_tables_compat.h).
 */
import {
  attributesOf,
  NFGENMSG_LENGTH,
  type AttributeReader,
  type Message,
} from '../../linux/netlink/message.ts';

/** NFTA_RULE_… */
export const RULE_TABLE = 1;
export const RULE_CHAIN = 2;
const RULE_HANDLE = 3;
const RULE_EXPRESSIONS = 4;
/** NFTA_EXPR_…, and what is the same of NFTA_MATCH_… and NFTA_TARGET_… */
const NAME = 1;
const DATA = 2;
const INFO = 3;
const COUNTER_PACKETS = 2;
const CMP_DATA = 3;
const IMMEDIATE_DATA = 2;
/** NFTA_DATA_… */
const DATA_VALUE = 1;
const DATA_VERDICT = 2;
const VERDICT_CODE = 1;
const VERDICT_CHAIN = 2;
const NF_DROP = 0;

export interface NftRule {
  table: string;
  chain: string;
  /** The kernel's number of the rule, which no other rule of its table gets. */
  handle: string;
  packets: number;
  /** Of iptables: `DNAT`, `REJECT`, `DROP`; empty for verdicts other than drop. */
  target: string;
  /** Where it jumps or goes to, else empty. */
  jump: string;
  /** It asks a list of recent clients. */
  recent: boolean;
  comment: string;
  /** Number of the transport protocol that it is for; 0 = any. */
  protocol: number;
}

/** @param wanted others are passed over by their table and chain, unread */
export function readNftRule(
  message: Message,
  wanted: (table: string, chain: string) => boolean,
): NftRule | undefined {
  const rule: NftRule = {
    table: '',
    chain: '',
    handle: '',
    packets: 0,
    target: '',
    jump: '',
    recent: false,
    comment: '',
    protocol: 0,
  };
  const reader = attributesOf(message, NFGENMSG_LENGTH);
  while (reader.next()) {
    switch (reader.type) {
      case RULE_TABLE:
        rule.table = reader.string();
        break;
      case RULE_CHAIN:
        rule.chain = reader.string();
        if (!wanted(rule.table, rule.chain)) return undefined;
        break;
      case RULE_HANDLE:
        rule.handle = String(reader.u64());
        break;
      case RULE_EXPRESSIONS: {
        const list = reader.nested();
        while (list.next()) readExpression(list.nested(), rule);
        break;
      }
    }
  }
  return rule;
}

/** NFTA_EXPR_NAME comes before NFTA_EXPR_DATA. */
function readExpression(reader: AttributeReader, rule: NftRule): void {
  let name = '';
  while (reader.next()) {
    if (reader.type === NAME) name = reader.string();
    else if (reader.type === DATA) readData(name, reader.nested(), rule);
  }
}

function readData(name: string, reader: AttributeReader, rule: NftRule): void {
  switch (name) {
    case 'counter':
      while (reader.next()) if (reader.type === COUNTER_PACKETS) rule.packets = Number(reader.u64());
      break;
    case 'match':
      readMatch(reader, rule);
      break;
    case 'target':
      while (reader.next()) if (reader.type === NAME) rule.target = reader.string();
      break;
    case 'immediate':
      while (reader.next()) if (reader.type === IMMEDIATE_DATA) readVerdict(reader.nested(), rule);
      break;
    case 'cmp':
      while (reader.next()) if (reader.type === CMP_DATA) readComparison(reader.nested(), rule);
      break;
  }
}

function readMatch(reader: AttributeReader, rule: NftRule): void {
  let name = '';
  while (reader.next()) {
    if (reader.type === NAME) name = reader.string();
    else if (reader.type === INFO && name === 'comment') rule.comment = reader.string();
  }
  if (name === 'recent') rule.recent = true;
}

function readVerdict(reader: AttributeReader, rule: NftRule): void {
  while (reader.next()) {
    if (reader.type !== DATA_VERDICT) continue;
    const verdict = reader.nested();
    while (verdict.next()) {
      if (verdict.type === VERDICT_CHAIN) rule.jump = verdict.string();
      else if (verdict.type === VERDICT_CODE && verdict.u32() === NF_DROP) rule.target = 'DROP';
    }
  }
}

/** Of what rules of ours compare, only the protocol is a single byte. */
function readComparison(reader: AttributeReader, rule: NftRule): void {
  while (reader.next()) if (reader.type === DATA_VALUE && reader.size === 1) rule.protocol = reader.u8();
}
