/** Rules of iptables-save, taken apart: which matches in which modules, which target with which options. */
import { splitArguments } from '../../linux/iptables/canonical.ts';

export interface Option {
  /** `--dport`, `-s` */
  readonly name: string;
  readonly values: readonly string[];
  /** It stood behind `!`. */
  readonly not: boolean;
}

/** One `-m MODULE` and its options; the built-in ones (`-s`, `-d`, `-p`, `-i`, `-o`) are module ``. */
export interface Match {
  readonly module: string;
  readonly options: readonly Option[];
}

export interface Rule {
  /** As iptables-save has it, without `-A CHAIN`. */
  readonly text: string;
  readonly matches: readonly Match[];
  /** Empty: the rule only counts. */
  readonly target: string;
  readonly goto: boolean;
  readonly targetOptions: readonly Option[];
  /** Empty if it has none. */
  readonly comment: string;
}

const basic = new Map([
  ['-s', '-s'],
  ['--source', '-s'],
  ['--src', '-s'],
  ['-d', '-d'],
  ['--destination', '-d'],
  ['--dst', '-d'],
  ['-p', '-p'],
  ['--protocol', '-p'],
  ['-i', '-i'],
  ['--in-interface', '-i'],
  ['-o', '-o'],
  ['--out-interface', '-o'],
  ['-f', '-f'],
  ['--fragment', '-f'],
]);

/** @param args what follows `-A CHAIN ` */
export function parseRule(args: string): Rule {
  const words = splitArguments(args);
  const builtIn: Option[] = [];
  const matches: { module: string; options: Option[] }[] = [{ module: '', options: builtIn }];
  const targetOptions: Option[] = [];
  let target = '';
  let goto = false;
  let inTarget = false;
  let not = false;
  let comment = '';
  for (let i = 0; i < words.length; i++) {
    const word = words[i]!;
    if (word === '!') {
      not = true;
      continue;
    }
    if (word === '-m' || word === '--match') {
      matches.push({ module: words[++i] ?? '', options: [] });
      inTarget = false;
      continue;
    }
    if (word === '-j' || word === '--jump' || word === '-g' || word === '--goto') {
      target = words[++i] ?? '';
      goto = word === '-g' || word === '--goto';
      inTarget = true;
      continue;
    }
    const values: string[] = [];
    if (word === '--comment') {
      comment = words[++i] ?? '';
      not = false;
      continue;
    }
    while (i + 1 < words.length && !isOption(words[i + 1]!)) values.push(words[++i]!);
    const name = basic.get(word);
    if (name !== undefined) builtIn.push({ name, values, not });
    else if (inTarget) targetOptions.push({ name: word, values, not });
    else optionsFor(matches, word).push({ name: word, values, not });
    not = false;
  }
  const used = matches.filter(
    ({ module, options }) => module !== 'comment' && (module !== '' || options.length > 0),
  );
  return { text: args, matches: used, target, goto, targetOptions, comment };
}

/** `-p tcp --dport 80` without `-m tcp` is possible where somebody wrote the text by hand. */
function optionsFor(matches: { module: string; options: Option[] }[], option: string): Option[] {
  const last = matches[matches.length - 1]!;
  if (last.module !== '' || basic.has(option)) return last.options;
  const module = { module: 'tcp', options: [] as Option[] };
  matches.push(module);
  return module.options;
}

function isOption(word: string): boolean {
  return word === '!' || (word.charCodeAt(0) === 45 && word.length > 1 && !/^-\d/.test(word));
}
