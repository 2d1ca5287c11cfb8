/** What really happened, for a terminal: under the prediction, in the same form. */
import { list, percent } from '../findings/words.ts';
import type { Observation, ObservedWay } from '../live.ts';
import { resetByProcess } from '../live/happened.ts';
import type { Judgement, LaidHook, LaidStep } from '../live/layOver.ts';
import { columns, hookTitle, palette, wrap, type Palette } from './terminal.ts';

/** Ways that are shown in full. */
const waysMost = 3;

export const judgementSigns: Readonly<Record<Judgement, string>> = {
  predicted: '✓',
  differs: '✗',
  neutral: '·',
  behind: '·',
  unknown: '·',
};

export function printObservation(observation: Observation, colour: boolean): string {
  const paint = palette(colour);
  const { connections, ends, ways, remarks } = observation;
  const title = `WHAT REALLY HAPPENED (${describeHow(observation)})`;
  const lines = ['', ...wrap(title, 0).map(paint.title)];
  for (const { end, connections: n, predicted } of ends) {
    const share = percent(n / connections).padStart(8);
    const beside = predicted === undefined ? paint.bad('NOT predicted') : `predicted ${percent(predicted)}`;
    const plainBeside = predicted === undefined ? 'NOT predicted' : beside;
    if (12 + Math.max(34, end.length) + plainBeside.length > columns)
      lines.push(`${share}  ${end}`, `${' '.repeat(10)}${beside}`);
    else lines.push(`${share}  ${end.padEnd(34)} ${beside}`);
  }
  lines.push(...wrap(verdict(observation), 2).map(observation.agrees === false ? paint.bad : paint.good));
  for (const remark of remarks) lines.push(...wrap(`Note: ${remark}`, 2).map(paint.faint));
  for (const way of ways.slice(0, waysMost)) lines.push(...printWay(way, ways, paint));
  const more = ways.length - waysMost;
  if (more > 0) lines.push('', `  ${more} more ${more === 1 ? 'way' : 'ways'}: see --json.`);
  return `${lines.join('\n')}\n`;
}

export function describeHow({ how, from, connections }: Observation): string {
  const many = connections === 1 ? '1 connection' : `${connections} connections`;
  return how === 'dialled' ? `${many} dialled from ${from}` : `${many} of ${from}, watched`;
}

export function verdict(observation: Observation): string {
  const { agrees, ends, ways, how } = observation;
  if (agrees === undefined)
    return how === 'dialled'
      ? 'Nothing could be dialled.'
      : 'Nobody came: dial it in the meantime, or watch longer (--seconds).';
  if (agrees) {
    const rules = ways.some((way) => way.agrees === true) ? 'As predicted, rule by rule.' : 'As predicted.';
    const rest = beyondRules(observation);
    return rest === '' ? rules : `${rules} ${rest}`;
  }
  const reset = ends.find(({ end, predicted }) => end === resetByProcess && predicted === undefined);
  if (reset !== undefined)
    return "Not as predicted: the proxy's process takes the connection, reaches no endpoint, and resets it. The endpoints refuse or are silent: does a program listen there?";
  const stopped = ways.find((way) => way.agrees === false && way.end !== 'left' && way.end !== 'here');
  if (stopped !== undefined) return `Not as predicted: ${stopped.ended}.`;
  return ends.every(({ predicted }) => predicted !== undefined)
    ? 'It ended as predicted, but not by the rules that were predicted: see ✗ below.'
    : 'Not as predicted: something else has a hand in it.';
}

/** What the other side did with packets that rules let through; empty if it took them. */
function beyondRules({ ends }: Observation): string {
  const refusing = ends.flatMap(({ end }) => /^(.*) \(refuses\)$/.exec(end)?.[1] ?? []);
  const silent = ends.flatMap(({ end }) => /^(.*) \(silent\)$/.exec(end)?.[1] ?? []);
  const said = [
    refusing.length === 0 ? '' : `But ${list(refusing)} itself refuses: no program listens there.`,
    silent.length === 0 ? '' : `But ${list(silent)} does not answer: is it still there?`,
  ];
  return said.filter((sentence) => sentence !== '').join(' ');
}

/** `THE KERNEL'S TRACE of 3 of 10 packets` */
export function describeWay({ packets }: ObservedWay, ways: readonly ObservedWay[]): string {
  const all = ways.reduce((sum, way) => sum + way.packets, 0);
  return packets === all ? (all === 1 ? 'one packet' : `all ${all} packets`) : `${packets} of ${all} packets`;
}

function printWay(way: ObservedWay, ways: readonly ObservedWay[], paint: Palette): string[] {
  const lines = ['', paint.title(`THE KERNEL'S TRACE of ${describeWay(way, ways)}`)];
  for (const hook of way.hooks) lines.push(...printHook(hook, paint));
  const end = way.end === 'dropped' || way.end === 'rejected' || way.end === 'lost' ? paint.bad : paint.good;
  lines.push(...wrap(`⇒ ${way.ended}`, 2).map(end));
  return lines;
}

function printHook({ hook, packet, steps }: LaidHook, paint: Palette): string[] {
  const lines = hookTitle(hook, packet, paint);
  if (steps.length === 0) lines.push(paint.faint('  │ no rule concerned it'));
  let chain = '';
  for (const step of steps) {
    if (step.chain !== chain) lines.push(paint.faint(`  │ ${step.chain}`));
    chain = step.chain;
    lines.push(...printStep(step, paint));
  }
  return lines;
}

function printStep({ rule, did, judgement, note }: LaidStep, paint: Palette): string[] {
  const colour = judgement === 'predicted' ? paint.good : judgement === 'differs' ? paint.bad : paint.faint;
  const text = rule === '' ? (did === '' ? '(chain)' : `policy ${did}`) : rule;
  const lines = wrap(text, 0, columns - 6).map((line, i) =>
    colour(`  │ ${i === 0 ? judgementSigns[judgement] : ' '} ${line}`),
  );
  if (showsVerdict({ rule, did })) lines.push(`  │   ⇒ ${did}`);
  if (note !== '') {
    const title = judgement === 'differs' ? 'HERE IT DIFFERS: ' : '';
    lines.push(...wrap(`${title}${note}`, 0, columns - 6).map((line) => colour(`  │   ${line}`)));
  }
  return lines;
}

/** Most rules say themselves what they do; those with a map do not. */
export function showsVerdict({ rule, did }: Pick<LaidStep, 'rule' | 'did'>): boolean {
  return rule !== '' && /^(jump|goto) /.test(did) && !rule.endsWith(did.replace(/^\w+ /, ''));
}
