/**
 * The iptables programs of one family: commands one at a time, arguments in a fixed order, errors with the program's
 * own words. Which iptables (nf_tables or legacy) is whatever PATH gives.
 */
import type { Family } from '../../api/objects.ts';
import { exitTimedOut, run as runHere, type RunResult } from '../exec.ts';
import { SpareProgram } from '../spareProgram.ts';
import { lockWaitSeconds, parseVersion, type Features } from './features.ts';

export type Table = 'filter' | 'nat' | 'mangle';

export interface IptablesOptions {
  /** Words put before every command, e.g. `['ip', 'netns', 'exec', 'node-1']`. */
  readonly prefix?: readonly string[];
  /** Added to the environment of every command. */
  readonly env?: Readonly<Record<string, string>>;
  /** Program names where they are not `iptables` / `ip6tables`: e.g. `iptables-legacy`. */
  readonly program?: string;
  /** How programs are started; default `run` of exec.ts. */
  readonly run?: typeof runHere;
}

/** iptables or iptables-restore failed. `message` has the program's own words. */
export class IptablesError extends Error {
  override readonly name = 'IptablesError';
  readonly code: number;
  /** Another program held the xtables lock for as long as we were willing to wait. */
  readonly lockHeld: boolean;

  constructor(what: string, result: RunResult, context = '') {
    const said = (result.stderr + result.stdout).trim();
    const lockHeld = result.code === 4 && said.includes('xtables lock');
    super(
      lockHeld
        ? `${what}: another program has held the xtables lock for ${lockWaitSeconds} s; find it with "fuser /run/xtables.lock" (${lastLine(said)})`
        : `${what}: exit status ${result.code}${result.code === exitTimedOut ? ' (time-out)' : ''}: ${said === '' ? 'no message' : said}${context}`,
    );
    this.code = result.code;
    this.lockHeld = lockHeld;
  }
}

const mutexes = new Map<Family, Promise<unknown>>();

/** Commands of one family run one after another in this process, whoever gives them. */
async function exclusive<T>(family: Family, work: () => Promise<T>): Promise<T> {
  const before = mutexes.get(family) ?? Promise.resolve();
  const mine = before.then(work, work);
  mutexes.set(
    family,
    mine.then(
      () => undefined,
      () => undefined,
    ),
  );
  return await mine;
}

export class Iptables {
  readonly family: Family;
  readonly features: Features;
  readonly #program: string;
  readonly #options: IptablesOptions;
  readonly #run: typeof runHere;
  #spare: SpareProgram | undefined;

  private constructor(family: Family, program: string, features: Features, options: IptablesOptions) {
    this.family = family;
    this.features = features;
    this.#program = program;
    this.#options = options;
    this.#run = options.run ?? runHere;
  }

  /** Asks the program for its version. A program that cannot say leaves all features off; later commands then fail on their own. */
  static async open(family: Family, options: IptablesOptions = {}): Promise<Iptables> {
    const program = options.program ?? (family === 'IPv6' ? 'ip6tables' : 'iptables');
    const answer = await (options.run ?? runHere)(
      [...(options.prefix ?? []), program, '--version'],
      options.env === undefined ? {} : { env: options.env },
    );
    const features = parseVersion(answer.code === 0 ? answer.stdout + answer.stderr : '');
    return new Iptables(family, program, features, options);
  }

  /** The family can be used here: its nat table answers. */
  async usable(): Promise<boolean> {
    return await this.chainExists('nat', 'POSTROUTING');
  }

  /** Why the family is not usable, in the tool's own words; empty if it says nothing. */
  async complaint(): Promise<string> {
    const { stderr } = await this.#command(['-S', 'POSTROUTING', '-t', 'nat']);
    return stderr.trim().split('\n')[0] ?? '';
  }

  /** Creates a chain; true if it was not there. */
  async ensureChain(table: Table, chain: string): Promise<boolean> {
    const result = await this.#command(['-N', chain, '-t', table]);
    if (result.code === 0) return true;
    if (result.code === 1) return false;
    throw new IptablesError(`creating chain ${chain} of table ${table}`, result);
  }

  /** True if the rule is there. */
  async hasRule(table: Table, chain: string, args: readonly string[]): Promise<boolean> {
    const result = await this.#command(['-C', chain, '-t', table, ...args]);
    if (result.code === 0) return true;
    if (result.code === 1) return false;
    throw new IptablesError(`looking for a rule of ${chain} in table ${table}`, result);
  }

  /** Inserts a rule at the top unless it is there already; true if it was not. */
  async ensureRule(table: Table, chain: string, args: readonly string[]): Promise<boolean> {
    if (await this.hasRule(table, chain, args)) return false;
    const result = await this.#command(['-I', chain, '-t', table, ...args]);
    if (result.code !== 0)
      throw new IptablesError(`inserting a rule into ${chain} of table ${table}`, result);
    return true;
  }

  /** Deletes a rule if it is there. */
  async deleteRule(table: Table, chain: string, args: readonly string[]): Promise<boolean> {
    const check = await this.#command(['-C', chain, '-t', table, ...args]);
    if (check.code !== 0) {
      if (isNotFound(check)) return false;
      throw new IptablesError(`looking for a rule of ${chain} in table ${table}`, check);
    }
    const result = await this.#command(['-D', chain, '-t', table, ...args]);
    if (result.code === 0) return true;
    if (isNotFound(result)) return false;
    throw new IptablesError(`deleting a rule of ${chain} in table ${table}`, result);
  }

  /** True if the chain is there; false also if that cannot be told. */
  async chainExists(table: Table, chain: string): Promise<boolean> {
    return (await this.#command(['-S', chain, '-t', table])).code === 0;
  }

  /** Arguments of each rule of a chain after `-A CHAIN `, or undefined if the chain is not there. */
  async listChain(table: Table, chain: string): Promise<string[] | undefined> {
    const result = await this.#command(['-S', chain, '-t', table]);
    if (result.code !== 0) return undefined;
    const start = `-A ${chain} `;
    const rules: string[] = [];
    for (const line of result.stdout.split('\n'))
      if (line.startsWith(start)) rules.push(line.slice(start.length));
    return rules;
  }

  /** Hands every line of `iptables-save -c -t TABLE` to `onLine`. Commands do not wait for it, nor it for them. */
  async saveCounted(table: Table, onLine: (line: string) => void): Promise<void> {
    await this.#save(['-c', '-t', table], onLine, (work) => work());
  }

  async deleteChain(table: Table, chain: string): Promise<boolean> {
    const result = await this.#command(['-X', chain, '-t', table]);
    if (result.code === 0) return true;
    if (isNotFound(result)) return false;
    throw new IptablesError(`deleting chain ${chain} of table ${table}`, result);
  }

  /** Hands every line of `iptables-save -t TABLE` to `onLine`. */
  async save(table: Table, onLine: (line: string) => void): Promise<void> {
    await this.#save(['-t', table], onLine, (work) => exclusive(this.family, work));
  }

  async #save(
    options: readonly string[],
    onLine: (line: string) => void,
    when: <T>(work: () => Promise<T>) => Promise<T>,
  ): Promise<void> {
    const argv = [...this.#prefix(), `${this.#program}-save`, ...options];
    let refusal = '';
    const take = (line: string): void => {
      // Exit status 0 all the same: the table has rules that only nft can print.
      if (line.startsWith('# Table ') && line.includes('incompatible')) refusal = line.slice(2);
      onLine(line);
    };
    const result = await when(() => this.#run(argv, { ...this.#env(), onLine: take }));
    if (result.code !== 0 || refusal !== '') {
      throw new IptablesError(`${this.#program}-save ${options.join(' ')}`, { ...result, stdout: refusal });
    }
  }

  /**
   * Gives a document to iptables-restore. Each table of it is committed on its own, in the order of the document; an
   * error leaves the tables before it committed. With `table`, all other tables of the document are passed over.
   */
  async restore(document: string | Iterable<string>, table?: Table): Promise<void> {
    const spare = table === undefined ? this.#spare : undefined;
    const result = await exclusive(
      this.family,
      async () =>
        await (spare?.run({ input: document }) ??
          this.#run(this.#restoreCommand(table), { ...this.#env(), input: document })),
    );
    if (result.code === 0) return;
    throw new IptablesError(
      `${this.#program}-restore`,
      result,
      linesAround(
        typeof document === 'string' ? document : Array.isArray(document) ? document.join('') : '',
        result.stdout + result.stderr,
      ),
    );
  }

  /**
   * From here on an iptables-restore waits for the next document. While it waits it holds no lock and has read no
   * rules: nft-backed and legacy programs look at the kernel only when they have read the name of a table.
   */
  keepRestoreReady(): void {
    this.#spare ??= new SpareProgram(this.#restoreCommand(), `${this.#program}-restore`, this.#env());
    this.#spare.prepare();
  }

  /** Ends the program that waits; a restore under way is not disturbed. */
  close(): void {
    this.#spare?.close();
    this.#spare = undefined;
  }

  #restoreCommand(table?: Table): string[] {
    return [
      ...this.#prefix(),
      `${this.#program}-restore`,
      ...this.features.restoreWait,
      ...(table === undefined ? [] : ['-T', table]),
      '--noflush',
      '--counters',
    ];
  }

  async #command(args: readonly string[]): Promise<RunResult> {
    const argv = [...this.#prefix(), this.#program, ...this.features.wait, ...args];
    return await exclusive(this.family, async () => await this.#run(argv, this.#env()));
  }

  #prefix(): readonly string[] {
    return this.#options.prefix ?? [];
  }

  #env(): { env: Readonly<Record<string, string>> } | Record<string, never> {
    return this.#options.env === undefined ? {} : { env: this.#options.env };
  }
}

/** The program says that the rule, chain or table it was to delete is not there. */
function isNotFound(result: RunResult): boolean {
  return /No chain\/target\/match by that name|No such file or directory|does a matching rule exist|does not exist/.test(
    result.stdout + result.stderr,
  );
}

/** Where the output is a parse error (`…: line 12 failed`), the lines of the document around it, else ''. */
export function linesAround(document: string, output: string): string {
  const said = output.trim();
  const match = said.split(':').length === 2 ? /line ([1-9][0-9]*) failed$/.exec(said) : null;
  if (match === null) return '';
  const at = Number(match[1]);
  const lines = document.split('\n');
  let out = '';
  for (let n = Math.max(1, at - 3); n <= Math.min(lines.length, at + 3); n++)
    out += `\n${n}: ${lines[n - 1] ?? ''}`;
  return out;
}

function lastLine(text: string): string {
  return text.slice(text.lastIndexOf('\n') + 1);
}
