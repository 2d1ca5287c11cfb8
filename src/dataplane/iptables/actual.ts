/** What the kernel holds, read from iptables-save in a form that is cheap to compare: rules as canonical text, chains of service ports as digests. */
import { hash } from 'node:crypto';
import { canonicalRule } from '../../linux/iptables/canonical.ts';
import { parseLine } from '../../linux/iptables/save.ts';
import { isOwnChain } from './names.ts';

export interface ActualTable {
  /** Built-in chains and those named KUBE-… that belong to no service port: canonical rules in order. */
  readonly fixed: Map<string, string[]>;
  /** Chains of service ports and endpoints: digest of their canonical rules. */
  readonly own: Map<string, string>;
}

export interface Actual {
  readonly filter: ActualTable;
  readonly nat: ActualTable;
}

export function emptyTable(): ActualTable {
  return { fixed: new Map(), own: new Map() };
}

/** Collects one table line by line. */
export function tableReader(): { line(text: string): void; end(): ActualTable } {
  const table = emptyTable();
  let chain = '';
  let rules: string[] = [];
  const close = (): void => {
    if (chain !== '' && table.own.has(chain)) table.own.set(chain, digest(rules));
    chain = '';
    rules = [];
  };
  return {
    line(text) {
      const event = parseLine(text);
      if (event === undefined || event.kind === 'table') return;
      if (event.kind === 'chain') {
        if (isOwnChain(event.chain)) table.own.set(event.chain, emptyDigest);
        else if (event.policy !== '-' || event.chain.startsWith('KUBE-')) table.fixed.set(event.chain, []);
        return;
      }
      const fixed = table.fixed.get(event.chain);
      if (fixed !== undefined) {
        fixed.push(canonicalRule(event.args));
      } else if (table.own.has(event.chain)) {
        if (event.chain !== chain) {
          close();
          chain = event.chain;
        }
        rules.push(canonicalRule(event.args));
      }
    },
    end() {
      close();
      return table;
    },
  };
}

/** Digest of a chain's canonical rules. */
export function digest(rules: readonly string[]): string {
  return hash('sha1', rules.join('\n'), 'base64');
}

const emptyDigest = digest([]);
