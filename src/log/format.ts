/** One log entry as one line: klog's text format, or the JSON of Kubernetes' component-base. Pure. */

export type Severity = 'info' | 'warning' | 'error';

export interface Entry {
  readonly severity: Severity;
  /** Milliseconds since the epoch, with fractions. */
  readonly time: number;
  /** What klog's `file:line` says: here the component that speaks. */
  readonly caller: string;
  readonly level: number;
  readonly message: string;
  /** Later ones win over earlier ones of the same key. */
  readonly fields: Readonly<Record<string, unknown>>;
}

export type Formatter = (entry: Entry) => string;

const letters: Readonly<Record<Severity, string>> = { info: 'I', warning: 'W', error: 'E' };
const pid = String(process.pid).padStart(7);

/** `I0102 03:04:05.678901    1234 caller] "message" key="value"`, in local time. A line break in a value stays escaped. */
export function formatText(entry: Entry): string {
  const { fields } = entry;
  let line = `${letters[entry.severity]}${textTime(entry.time)} ${pid} ${entry.caller}] ${quote(entry.message)}`;
  if ('err' in fields) line += ` err=${textValue(errorText(fields['err']))}`;
  for (const key in fields) {
    if (key !== 'err') line += ` ${key}=${textValue(fields[key])}`;
  }
  return `${line}\n`;
}

/** `{"ts":…,"caller":…,"msg":…,"v":0,…}`; an error has no `v`, a warning says so in `severity`. */
export function formatJSON(entry: Entry): string {
  const { severity, fields } = entry;
  const line: Record<string, unknown> = {
    ts: Math.round(entry.time * 1000) / 1000,
    caller: entry.caller,
    msg: entry.message,
  };
  if (severity === 'warning') line['severity'] = 'warning';
  if (severity === 'error') line['err'] = 'err' in fields ? errorText(fields['err']) : undefined;
  else line['v'] = entry.level;
  for (const key in fields) {
    if (!Object.hasOwn(line, key))
      line[key] = key === 'err' ? errorText(fields[key]) : jsonValue(fields[key]);
  }
  return `${stringify(line)}\n`;
}

/** An error with its causes, as far as the message does not name them already: `cannot load x: ENOENT`. */
export function errorText(error: unknown, seen: ReadonlySet<unknown> = new Set()): string {
  if (!(error instanceof Error)) return typeof error === 'string' ? error : stringify(error);
  // Causes may go in a circle.
  const inner = new Set(seen).add(error);
  let text = error.message || error.name;
  if (error instanceof AggregateError && error.errors.length > 0) {
    const parts = error.errors.filter((part) => !inner.has(part));
    text += ` [${parts.map((part) => errorText(part, inner)).join(', ')}]`;
  }
  if (error.cause !== undefined && !inner.has(error.cause)) {
    const cause = errorText(error.cause, inner);
    if (!text.includes(cause)) text += `: ${cause}`;
  }
  return text;
}

function textTime(time: number): string {
  const micros = Math.round(time * 1000);
  const date = new Date(Math.floor(micros / 1000));
  return (
    two(date.getMonth() + 1) +
    `${two(date.getDate())} ${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}.` +
    String(micros % 1e6).padStart(6, '0')
  );
}

function textValue(value: unknown): string {
  switch (typeof value) {
    case 'string':
      return quote(value);
    case 'number':
    case 'boolean':
    case 'bigint':
      return String(value);
    case 'undefined':
      return '<nil>';
    default:
      if (value === null) return '<nil>';
      if (value instanceof Error) return quote(errorText(value));
      return stringify(value);
  }
}

/** What JSON has no form for, in one that can be read. */
function jsonValue(value: unknown): unknown {
  if (typeof value === 'bigint') return String(value);
  if (value instanceof Error) return errorText(value);
  if (value instanceof Set) return [...value];
  if (!(value instanceof Map)) return value;
  const entries = [...value];
  return entries.every(([key]) => typeof key === 'string') ? Object.fromEntries(entries) : entries;
}

function stringify(value: unknown): string {
  try {
    return JSON.stringify(value, (_, item: unknown) => jsonValue(item)) ?? 'null';
  } catch (error) {
    // A cycle, or a toJSON that throws: what is logged must never stop the program.
    return JSON.stringify(`unprintable: ${error instanceof Error ? error.message : typeof error}`);
  }
}

function quote(text: string): string {
  return JSON.stringify(text);
}

function two(value: number): string {
  return value < 10 ? `0${value}` : String(value);
}
