/** nft's JSON back in nft's syntax: what people know rules by. */
type Json = string | number | boolean | null | readonly Json[] | { readonly [name: string]: Json };
type Fields = { readonly [name: string]: Json };

function fields(value: Json | undefined): Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Fields) : {};
}

function list(value: Json | undefined): readonly Json[] {
  return Array.isArray(value) ? (value as readonly Json[]) : [];
}

export function printExpr(json: Json): string {
  if (typeof json !== 'object' || json === null) return String(json);
  if (Array.isArray(json)) return list(json).map(printExpr).join(',');
  const [entry] = Object.entries(fields(json));
  if (entry === undefined) return '';
  const [kind, body] = entry;
  const object = fields(body);
  const text = (name: string): string => printExpr(object[name] ?? '');
  switch (kind) {
    case 'payload':
      return object['field'] === undefined
        ? `@${text('base')},${text('offset')},${text('len')}`
        : `${text('protocol')} ${text('field')}`;
    case 'meta':
      return /^[io]if(name)?$/.test(text('key')) ? text('key') : `meta ${text('key')}`;
    case 'ct':
      return ['ct', object['dir'] === undefined ? '' : text('dir'), text('key')].filter(Boolean).join(' ');
    case 'fib': {
      const flags = Array.isArray(object['flags'])
        ? list(object['flags']).map(printExpr).join(' . ')
        : text('flags');
      return `fib ${flags} ${text('result')}`;
    }
    case 'numgen':
      return `numgen ${text('mode')} mod ${text('mod')}${Number(object['offset'] ?? 0) === 0 ? '' : ` offset ${text('offset')}`}`;
    case 'concat':
      return list(body).map(printExpr).join(' . ');
    case 'prefix':
      return `${text('addr')}/${text('len')}`;
    case 'range':
      return list(body).map(printExpr).join('-');
    case 'map':
      return `${text('key')} map ${printSet(object['data'] ?? null)}`;
    case 'elem':
      return text('val');
    case 'set':
      return printSet(json);
    case '&':
    case '|':
    case '^':
      return list(body).map(printExpr).join(` ${kind} `);
    default:
      return `${kind} ${JSON.stringify(body)}`;
  }
}

function printSet(data: Json): string {
  if (typeof data === 'string') return data;
  const items = list(fields(data)['set']);
  const shown = items.slice(0, 8).map((item) => {
    if (!Array.isArray(item)) return printExpr(item);
    const [key = null, target = null] = item as readonly Json[];
    return `${printExpr(key)} : ${printStatement(target)}`;
  });
  if (items.length > shown.length) shown.push(`… ${items.length - shown.length} more`);
  return `{ ${shown.join(', ')} }`;
}

export function printStatement(json: Json): string {
  const [entry] = Object.entries(fields(json));
  if (entry === undefined) return printExpr(json);
  const [kind, body] = entry;
  const object = fields(body);
  const text = (name: string): string => printExpr(object[name] ?? '');
  switch (kind) {
    case 'match': {
      const operator = object['op'] === '==' || object['op'] === 'in' ? '' : `${text('op')} `;
      return `${text('left')} ${operator}${text('right')}`;
    }
    case 'vmap':
      return `${text('key')} vmap ${printSet(object['data'] ?? null)}`;
    case 'mangle':
      return `${text('key')} set ${text('value')}`;
    case 'dnat':
    case 'snat': {
      const address = object['addr'] === undefined ? '' : ` to ${text('addr')}`;
      const port = object['port'] === undefined ? '' : `:${text('port')}`;
      return `${kind}${address}${port}`;
    }
    case 'jump':
    case 'goto':
      return `${kind} ${text('target')}`;
    case 'reject':
      return object['expr'] === undefined ? 'reject' : `reject with ${text('type')} ${text('expr')}`;
    case 'set':
      return `${text('op')} ${text('set')} { ${text('elem')} }`;
    case 'counter':
      return '';
    case 'log':
    case 'masquerade':
    case 'accept':
    case 'drop':
    case 'return':
    case 'continue':
    case 'notrack':
      return kind;
    default:
      return printExpr(json);
  }
}
