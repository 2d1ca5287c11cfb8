/** The text of a flag as a value and back, in the syntax of Go's strconv and pflag. Bad text throws a sentence. */
import { addressFamily, isPort, splitHostPort } from './address.ts';
import { formatDuration, parseDuration } from './duration.ts';
import type { FlagKind, FlagTypes } from './flag-table.ts';

const booleans: Readonly<Record<string, boolean>> = {
  1: true,
  t: true,
  T: true,
  true: true,
  TRUE: true,
  True: true,
  0: false,
  f: false,
  F: false,
  false: false,
  FALSE: false,
  False: false,
};

const quantity = /^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+|[KMGTPE]i|[numkMGTPE])?$/;

type Parsers = { [K in FlagKind]: (text: string) => FlagTypes[K] };
type Printers = { [K in FlagKind]: (value: FlagTypes[K]) => string };

export const parsers: Parsers = {
  bool: parseBool,
  int32: parseInt32,
  float: parseFloat64,
  string: (text) => text,
  duration: (text) => {
    const value = parseDuration(text);
    if (value === undefined) throw new Error(`"${text}" is not a duration such as 30s, 1m30s or 250ms`);
    return value;
  },
  strings: (text) => (text === '' ? [] : text.split(',')),
  ip: (text) => {
    if (text !== '' && addressFamily(text) === undefined) throw new Error(`"${text}" is not an IP address`);
    return text;
  },
  ipPort: parseIpPort,
  gates: parseGates,
  vmodule: parseVModule,
  quantity: (text) => {
    if (!quantity.test(text)) throw new Error(`"${text}" is not a quantity such as 512, 64Ki or 1M`);
    return text;
  },
  version: (text) => {
    if (text === 'raw' || text.startsWith('v')) return text;
    return String(parseBool(text));
  },
  counterLevel: (text) => {
    if (text !== 'off' && text !== 'services' && text !== 'endpoints')
      throw new Error(`"${text}" is none of off, services, endpoints`);
    return text;
  },
};

export const printers: Printers = {
  bool: String,
  int32: String,
  float: String,
  string: (value) => value,
  duration: formatDuration,
  strings: (value) => `[${value.join(',')}]`,
  ip: (value) => value,
  ipPort: (value) => value,
  gates: (value) =>
    Object.keys(value)
      .sort()
      .map((name) => `${name}=${value[name]}`)
      .join(','),
  vmodule: (value) => value.map((rule) => `${rule.filePattern}=${rule.verbosity}`).join(','),
  quantity: (value) => value,
  version: (value) => value,
  counterLevel: (value) => value,
};

function parseBool(text: string): boolean {
  const value = Object.hasOwn(booleans, text) ? booleans[text] : undefined;
  if (value === undefined) throw new Error(`"${text}" is neither true nor false`);
  return value;
}

/** Go's base 0: 10, 0x1f, 0b11, 0o17, 017, 1_000. */
function parseInt32(text: string): number {
  const match = /^([+-]?)(0[xX][0-9a-fA-F_]+|0[bB][01_]+|0[oO]?[0-7_]+|0|[1-9][0-9_]*)$/.exec(text);
  const digits = match?.[2]?.replaceAll('_', '').replace(/^0(?=[0-7])/, '0o');
  const value = digits === undefined ? NaN : Number(digits) * (match?.[1] === '-' ? -1 : 1);
  if (!Number.isInteger(value)) throw new Error(`"${text}" is not a whole number`);
  if (value < -(2 ** 31) || value >= 2 ** 31) throw new Error(`"${text}" is out of range for 32 bits`);
  return value === 0 ? 0 : value;
}

function parseFloat64(text: string): number {
  if (!/^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$/.test(text)) throw new Error(`"${text}" is not a number`);
  return Number(text);
}

function parseIpPort(text: string): string {
  if (text === '' || addressFamily(text) !== undefined) return text;
  const parts = splitHostPort(text);
  if (parts === undefined) throw new Error(`"${text}" is neither an IP address nor IP:port`);
  if (addressFamily(parts.host) === undefined) throw new Error(`"${parts.host}" is not an IP address`);
  if (!isPort(parts.port) && !/^0+$/.test(parts.port)) throw new Error(`"${parts.port}" is not a port`);
  return text;
}

function parseGates(text: string): Record<string, boolean> {
  const gates: Record<string, boolean> = {};
  for (const pair of text.split(',')) {
    if (pair.trim() === '') continue;
    const [name = '', value, ...more] = pair.split('=');
    if (value === undefined)
      throw new Error(`missing bool value for ${name.trim()}: write ${name.trim()}=true`);
    const parsed =
      more.length === 0 && Object.hasOwn(booleans, value.trim()) ? booleans[value.trim()] : undefined;
    if (parsed === undefined) throw new Error(`invalid value of ${pair.trim()}: must be true or false`);
    gates[name.trim()] = parsed;
  }
  return gates;
}

function parseVModule(text: string): { filePattern: string; verbosity: number }[] {
  return text
    .split(',')
    .filter((rule) => rule.trim() !== '')
    .map((rule) => {
      const [filePattern = '', level, ...more] = rule.trim().split('=');
      if (filePattern === '' || level === undefined || more.length > 0 || !/^\d+$/.test(level)) {
        throw new Error(`"${rule}" is not of the form pattern=N`);
      }
      return { filePattern, verbosity: Number(level) };
    });
}
