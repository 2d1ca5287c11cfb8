/** A document for iptables-restore in the making: sections of tables, committed in the order in which they are begun. */

/**
 * base: fixed chains, refusals, jumps; chains: chains that nothing refers to yet; switch: what makes new rules take
 * effect; stale: removal of chains that nothing refers to any more.
 */
export type DocumentKind = 'base' | 'chains' | 'switch' | 'stale';

export interface RestoreDocument {
  readonly kind: DocumentKind;
  /** Streamed where it may be large. */
  readonly text: string | Iterable<string>;
  /** Rules written, by table. */
  readonly filter: number;
  readonly nat: number;
  /** What it is for, in a few words. */
  readonly what: string;
}

/** Lines of one table's section; chain lines come before rule lines. */
export class Section {
  readonly table: 'filter' | 'nat';
  chains = '';
  rules = '';
  /** Rule lines added. */
  count = 0;
  lines = 0;

  constructor(table: 'filter' | 'nat') {
    this.table = table;
  }

  get empty(): boolean {
    return this.lines === 0;
  }

  /** Declares a chain: makes it, or empties it where it exists. */
  chain(name: string): void {
    this.chains += `:${name} - [0:0]\n`;
    this.lines++;
  }

  append(chain: string, args: string): void {
    this.rules += `-A ${chain} ${args}\n`;
    this.count++;
    this.lines++;
  }

  /** At the top: in the dispatch chains that is before the node port tail, and costs no counting of rules. */
  insert(chain: string, args: string): void {
    this.rules += `-I ${chain} ${args}\n`;
    this.count++;
    this.lines++;
  }

  delete(chain: string, args: string): void {
    this.rules += `-D ${chain} ${args}\n`;
    this.lines++;
  }

  deleteChain(name: string): void {
    this.rules += `-X ${name}\n`;
    this.lines++;
  }

  /** Rule lines made elsewhere, each with its newline. */
  text(rules: string, count: number): void {
    this.rules += rules;
    this.count += count;
    this.lines += count;
  }

  print(): string {
    return this.empty ? '' : `*${this.table}\n${this.chains}${this.rules}COMMIT\n`;
  }
}

export function documentOf(kind: DocumentKind, what: string, sections: readonly Section[]): RestoreDocument {
  let text = '';
  let filter = 0;
  let nat = 0;
  for (const section of sections) {
    text += section.print();
    if (section.table === 'filter') filter += section.count;
    else nat += section.count;
  }
  return { kind, text, filter, nat, what };
}
