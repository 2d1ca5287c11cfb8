/**
 * Follows a packet through the nat table by the kernel's own counters: two listings by `iptables-save -c`, one before and one
 * after, tell which rules counted it. Pure.
 */

export interface CountedRule {
  readonly chain: string;
  /** Packets. */
  readonly packets: number;
  /** The rule without counters, chain and comment, e.g. `-d 10.96.0.10/32 -j KUBE-SVC-…`. */
  readonly text: string;
  /** What `--comment` says; empty if nothing. */
  readonly comment: string;
  /** Where `-j` leads. */
  readonly target: string;
}

/** Chain → rules in order, of one table's listing. */
export function parseCounters(listing: string): Map<string, CountedRule[]> {
  const chains = new Map<string, CountedRule[]>();
  for (const line of listing.split('\n')) {
    const match = /^\[(\d+):\d+\] -A (\S+) ?(.*)$/.exec(line);
    if (match === null) continue;
    const [, packets = '0', chain = '', rule = ''] = match;
    const comment = /-m comment --comment ("(?:[^"\\]|\\.)*"|\S+) ?/.exec(rule);
    const parsed = {
      chain,
      packets: Number(packets),
      text: comment === null ? rule : rule.replace(comment[0], ''),
      comment: comment?.[1]?.replace(/^"(.*)"$/, '$1') ?? '',
      target: /-j (\S+)/.exec(rule)?.[1] ?? '',
    };
    const rules = chains.get(chain);
    if (rules === undefined) chains.set(chain, [parsed]);
    else rules.push(parsed);
  }
  return chains;
}

export interface Hop extends CountedRule {
  /** How deep in jumps: 0 in the built-in chain. */
  readonly depth: number;
}

/**
 * The rules that counted something between the two listings, in the order a packet met them, from a built-in chain on to
 * where its destination is rewritten.
 */
export function packetPath(before: string, after: string, from: string): Hop[] {
  const old = new Map<string, number>();
  for (const rules of parseCounters(before).values()) {
    for (const rule of rules) old.set(`${rule.chain} ${rule.text} ${rule.comment}`, rule.packets);
  }
  const chains = parseCounters(after);
  const hops: Hop[] = [];
  /** Whether the packet's way through the table ends here. */
  const follow = (chain: string, depth: number): boolean => {
    for (const rule of chains.get(chain) ?? []) {
      const packets = rule.packets - (old.get(`${rule.chain} ${rule.text} ${rule.comment}`) ?? 0);
      if (packets <= 0) continue;
      hops.push({ ...rule, packets, depth });
      if (rule.target === 'DNAT') return true;
      if (depth < 16 && chains.has(rule.target) && follow(rule.target, depth + 1)) return true;
    }
    return false;
  };
  follow(from, 0);
  return hops;
}

export interface Flow {
  /** e.g. `TIME_WAIT` */
  readonly state: string;
  /** `[source, destination]`, each `address:port`, as the client sent and as the reply comes. */
  readonly original: readonly [string, string];
  readonly reply: readonly [string, string];
}

/** Reads a line of `conntrack -L`; undefined if it is something else. */
export function parseFlow(line: string): Flow | undefined {
  const found = [...line.matchAll(/src=(\S+) dst=(\S+) sport=(\d+) dport=(\d+)/g)];
  const [first, second] = found;
  if (first === undefined || second === undefined) return undefined;
  const pair = (match: RegExpExecArray): [string, string] => [
    `${match[1]}:${match[3]}`,
    `${match[2]}:${match[4]}`,
  ];
  return {
    state: /^tcp\s+\d+\s+\d+\s+(\S+)/.exec(line)?.[1] ?? '',
    original: pair(first),
    reply: pair(second),
  };
}
