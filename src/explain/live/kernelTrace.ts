/** From the kernel's messages about traced packets to the way of each packet. Pure. */
import type { Verdict } from '../../linux/netlink/nftables/expressions.ts';
import type { LoggedPacket } from '../../linux/netlink/nflog.ts';
import type { TraceEvent } from '../../linux/netlink/nftables/trace.ts';
import type { PacketHeader } from '../../linux/packet-header.ts';
import type { SavedTable } from '../../linux/iptables/save.ts';
import type { HookName } from '../flow.ts';
import { tablePriority } from '../iptables/evaluate.ts';
import { parseRule } from '../iptables/parse.ts';
import { againChains, markChain, markingPrefix } from './marking.ts';
import { ofSave, type RuleBook } from './ruleBook.ts';

/** `reject` is a drop with an answer; the kernel itself tells both as drops. */
export type KernelVerdict = Verdict['code'] | 'reject';

/** A rule that the packet met and that matched, or the policy of a base chain. */
export interface KernelStep {
  readonly chain: string;
  /** In the tool's syntax; empty for a policy. */
  readonly rule: string;
  readonly comment: string;
  readonly verdict: KernelVerdict;
  /** Of a jump or goto. */
  readonly to: string;
}

/** A packet's way through one base chain and those it leads to. */
export interface Visit {
  readonly hook: HookName;
  readonly priority: number;
  readonly type: 'filter' | 'nat' | 'route';
  /** As predictions name it: `nat PREROUTING`, `ip kube-proxy nat-prerouting`. */
  readonly base: string;
  /** The packet as it came in. */
  readonly packet: PacketHeader;
  readonly steps: KernelStep[];
}

/** Everything the kernel told of one packet. */
export interface KernelTrace {
  /** The packet before any rule. */
  readonly first: PacketHeader;
  /** Number of the interface it came in by; 0: it started here. */
  readonly inInterface: number;
  readonly visits: readonly Visit[];
  /** The packet behind all rules of a hook, for each hook that let it through. */
  readonly passed: readonly { readonly hook: HookName; readonly packet: PacketHeader }[];
}

interface Growing {
  readonly first: PacketHeader;
  readonly inInterface: number;
  readonly visits: Visit[];
  readonly passed: { hook: HookName; packet: PacketHeader }[];
  current: Visit | undefined;
}

const loggedHooks: readonly HookName[] = ['prerouting', 'input', 'forward', 'output', 'postrouting'];

/** Puts messages of many packets in order. */
export class TraceCollector {
  readonly #book: RuleBook;
  readonly #own: string;
  readonly #byId = new Map<number, Growing>();
  readonly #all: Growing[] = [];
  /** By the sender, which rules of legacy iptables change last of all. */
  readonly #bySender = new Map<string, Growing>();
  /** Log messages and traces come by two doors: what came early waits here. */
  readonly #logged: LoggedPacket[] = [];

  /** @param own name of the table that marks the packets */
  constructor(book: RuleBook, own: string) {
    this.#book = book;
    this.#own = own;
  }

  get count(): number {
    return this.#all.length;
  }

  trace(event: TraceEvent): void {
    if (event.table.name.startsWith(markingPrefix)) {
      if (event.table.name === this.#own) this.#ownEvent(event);
      return;
    }
    const growing = this.#byId.get(event.id) ?? this.#comesBack(event);
    if (growing === undefined) return;
    const { table, chain, packet } = event;
    if (packet !== undefined) {
      const place = this.#book.base(table, chain);
      if (place === undefined) {
        growing.current = undefined;
        return;
      }
      const family = this.#book.isIptables(table) ? '' : `${table.family} `;
      growing.current = { ...place, base: `${family}${table.name} ${chain}`, packet, steps: [] };
      growing.visits.push(growing.current);
    }
    const step = this.#step(event);
    if (step !== undefined) growing.current?.steps.push(step);
  }

  log(logged: LoggedPacket): void {
    this.#logged.push(logged);
  }

  /** The packets in the order they came. Call it once, when all messages are in. */
  finish(): KernelTrace[] {
    for (const logged of this.#logged) this.#logEvent(logged);
    const withLog = this.#logged.length > 0;
    return this.#all.map(({ first, inInterface, visits, passed }) => ({
      first,
      inInterface,
      passed,
      visits: withLog ? sortVisits(visits, hookOrder({ inInterface })) : visits,
    }));
  }

  #ownEvent(event: TraceEvent): void {
    const { packet, chain, id } = event;
    if (packet === undefined) return;
    if (chain === markChain) {
      // Where a packet comes by again, only the end of the chain is told.
      if (event.type !== 'rule') return;
      const growing: Growing = {
        first: packet,
        inInterface: event.inInterface ?? 0,
        visits: [],
        passed: [],
        current: undefined,
      };
      this.#byId.set(id, growing);
      this.#bySender.set(senderOf(packet), growing);
      this.#all.push(growing);
      return;
    }
    if (chain === againChains.forward || chain === againChains.input) {
      const growing = this.#bySender.get(senderOf(packet));
      // Where it has come further, this is a later packet of the sender, which is not asked about.
      const isSame =
        growing?.passed.length === 0 && growing.visits.every((visit) => visit.hook === 'prerouting');
      if (growing !== undefined && isSame && !this.#byId.has(id)) this.#byId.set(id, growing);
      return;
    }
    const hook = loggedHooks.find((one) => one === chain);
    if (hook === undefined) return;
    const growing = this.#byId.get(id) ?? this.#comesBack(event);
    if (growing === undefined) return;
    growing.passed.push({ hook, packet });
    // Its source may be another one from here on.
    if (hook === 'postrouting') this.#bySender.set(senderOf(packet), growing);
  }

  /**
   * What this machine sends to itself comes in again over lo, with another number: numbers are made of the interface,
   * too (net/netfilter/nf_tables_trace.c, trace_fill_id).
   */
  #comesBack({ id, packet }: TraceEvent): Growing | undefined {
    const growing = packet === undefined ? undefined : this.#bySender.get(senderOf(packet));
    const left = growing?.inInterface === 0 && growing.passed.some(({ hook }) => hook === 'postrouting');
    if (growing === undefined || !left) return undefined;
    this.#byId.set(id, growing);
    return growing;
  }

  #step(event: TraceEvent): KernelStep | undefined {
    const { table, chain, handle, verdict } = event;
    if (event.type === 'policy') {
      if (verdict.code === 'accept') return undefined;
      return { chain, rule: '', comment: '', verdict: verdict.code, to: '' };
    }
    // The end of a chain is no rule.
    if (handle === undefined) return undefined;
    const rule = this.#book.rule(table, chain, handle);
    const text = rule?.text ?? `rule with handle ${handle}, which was made after the rules were read`;
    const rejects = verdict.code === 'drop' && /(^|\s)(-j REJECT|reject)\b/.test(text);
    return {
      chain,
      rule: text,
      comment: rule?.comment ?? '',
      verdict: rejects ? 'reject' : verdict.code,
      to: verdict.chain ?? '',
    };
  }

  /** `TRACE: nat:KUBE-SERVICES:rule:3 `; the number counts from 1, a policy or the end of a chain is one further. */
  #logEvent({ prefix, hook: number, packet }: LoggedPacket): void {
    const match = /^TRACE: ([^:]+):([^:]+):(rule|return|policy):(\d+)/.exec(prefix);
    const growing = packet === undefined ? undefined : this.#bySender.get(senderOf(packet));
    const hook = loggedHooks[number];
    if (match === null || growing === undefined || packet === undefined || hook === undefined) return;
    const [, tableName = '', chain = '', kind = '', line = ''] = match;
    const table = this.#book.legacy.find((one) => one.table === tableName);
    const base = `${tableName} ${hook.toUpperCase()}`;
    let visit = growing.visits.find((one) => one.base === base && one.hook === hook);
    if (visit === undefined) {
      visit = {
        hook,
        priority: tablePriority(tableName, hook.toUpperCase()),
        type: tableName === 'nat' ? 'nat' : 'filter',
        base,
        packet,
        steps: [],
      };
      growing.visits.push(visit);
    }
    const step = loggedStep(table, chain, kind, Number(line));
    if (step !== undefined) visit.steps.push(step);
  }
}

function loggedStep(
  table: SavedTable | undefined,
  chain: string,
  kind: string,
  line: number,
): KernelStep | undefined {
  const saved = table?.chains.get(chain);
  if (kind === 'policy') {
    return saved?.policy === 'DROP' ? { chain, rule: '', comment: '', verdict: 'drop', to: '' } : undefined;
  }
  const args = saved?.rules[line - 1];
  // The end of a chain is no rule.
  if (args === undefined && kind === 'return') return undefined;
  if (args === undefined) {
    const rule = `rule ${line}, which was made after the rules were read`;
    return { chain, rule, comment: '', verdict: 'continue', to: '' };
  }
  const { text, comment } = ofSave(args);
  const { target, goto } = parseRule(args);
  const isChain = table?.chains.has(target) === true;
  return {
    chain,
    rule: text,
    comment,
    verdict: isChain ? (goto ? 'goto' : 'jump') : targetVerdict(target),
    to: isChain ? target : '',
  };
}

function targetVerdict(target: string): KernelVerdict {
  switch (target) {
    case 'ACCEPT':
    case 'DNAT':
    case 'SNAT':
    case 'MASQUERADE':
    case 'REDIRECT':
      return 'accept';
    case 'DROP':
      return 'drop';
    case 'REJECT':
      return 'reject';
    case 'RETURN':
      return 'return';
    case 'NFQUEUE':
      return 'queue';
    default:
      return 'continue';
  }
}

export function senderOf({ protocol, source, sourcePort }: PacketHeader): string {
  return `${protocol} ${source} ${sourcePort}`;
}

/** The order in which a packet comes by the hooks: what this machine sends to itself comes in again. */
export function hookOrder({ inInterface }: Pick<KernelTrace, 'inInterface'>): readonly HookName[] {
  return inInterface === 0
    ? ['output', 'postrouting', 'prerouting', 'input', 'forward']
    : ['prerouting', 'input', 'forward', 'output', 'postrouting'];
}

/** In the kernel's order, where two sources told of the visits. */
function sortVisits(visits: readonly Visit[], order: readonly HookName[]): Visit[] {
  return visits.toSorted((a, b) => order.indexOf(a.hook) - order.indexOf(b.hook) || a.priority - b.priority);
}
