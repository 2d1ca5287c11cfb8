/** One rule of a chain. It prints itself as iptables-restore reads it. */
export interface Rule {
  readonly chain: string;
  /** Everything after `-A CHAIN `: matches and target. */
  readonly args: string;
}

/** The line that appends the rule to its chain. */
export function printRule(rule: Rule): string {
  return `-A ${rule.chain} ${rule.args}`;
}

/** The line that makes an empty chain, or empties it. */
export function printChain(chain: string): string {
  return `:${chain} - [0:0]`;
}

/** A comment in double quotes: restore input needs them where the text has spaces. */
export function comment(text: string): string {
  return `-m comment --comment "${text}"`;
}
