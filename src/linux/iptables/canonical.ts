/**
 * One spelling for a rule, however it was written: as we write it, as iptables-nft prints it, as iptables-legacy
 * prints it. Two rules with the same canonical text do the same to a packet.
 *
 * The tools reorder matches, add default options and print numbers as the kernel stores them; this undoes that.
 */

/** Splits rule arguments at spaces, with double quotes and backslashes as iptables-restore reads them. */
export function splitArguments(args: string): string[] {
  if (!args.includes('"') && !args.includes('\\')) return args.split(' ').filter((word) => word !== '');
  const words: string[] = [];
  let word = '';
  let quoted = false;
  let started = false;
  for (let i = 0; i < args.length; i++) {
    const char = args[i] as string;
    if (char === '\\' && i + 1 < args.length) {
      word += args[++i] as string;
      started = true;
    } else if (char === '"') {
      quoted = !quoted;
      started = true;
    } else if (char === ' ' && !quoted) {
      if (started) words.push(word);
      word = '';
      started = false;
    } else {
      word += char;
      started = true;
    }
  }
  if (started) words.push(word);
  return words;
}

const separator = '\u0001';

/** Canonical text of rule arguments (what follows `-A CHAIN `); equal texts mean equal rules. */
export function canonicalRule(args: string): string {
  const words = splitArguments(args);
  const options: string[] = [];
  let negated = '';
  for (let i = 0; i < words.length; i++) {
    const word = words[i] as string;
    if (word === '!') {
      negated = '!';
      continue;
    }
    // Match modules are implied by their options (a bare `-m tcp` says nothing that `-p tcp` does not).
    if (word === '-m') {
      i++;
      continue;
    }
    let value = '';
    while (i + 1 < words.length && !isOption(words[i + 1] as string)) {
      value = value === '' ? (words[++i] as string) : `${value} ${words[++i] as string}`;
    }
    const option = canonicalOption(word, value);
    if (option !== undefined) options.push(negated + option);
    negated = '';
  }
  return options.sort().join(separator);
}

/** A comment may begin with a dash only inside its own value, which starts with a name: so this is unambiguous. */
function isOption(word: string): boolean {
  return word === '!' || (word.charCodeAt(0) === 45 && word.length > 1);
}

function canonicalOption(option: string, value: string): string | undefined {
  switch (option) {
    case '-s':
    case '-d':
      return value.includes('/')
        ? `${option} ${value}`
        : `${option} ${value}${value.includes(':') ? '/128' : '/32'}`;
    case '--mark':
      return `--mark ${value.split('/').map(hex).join('/')}`;
    case '--xor-mark':
      return `--set-xmark ${hex(value)}/0x0`;
    case '--or-mark':
      return `--set-xmark ${hex(value)}/${hex(value)}`;
    case '--set-xmark':
      return `--set-xmark ${value.split('/').map(hex).join('/')}`;
    case '--probability':
      // The kernel keeps 31 bits (xt_statistic).
      return `--probability ${Math.round(Number(value) * 2 ** 31)}`;
    case '--reject-with':
      return value.endsWith('port-unreachable') ? undefined : `${option} ${value}`;
    case '--mask':
    case '--rsource':
      // Defaults of -m recent, which only the tools print.
      return undefined;
    default:
      return value === '' ? option : `${option} ${value}`;
  }
}

function hex(value: string): string {
  return `0x${Number(value).toString(16)}`;
}
