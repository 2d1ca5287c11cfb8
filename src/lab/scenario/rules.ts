/** Compares rule sets as iptables-save prints them with the reference's recorded ones. Pure. */

/** One table of one family on one node. */
interface Table {
  readonly chains: Set<string>;
  /** Chain → its rules in order */
  readonly rules: Map<string, string[]>;
}

/** `node-1: iptables-save` → table → chains and rules */
export type RuleSections = ReadonlyMap<string, ReadonlyMap<string, Table>>;

/** Splits a rule into words; quoted texts (comments) stay one word. */
function wordsOf(rule: string): string[] {
  return rule.match(/"(?:[^"\\]|\\.)*"|\S+/g) ?? [];
}

/** A rule without counters and comments, single-spaced. */
export function normaliseRule(line: string): string {
  const words = wordsOf(line.replace(/^\[\d+:\d+\]\s*/, ''));
  const kept: string[] = [];
  for (let i = 0; i < words.length; i++) {
    if (words[i] === '-m' && words[i + 1] === 'comment') i++;
    else if (words[i] === '--comment') i++;
    else kept.push(words[i] ?? '');
  }
  return kept.join(' ');
}

/** Reads iptables-save output with `## NODE: PROGRAM` headings. */
export function parseRules(text: string): RuleSections {
  const sections = new Map<string, Map<string, Table>>();
  let section = new Map<string, Table>();
  let table: Table = { chains: new Set(), rules: new Map() };
  for (const line of text.split('\n')) {
    if (line.startsWith('## ')) {
      section = new Map();
      sections.set(line.slice(3).trim(), section);
    } else if (line.startsWith('*')) {
      table = { chains: new Set(), rules: new Map() };
      section.set(line.slice(1).trim(), table);
    } else if (line.startsWith(':')) {
      table.chains.add(line.slice(1).split(' ')[0] ?? '');
    } else if (/^(\[\d+:\d+\] )?-A /.test(line)) {
      const rule = normaliseRule(line);
      const chain = rule.split(' ')[1] ?? '';
      const rules = table.rules.get(chain);
      if (rules === undefined) table.rules.set(chain, [rule]);
      else rules.push(rule);
    }
  }
  return sections;
}

/** Chains whose rules may come in any order, but for the jump at their end. */
const dispatchChains = new Set([
  'KUBE-SERVICES',
  'KUBE-NODEPORTS',
  'KUBE-EXTERNAL-SERVICES',
  'KUBE-PROXY-FIREWALL',
]);

/** KUBE-SERVICES ends in the jump to the node ports: no destination address of a service, one for all. */
function isTail(rule: string): boolean {
  return rule.endsWith('-j KUBE-NODEPORTS');
}

function compareChain(chain: string, wanted: readonly string[], got: readonly string[]): string[] {
  const differences = [
    ...wanted.filter((rule) => !got.includes(rule)).map((rule) => `missing  ${rule}`),
    ...got.filter((rule) => !wanted.includes(rule)).map((rule) => `too many ${rule}`),
  ];
  if (differences.length > 0) return differences;
  if (wanted.length !== got.length)
    return [`${chain} has ${got.length} rules, wanted ${wanted.length}: one is there twice`];
  if (dispatchChains.has(chain)) {
    const tail = got.findIndex(isTail);
    return tail >= 0 && got.slice(tail).some((rule) => !isTail(rule))
      ? [`${chain}: the jump to KUBE-NODEPORTS is not last`]
      : [];
  }
  const at = wanted.findIndex((rule, i) => rule !== got[i]);
  return at < 0 ? [] : [`${chain}: other order: rule ${at + 1} is "${got[at]}", wanted "${wanted[at]}"`];
}

/** What differs, a line each; empty if the rule sets agree. Sections and tables which the reference has not are ignored. */
export function compareRules(reference: string, ours: string): string[] {
  const wanted = parseRules(reference);
  const got = parseRules(ours);
  const differences: string[] = [];
  for (const [heading, tables] of wanted) {
    const ownTables = got.get(heading);
    if (ownTables === undefined) {
      differences.push(`${heading}: no rules were read`);
      continue;
    }
    for (const [name, table] of tables) {
      const where = `${heading} ${name}:`;
      const own = ownTables.get(name) ?? { chains: new Set<string>(), rules: new Map<string, string[]>() };
      for (const chain of table.chains)
        if (!own.chains.has(chain)) differences.push(`${where} missing chain ${chain}`);
      for (const chain of own.chains) {
        // The built-in chains that nobody uses are listed by some variants of iptables-save only.
        if (!table.chains.has(chain) && chain.startsWith('KUBE-'))
          differences.push(`${where} extra chain ${chain}`);
      }
      for (const chain of new Set([...table.rules.keys(), ...own.rules.keys()])) {
        const lines = compareChain(chain, table.rules.get(chain) ?? [], own.rules.get(chain) ?? []);
        differences.push(...lines.map((line) => `${where} ${line}`));
      }
    }
  }
  return differences;
}
