/** An explanation for a terminal: at most 80 columns, coloured only where asked. */
import type { Explanation, ToldHook, ToldStep } from '../explanation.ts';
import { conditions, percent } from '../findings/words.ts';
import type { OutcomeKind } from '../outcome.ts';

export const columns = 80;

type Paint = (text: string) => string;

export interface Palette {
  readonly title: Paint;
  readonly good: Paint;
  readonly bad: Paint;
  readonly faint: Paint;
  readonly cause: Paint;
}

export function palette(colour: boolean): Palette {
  const paint =
    (code: string): Paint =>
    (text) =>
      colour ? `\u001b[${code}m${text}\u001b[0m` : text;
  return { title: paint('1'), good: paint('32'), bad: paint('31'), faint: paint('2'), cause: paint('36') };
}

/** What a way comes to, in a few words. */
export const ends: Readonly<Record<OutcomeKind, string>> = {
  endpoint: 'it reaches an endpoint',
  node: 'it stays on this node',
  forward: 'it is passed on untranslated',
  reject: 'it is rejected',
  drop: 'it is dropped',
  unknown: 'not known',
};

const bad = new Set(['reject', 'drop', 'unknown']);

export function printExplanation(explanation: Explanation, colour: boolean): string {
  const paint = palette(colour);
  const { question, outcomes, way, otherWays, conntrack, findings, otherwise, remarks } = explanation;
  const lines: string[] = [];
  const section = (title: string): void => {
    lines.push('', paint.title(title));
  };
  const where = explanation.node === '' ? 'this node' : explanation.node;
  lines.push(
    ...wrap(`${question.protocol} ${question.source} → ${question.destination}`, 0).map(paint.title),
    ...wrap(`from ${question.from}; rules of ${where}, ${explanation.rules}`, 0).map(paint.faint),
    '',
    ...wrap(explanation.answer, 0).map(outcomes.some(({ kind }) => bad.has(kind)) ? paint.bad : paint.good),
  );
  for (const remark of remarks) lines.push(...wrap(`Note: ${remark}`, 0).map(paint.faint));

  for (const { severity, message, advice } of findings) {
    const title = { cause: 'WHY', warning: 'LOOK', note: 'NOTE' }[severity];
    const colourOf = severity === 'cause' ? paint.bad : severity === 'warning' ? paint.cause : paint.faint;
    const text = wrap(message, 6);
    lines.push('', `${colourOf(title.padEnd(6))}${text[0]?.trimStart() ?? ''}`, ...text.slice(1));
    if (advice !== '') lines.push(...wrap(`→ ${advice}`, 6));
  }

  if (outcomes.some(({ kind }) => kind === 'endpoint')) {
    section('WHO GETS IT');
    for (const outcome of outcomes.slice(0, 20)) {
      const share = percent(outcome.probability).padStart(8);
      const what = outcome.kind === 'endpoint' ? outcome.destination : `nobody: ${ends[outcome.kind]}`;
      const line = `${share}  ${what.padEnd(22)} ${outcome.who}`.trimEnd();
      // A long address has a line to itself.
      if (line.length > columns && what.length > 22)
        lines.push(`${share}  ${what}`, ...wrap(outcome.who, 12));
      else lines.push(...indentRest(line, 34));
    }
    if (outcomes.length > 20) lines.push(`          and ${outcomes.length - 20} more`);
    const why = outcomes.find(({ why: text }) => text !== '')?.why;
    if (why !== undefined) lines.push(...wrap(`Source rewritten: ${why}.`, 2));
  }

  if (way.length > 0) {
    const [first] = outcomes;
    const which =
      first?.kind === 'endpoint' ? ` of one that ends at ${first.destination}` : ' of one of them';
    section(`THE WAY${outcomes.length > 1 ? which : ''}`);
    for (const hook of way) lines.push(...printHook(hook, paint));
  }
  for (const { outcome, way: rest } of otherWays.slice(0, 4)) {
    section(`ANOTHER WAY, ${percent(outcome.probability)}: ${ends[outcome.kind]}`);
    for (const hook of rest) lines.push(...printHook(hook, paint));
  }
  section('WHAT CONNECTION TRACKING REMEMBERS');
  for (const line of conntrack) lines.push(...wrap(line, 2));

  if (otherwise.length > 0) {
    section('OTHERWISE');
    for (const { assumptions, outcomes: others } of otherwise) {
      lines.push(...wrap(`${conditions(assumptions)}:`, 2));
      for (const { kind, probability, destination } of others.slice(0, 6)) {
        lines.push(`    ${percent(probability).padStart(8)}  ${kind === 'endpoint' ? destination : kind}`);
      }
    }
  }
  return `${lines.join('\n')}\n`;
}

function printHook({ hook, packet, steps }: ToldHook, paint: Palette): string[] {
  const lines = hookTitle(hook, packet, paint);
  if (!steps.some(({ rule, effectKind }) => rule !== '' || effectKind === 'drop')) {
    lines.push(paint.faint('  │ no rule concerns it'));
  }
  let chain = '';
  for (const step of steps) {
    if (step.chain !== chain && step.chain !== 'routing') lines.push(paint.faint(`  │ ${step.chain}`));
    chain = step.chain;
    lines.push(...printStep(step, paint));
  }
  return lines;
}

/** The hook and the packet that comes to it; one of long addresses has two lines. */
export function hookTitle(hook: string, packet: string, paint: Palette): string[] {
  const name = hook.toUpperCase();
  const indent = 18;
  const [first = '', ...rest] = wrap(packet, 0, columns - indent);
  return [
    `  ${paint.title(name)}${' '.repeat(Math.max(1, indent - 2 - name.length))}${first}`,
    ...rest.map((line) => ' '.repeat(indent) + line),
  ];
}

function printStep(step: ToldStep, paint: Palette): string[] {
  const lines: string[] = [];
  if (step.rule !== '')
    lines.push(...wrap(step.rule, 0, columns - 6).map((line) => paint.faint(`  │   ${line}`)));
  if (step.element !== '')
    lines.push(...wrap(step.element, 0, columns - 8).map((line) => paint.faint(`  │     ${line}`)));
  if (step.effect !== '') {
    const effect = wrap(step.effect, 0, columns - 9).map((line, i) => `  │   ${i === 0 ? '⇒' : ' '} ${line}`);
    lines.push(
      ...effect.map(
        step.rewrites
          ? paint.good
          : step.effectKind === 'drop' || step.effectKind === 'reject'
            ? paint.bad
            : (text: string) => text,
      ),
    );
  }
  if (step.cause !== '')
    lines.push(
      ...wrap(`because: ${step.cause}`, 0, columns - 9).map((line) => paint.cause(`  │     ${line}`)),
    );
  if (step.rewrites)
    lines.push(...wrap(`now ${step.packet}`, 0, columns - 8).map((line) => `  │     ${line}`));
  return lines;
}

/** Lines of at most 80 columns (or `width`), indented; words longer than that stay whole. */
export function wrap(text: string, indent: number, width = columns - indent): string[] {
  const lines: string[] = [];
  let line = '';
  for (const word of text.split(' ')) {
    if (line !== '' && line.length + 1 + word.length > width) {
      lines.push(line);
      line = word;
    } else line = line === '' ? word : `${line} ${word}`;
  }
  lines.push(line);
  return lines.map((one) => ' '.repeat(indent) + one);
}

function indentRest(text: string, indent: number): string[] {
  const cut = text.lastIndexOf(' ', columns);
  if (text.length <= columns || cut < indent) return [text];
  return [text.slice(0, cut), ...wrap(text.slice(cut + 1), indent)];
}
