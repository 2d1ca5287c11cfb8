/** Tables as `nft -j list ruleset` prints them (libnftables-json(5)). */
import { canonicalIP, cidrRange, parseCIDR } from '../../services/ip.ts';
import { addressNumber } from './fields.ts';
import { addressTypes, anything, protocols, stateBits, statusBits } from './form.ts';
import type {
  Expr,
  KeyPart,
  NftChain,
  NftElement,
  NftRule,
  NftSet,
  NftStatement,
  NftTable,
  NftVerdict,
  SetRef,
  Value,
} from './form.ts';
import { printExpr, printStatement } from './printJson.ts';

type Json = string | number | boolean | null | readonly Json[] | { readonly [name: string]: Json };
type Fields = { readonly [name: string]: Json };

const priorities: Readonly<Record<string, number>> = {
  raw: -300,
  mangle: -150,
  dstnat: -100,
  filter: 0,
  security: 50,
  srcnat: 100,
};

/** Reads the whole document; throws with a sentence if it is none. Tables of other families than ip, ip6 and inet are left out. */
export function parseRuleset(text: string): NftTable[] {
  let document: Json;
  try {
    document = JSON.parse(text) as Json;
  } catch (error) {
    throw new Error('not the output of "nft -j list ruleset": it is no JSON', { cause: error });
  }
  const list = fields(document)?.['nftables'];
  if (!Array.isArray(list)) throw new Error('not the output of "nft -j list ruleset": "nftables" is missing');
  const tables = new Map<
    string,
    {
      family: string;
      name: string;
      chains: Map<string, NftChain & { rules: NftRule[] }>;
      sets: Map<string, NftSet>;
    }
  >();
  const tableOf = (object: Fields): NonNullable<ReturnType<typeof tables.get>> => {
    const family = textOf(object['family']);
    const name = textOf(object['table']);
    let table = tables.get(`${family} ${name}`);
    if (table === undefined) {
      table = { family, name, chains: new Map(), sets: new Map() };
      tables.set(`${family} ${name}`, table);
    }
    return table;
  };
  const rules: Fields[] = [];
  for (const item of list as readonly Json[]) {
    for (const [kind, value] of Object.entries(fields(item) ?? {})) {
      const object = fields(value);
      if (object === undefined) continue;
      if (kind === 'chain') {
        const name = textOf(object['name']);
        const hook = object['hook'];
        const priority = object['prio'];
        tableOf(object).chains.set(name, {
          name,
          rules: [],
          ...(typeof hook !== 'string'
            ? {}
            : {
                hook: {
                  type: textOf(object['type']),
                  hook,
                  priority: typeof priority === 'number' ? priority : (priorities[textOf(priority)] ?? 0),
                  policy: textOf(object['policy'] ?? 'accept'),
                },
              }),
        });
      } else if (kind === 'set' || kind === 'map') {
        const set = readSet(object);
        tableOf(object).sets.set(set.name, set);
      } else if (kind === 'rule') rules.push(object);
      // `nft -j list` gives elements with their set; `nft -j monitor` and some scripts apart from it.
      else if (kind === 'element') {
        const set = tableOf(object).sets.get(textOf(object['name']));
        if (set !== undefined) {
          const more = elementsOf(object['elem']).map(readElement);
          tableOf(object).sets.set(set.name, { ...set, elements: [...set.elements, ...more] });
        }
      }
    }
  }
  for (const object of rules) {
    const expressions = object['expr'];
    const statements = Array.isArray(expressions) ? (expressions as readonly Json[]) : [];
    tableOf(object)
      .chains.get(textOf(object['chain']))
      ?.rules.push({
        statements: statements.map(readStatement),
        text: statements
          .map(printStatement)
          .filter((part) => part !== '')
          .join(' '),
        comment: typeof object['comment'] === 'string' ? object['comment'] : '',
      });
  }
  return [...tables.values()].filter(
    ({ family }) => family === 'ip' || family === 'ip6' || family === 'inet',
  );
}

/** What stands in JSON for a word or number; empty for anything else. */
function textOf(value: Json | undefined): string {
  return typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean'
    ? String(value)
    : '';
}

function fields(value: Json | undefined): Fields | undefined {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Fields) : undefined;
}

function elementsOf(value: Json | undefined): readonly Json[] {
  const set = fields(value)?.['set'];
  if (Array.isArray(set)) return set as readonly Json[];
  return Array.isArray(value) ? (value as readonly Json[]) : [];
}

function readSet(object: Fields): NftSet {
  const flags = object['flags'];
  const dynamic = Array.isArray(flags) && flags.includes('dynamic');
  return { name: textOf(object['name']), elements: elementsOf(object['elem']).map(readElement), dynamic };
}

function readElement(item: Json): NftElement {
  const pair = Array.isArray(item) ? (item as readonly Json[]) : undefined;
  const keyJson = pair === undefined ? item : (pair[0] ?? null);
  const wrapped = fields(fields(keyJson)?.['elem']);
  const key = wrapped?.['val'] ?? keyJson;
  const comment = typeof wrapped?.['comment'] === 'string' ? wrapped['comment'] : '';
  const target = pair?.[1];
  const verdict = target === undefined ? undefined : readVerdict(target);
  const value = target === undefined || verdict !== undefined ? undefined : keyParts(target);
  const expires = wrapped?.['expires'];
  const left = typeof expires === 'number' ? ` (${expires}s left)` : '';
  return {
    key: keyParts(key),
    ...(verdict === undefined ? {} : { verdict }),
    ...(value === undefined
      ? {}
      : {
          value: value.filter((part): part is Value => typeof part === 'bigint' || typeof part === 'string'),
        }),
    comment,
    text: `${printExpr(key)}${target === undefined ? '' : ` : ${verdict === undefined ? printExpr(target) : printStatement(target)}`}${left}`,
  };
}

function keyParts(key: Json): KeyPart[] {
  const concat = fields(key)?.['concat'];
  if (Array.isArray(concat)) return (concat as readonly Json[]).map(keyPart);
  return [keyPart(key)];
}

function keyPart(value: Json): KeyPart {
  if (typeof value === 'number') return BigInt(value);
  if (typeof value === 'string') return value === '*' ? anything : symbol(value);
  const object = fields(value);
  const prefix = fields(object?.['prefix']);
  if (prefix !== undefined) {
    const cidr = parseCIDR(`${textOf(prefix['addr'])}/${textOf(prefix['len'])}`);
    if (cidr === undefined) return textOf(prefix['addr']);
    const { first, last } = cidrRange(cidr);
    return { first: bytesValue(first), last: bytesValue(last) };
  }
  const range = object?.['range'];
  if (Array.isArray(range)) {
    const [first, last] = (range as readonly Json[]).map(keyPart);
    if (typeof first === 'bigint' && typeof last === 'bigint') return { first, last };
  }
  const elem = fields(object?.['elem']);
  return elem === undefined ? JSON.stringify(value) : keyPart(elem['val'] ?? null);
}

function bytesValue(bytes: Uint8Array): bigint {
  return BigInt(`0x${Buffer.from(bytes).toString('hex')}`);
}

/** Addresses, protocols and numbers by value; what is none of these stays text (interface names). */
function symbol(text: string): Value {
  if (text.includes('/')) {
    return text;
  }
  const ip = /^[0-9a-fA-F.:]+$/.test(text) && /[.:]/.test(text) ? canonicalIP(text) : undefined;
  if (ip !== undefined) return addressNumber(ip);
  if (Object.hasOwn(protocols, text)) return protocols[text as keyof typeof protocols];
  if (/^\d+$/.test(text)) return BigInt(text);
  if (/^0x[0-9a-f]+$/.test(text)) return BigInt(text);
  // `meta priority` as a traffic control handle, in hexadecimal; no address looks like it.
  const handle = /^([0-9a-f]{1,4}):([0-9a-f]{1,4})$/.exec(text);
  if (handle !== null) return (BigInt(`0x${handle[1]}`) << 16n) | BigInt(`0x${handle[2]}`);
  return text;
}

/** The value of a word beside a field whose values have names. */
function symbolOf(field: Expr, text: string): Value {
  const name = field.kind === 'field' ? field.name : '';
  const table: Readonly<Record<string, bigint>> | undefined =
    name === 'ct state'
      ? stateBits
      : name === 'ct status'
        ? statusBits
        : name.startsWith('fib ')
          ? addressTypes
          : name === 'meta nfproto'
            ? { ipv4: 2n, ipv6: 10n }
            : name === 'ct direction'
              ? { original: 0n, reply: 1n }
              : name === 'meta priority'
                ? { none: 0n, root: 0xffffffffn }
                : name === 'meta protocol'
                  ? { ip: 0x800n, ip6: 0x86ddn }
                  : name === 'tcp flags'
                    ? { fin: 1n, syn: 2n, rst: 4n, psh: 8n, ack: 16n }
                    : undefined;
  return table?.[text] ?? symbol(text);
}

const verdictWords = ['accept', 'drop', 'continue', 'return'] as const;

function readVerdict(value: Json): NftVerdict | undefined {
  const object = fields(value);
  if (object === undefined) return undefined;
  for (const word of verdictWords) if (word in object) return { kind: word };
  for (const word of ['jump', 'goto'] as const) {
    const target = fields(object[word])?.['target'];
    if (typeof target === 'string') return { kind: word, chain: target };
  }
  return 'queue' in object ? { kind: 'unknown', text: 'queue: a program decides' } : undefined;
}

function readStatement(json: Json): NftStatement {
  const unknown: NftStatement = { kind: 'unknown', text: printStatement(json) };
  const verdict = readVerdict(json);
  if (verdict !== undefined) return { kind: 'verdict', verdict };
  // Versions of nft that cannot say a map's update in JSON (1.0.6) print it as text.
  const update = typeof json === 'string' ? /^(?:add|update) @(\S+) \{/.exec(json) : null;
  if (update !== null) return { kind: 'remember', set: textOf(update[1]) };
  const [entry] = Object.entries(fields(json) ?? {});
  if (entry === undefined) return unknown;
  const [kind, body] = entry;
  const object = fields(body) ?? {};
  const optional = (name: string): Expr | undefined =>
    object[name] === undefined ? undefined : readExpr(object[name]);
  switch (kind) {
    case 'match':
      return readMatch(object) ?? unknown;
    case 'vmap':
      return { kind: 'vmap', key: readExpr(object['key'] ?? null), set: readSetRef(object['data'] ?? null) };
    case 'mangle': {
      const field = readExpr(object['key'] ?? null);
      if (field.kind !== 'field') return unknown;
      return { kind: 'set', field: field.name, value: readExpr(object['value'] ?? null) };
    }
    case 'dnat':
    case 'snat':
      return { kind, address: optional('addr'), port: optional('port') };
    case 'redirect':
      return { kind: 'redirect', port: optional('port') };
    case 'masquerade':
      return { kind: 'masquerade' };
    case 'reject': {
      const { type, expr } = object;
      return {
        kind: 'reject',
        with: type === 'tcp reset' ? type : typeof expr === 'string' ? expr : 'port-unreachable',
      };
    }
    case 'set':
    case 'map':
      return { kind: 'remember', set: textOf(object[kind]).replace(/^@/, '') };
    case 'notrack':
      return { kind: 'notrack' };
    case 'limit': {
      const question = `no more than ${textOf(object['rate'])} in a ${textOf(object['per'])}`;
      return { kind: 'maybe', question, usual: object['inv'] !== true };
    }
    case 'counter':
    case 'log':
    case 'comment':
      return { kind: 'nothing' };
    default:
      return unknown;
  }
}

const operators = ['==', '!=', '<', '<=', '>', '>=', 'in'] as const;

function readMatch(object: Fields): NftStatement | undefined {
  const operator = operators.find((one) => one === object['op']);
  if (operator === undefined) return undefined;
  const left = readExpr(object['left'] ?? null);
  const right = object['right'] ?? null;
  if (typeof right === 'string' && right.startsWith('@')) {
    return { kind: 'match', left, operator, right: { name: right.slice(1) } };
  }
  const words = Array.isArray(right) ? (right as readonly Json[]) : undefined;
  const bits = left.kind === 'field' && (left.name === 'ct state' || left.name === 'ct status');
  if (words !== undefined || (bits && typeof right === 'string')) {
    let value = 0n;
    for (const word of words ?? [right]) {
      const bit =
        typeof word === 'string' ? symbolOf(left, word) : typeof word === 'number' ? BigInt(word) : undefined;
      if (typeof bit !== 'bigint') return undefined;
      value |= bit;
    }
    return { kind: 'match', left, operator, right: { kind: 'value', value } };
  }
  if (typeof right === 'string') {
    return { kind: 'match', left, operator, right: { kind: 'value', value: symbolOf(left, right) } };
  }
  const set = fields(right)?.['set'];
  if (Array.isArray(set)) {
    const elements = (set as readonly Json[]).map((item): NftElement => {
      const word = typeof item === 'string' ? symbolOf(left, item) : undefined;
      return word === undefined ? readElement(item) : { key: [word], comment: '', text: textOf(item) };
    });
    // A packet has one state; `ct state { new, established }` asks whether it is among these.
    return { kind: 'match', left, operator, right: { inline: { name: '', elements, dynamic: false } } };
  }
  const expr = readExpr(right);
  return { kind: 'match', left, operator, right: expr };
}

function readSetRef(data: Json): SetRef {
  if (typeof data === 'string') return { name: data.replace(/^@/, '') };
  return { inline: { name: '', elements: elementsOf(data).map(readElement), dynamic: false } };
}

function readExpr(json: Json): Expr {
  if (typeof json === 'number') return { kind: 'value', value: BigInt(json) };
  if (typeof json === 'string') return { kind: 'value', value: symbol(json) };
  const unknown: Expr = { kind: 'unknown', text: printExpr(json) };
  if (Array.isArray(json)) return unknown;
  const [entry] = Object.entries(fields(json) ?? {});
  if (entry === undefined) return unknown;
  const [kind, body] = entry;
  const object = fields(body) ?? {};
  switch (kind) {
    case 'payload':
      return typeof object['field'] === 'string'
        ? { kind: 'field', name: `${textOf(object['protocol'])} ${object['field']}` }
        : unknown;
    case 'meta': {
      const key = textOf(object['key']);
      return { kind: 'field', name: key === 'iifname' || key === 'oifname' ? key : `meta ${key}` };
    }
    case 'ct': {
      const direction = typeof object['dir'] === 'string' ? `${object['dir']} ` : '';
      return { kind: 'field', name: `ct ${direction}${textOf(object['key'])}` };
    }
    case 'fib': {
      const flags = object['flags'];
      const list = Array.isArray(flags) ? flags.map(textOf).join(' . ') : textOf(flags);
      return { kind: 'field', name: `fib ${list} ${textOf(object['result'])}` };
    }
    case 'numgen': {
      const [modulus, offset] = [Number(object['mod']), Number(object['offset'] ?? 0)];
      return modulus === 1 ? { kind: 'value', value: BigInt(offset) } : { kind: 'random', modulus, offset };
    }
    case 'concat':
      return Array.isArray(body)
        ? { kind: 'concat', parts: (body as readonly Json[]).map(readExpr) }
        : unknown;
    case 'map':
      return { kind: 'map', key: readExpr(object['key'] ?? null), set: readSetRef(object['data'] ?? null) };
    case 'prefix':
    case 'range':
      return { kind: 'value', value: keyPart(json) };
    case 'elem':
      return readExpr(object['val'] ?? null);
    case '&':
    case '|':
    case '^': {
      if (!Array.isArray(body)) return unknown;
      const parts = (body as readonly Json[]).map(readExpr);
      return parts.reduce((left, right): Expr => ({ kind: 'bits', operator: kind, left, right }));
    }
    default:
      return unknown;
  }
}
