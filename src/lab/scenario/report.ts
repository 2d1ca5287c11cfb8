/** Scenario results in words: a line a probe, and what differs below it. */
import type { ScenarioResult, StepResult } from './runner.ts';
import type { ScenarioRecord } from './types.ts';

const marks = { agrees: 'ok', late: 'late', differs: 'DIFFERS', unchecked: '-' } as const;

function counts(values: Readonly<Record<string, number | undefined>>): string {
  return Object.entries(values)
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .slice(0, 8)
    .map(([name, n]) => `${name} ${n}`)
    .join(', ');
}

function summary(record: ScenarioRecord): string {
  switch (record.kind) {
    case 'probe':
    case 'open': {
      const answered = counts(record.backends);
      const from = Object.keys(record.sources).sort().join(', ');
      return [
        counts(record.outcomes),
        ...(answered === '' ? [] : [answered]),
        ...(from === '' ? [] : [`seen as ${from}`]),
        ...(record.by === undefined ? [] : [`by ${record.by.join(', ')}`]),
        ...(record.sticky === undefined ? [] : [record.sticky ? 'sticky' : 'not sticky']),
        ...(record.kept === undefined ? [] : [`kept ${record.kept}`]),
      ].join(' | ');
    }
    case 'check':
      return Object.entries(record.fates)
        .map(([backend, fates]) => `${backend}: ${counts(fates)}`)
        .join('; ');
    case 'http':
      return record.outcome === 'ok' ? `status ${record.status}` : record.outcome;
    case 'until':
      return record.reached ? `reached after ${record.seconds} s` : `not reached in ${record.seconds} s`;
  }
}

export function stepLines(step: StepResult): string[] {
  return [
    `  ${marks[step.verdict].padEnd(7)} ${step.id.padEnd(24)} ${summary(step.record)}`,
    ...step.differences.map((line) => `            ${line}`),
    ...step.remarks.map((line) => `            (${line})`),
  ];
}

/** Everything about a result that is not a line a probe. */
export function resultLines(result: ScenarioResult): string[] {
  const lines = result.errors.map((line) => `  ERROR   ${line.replaceAll('\n', '\n          ')}`);
  if (result.rules !== undefined) {
    const shown = result.rules.slice(0, 20);
    lines.push(
      result.rules.length === 0
        ? '  ok      rules as recorded'
        : `  DIFFERS rules: ${result.rules.length} differences`,
    );
    lines.push(...shown.map((line) => `            ${line}`));
    if (shown.length < result.rules.length)
      lines.push(`            … and ${result.rules.length - shown.length} more`);
  }
  const differing = result.steps.filter((step) => step.verdict === 'differs').length;
  const verdict = result.agreed ? 'agrees' : `DIFFERS (${differing} of ${result.steps.length} probes)`;
  lines.push(
    `${result.name} (${result.mode}): ${verdict}, ${result.seconds.toFixed(1)} s, proxies ready after ${result.startSeconds.toFixed(1)} s`,
  );
  return lines;
}
