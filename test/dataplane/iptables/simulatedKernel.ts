/** A kernel's filter and nat tables in memory: enough of iptables-restore and iptables-save to check plans quickly. */
import type { RestoreDocument } from '../../../src/dataplane/iptables/restoreDocument.ts';
import { canonicalRule } from '../../../src/linux/iptables/canonical.ts';

type Table = Map<string, string[]>;
const builtIn = ['PREROUTING', 'INPUT', 'FORWARD', 'OUTPUT', 'POSTROUTING'];

export class SimulatedKernel {
  #tables: Record<string, Table> = { filter: fresh(), nat: fresh() };

  /** Applies a document as iptables-restore --noflush does: a table at a time, each all or nothing. */
  restore(document: RestoreDocument): void {
    const text = typeof document.text === 'string' ? document.text : [...document.text].join('');
    let name = '';
    let table: Table = new Map();
    for (const line of text.split('\n')) {
      if (line.startsWith('*')) {
        name = line.slice(1);
        table = new Map([...(this.#tables[name] as Table)].map(([chain, rules]) => [chain, [...rules]]));
      } else if (line === 'COMMIT') {
        check(table);
        this.#tables[name] = table;
      } else if (line !== '') command(table, line);
    }
  }

  save(name: 'filter' | 'nat'): string {
    let text = `*${name}\n`;
    const table = this.#tables[name] as Table;
    for (const chain of table.keys()) text += `:${chain} ${builtIn.includes(chain) ? 'ACCEPT' : '-'} [0:0]\n`;
    for (const [chain, rules] of table) for (const rule of rules) text += `-A ${chain} ${rule}\n`;
    return `${text}COMMIT\n`;
  }

  /** All rules that a packet can come to, by chain. */
  reachable(name: 'filter' | 'nat'): Record<string, string[]> {
    const table = this.#tables[name] as Table;
    const found: Record<string, string[]> = {};
    const visit = (chain: string): void => {
      if (found[chain] !== undefined) return;
      const rules = table.get(chain) ?? [];
      found[chain] = [...rules];
      for (const rule of rules) {
        const to = target(rule);
        if (to !== undefined && table.has(to)) visit(to);
      }
    };
    for (const chain of builtIn) visit(chain);
    return found;
  }

  damage(at: number, how: string): void {
    const table = this.#tables[at % 2 === 0 ? 'nat' : 'filter'] as Table;
    const chains = [...table.keys()];
    const chain = chains[at % chains.length] as string;
    const rules = table.get(chain) as string[];
    if (how === 'flush') rules.length = 0;
    else if (how === 'rule') rules.splice(at % (rules.length + 1), 1);
    else if (chain.startsWith('KUBE-') && chain !== 'KUBE-FIREWALL') rules.unshift('-s 10.9.9.9 -j RETURN');
  }
}

function fresh(): Table {
  return new Map(builtIn.map((chain) => [chain, []]));
}

function target(rule: string): string | undefined {
  return / ?-j (\S+)/.exec(rule)?.[1];
}

function command(table: Table, line: string): void {
  const [operation = '', chain = ''] = line.split(' ');
  const args = line.slice(operation.length + chain.length + 2);
  if (operation.startsWith(':')) {
    table.set(operation.slice(1), []);
    return;
  }
  const rules = table.get(chain);
  if (rules === undefined) throw new Error(`no chain ${chain}: ${line}`);
  if (operation === '-A') rules.push(args);
  else if (operation === '-I') rules.unshift(args);
  else if (operation === '-D') {
    const index = rules.findIndex((rule) => canonicalRule(rule) === canonicalRule(args));
    if (index < 0) throw new Error(`no such rule: ${line}`);
    rules.splice(index, 1);
  } else if (operation === '-X') {
    if (rules.length > 0) throw new Error(`chain not empty: ${line}`);
    table.delete(chain);
  } else throw new Error(`what is ${line}?`);
}

const targets = new Set(['ACCEPT', 'DROP', 'REJECT', 'RETURN', 'MARK', 'MASQUERADE', 'DNAT']);

/** Every jump has somewhere to go. */
function check(table: Table): void {
  for (const [chain, rules] of table) {
    for (const rule of rules) {
      const to = target(rule);
      if (to !== undefined && !targets.has(to) && !table.has(to))
        throw new Error(`${chain} jumps to missing ${to}`);
    }
  }
}
