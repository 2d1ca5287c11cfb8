/** The ports that listeners of userspace mode take: `portRange`. */

export interface PortRange {
  readonly first: number;
  readonly last: number;
}

/** `begin-end`, `begin+offset` or one port; undefined = the kernel chooses (empty, `0`, `0-0`). */
export function parsePortRange(text: string): PortRange | undefined | 'invalid' {
  const trimmed = text.trim();
  if (trimmed === '') return undefined;
  const match = /^(\d{1,5})(?:([-+])(\d{1,5}))?$/.exec(trimmed);
  if (match === null) return 'invalid';
  const first = Number(match[1]);
  const second = match[3] === undefined ? first : Number(match[3]);
  const last = match[2] === '+' ? Math.min(first + second, 65535) : second;
  if (first === 0 && last === 0) return undefined;
  return first === 0 || last > 65535 || first > last ? 'invalid' : { first, last };
}
