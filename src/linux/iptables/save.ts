/**
 * The text of iptables-save as values, and back: tables, chains, rules. Rules stay text (`-s 10.0.0.1/32 -j DROP`);
 * canonical.ts compares them.
 */

export interface SavedChain {
  readonly name: string;
  /** `ACCEPT`, `DROP` for a built-in chain; `-` for all others. */
  readonly policy: string;
  /** Arguments of each rule after `-A CHAIN `, in order. */
  readonly rules: string[];
}

export interface SavedTable {
  readonly table: string;
  readonly chains: Map<string, SavedChain>;
}

/** Reads iptables-save output. Comments, counters and lines of other forms are passed over. */
export function parseSave(text: string): SavedTable[] {
  const reader = saveReader();
  for (const line of text.split('\n')) reader.line(line);
  return reader.tables;
}

/** The same line by line, for dumps that nobody wants to hold as one string. */
export function saveReader(): { readonly tables: SavedTable[]; line(line: string): void } {
  const tables: SavedTable[] = [];
  let current: SavedTable | undefined;
  return {
    tables,
    line(line) {
      const event = parseLine(line);
      if (event === undefined) return;
      if (event.kind === 'table') {
        current = { table: event.table, chains: new Map() };
        tables.push(current);
      } else if (event.kind === 'chain') {
        current?.chains.set(event.chain, { name: event.chain, policy: event.policy, rules: [] });
      } else {
        current?.chains.get(event.chain)?.rules.push(event.args);
      }
    },
  };
}

export type SaveLine =
  | { readonly kind: 'table'; readonly table: string }
  | { readonly kind: 'chain'; readonly chain: string; readonly policy: string }
  | { readonly kind: 'rule'; readonly chain: string; readonly args: string };

/** One line of iptables-save, or undefined if it says nothing (comment, COMMIT, empty). */
export function parseLine(line: string): SaveLine | undefined {
  switch (line.charCodeAt(0)) {
    case 42: // *
      return { kind: 'table', table: line.slice(1).trimEnd() };
    case 58: {
      // :
      const [chain = '', policy = '-'] = line.slice(1).split(' ');
      return { kind: 'chain', chain, policy };
    }
    case 91: {
      // [packets:bytes] -A …
      const end = line.indexOf('] ');
      return end < 0 ? undefined : parseLine(line.slice(end + 2));
    }
    case 45: {
      // -A CHAIN …
      if (!line.startsWith('-A ')) return undefined;
      const end = line.indexOf(' ', 3);
      return end < 0
        ? { kind: 'rule', chain: line.slice(3), args: '' }
        : { kind: 'rule', chain: line.slice(3, end), args: line.slice(end + 1).trimEnd() };
    }
    default:
      return undefined;
  }
}

/** Prints tables as iptables-save does, with zero counters: iptables-restore reads it. */
export function printSave(tables: readonly SavedTable[]): string {
  let out = '';
  for (const table of tables) {
    out += `*${table.table}\n`;
    for (const chain of table.chains.values()) out += `:${chain.name} ${chain.policy} [0:0]\n`;
    for (const chain of table.chains.values()) {
      for (const rule of chain.rules)
        out += rule === '' ? `-A ${chain.name}\n` : `-A ${chain.name} ${rule}\n`;
    }
    out += 'COMMIT\n';
  }
  return out;
}
