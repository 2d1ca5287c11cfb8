/** The benchmark's result as a table for people. */
import { kinds, type Plan, type Result } from './measure.ts';
import type { Distribution } from './statistics.ts';

type Row = readonly [what: string, values: readonly (number | undefined)[], unit: string];

function number(value: number): string {
  return value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2);
}

function rowsOf(results: readonly Result[]): Row[] {
  const row = (what: string, unit: string, read: (result: Result) => number | undefined): Row => [
    what,
    results.map(read),
    unit,
  ];
  const spread = (what: string, read: (result: Result) => Distribution | undefined): Row[] => [
    row(`${what}, p50`, 'ms', (result) => read(result)?.p50),
    row(`${what}, p99`, 'ms', (result) => read(result)?.p99),
  ];
  return [
    row('load average of the machine, before', '', ({ load }) => load[0]),
    row('load average of the machine, after', '', ({ load }) => load[1]),
    row('start to all rules', 's', ({ start }) => start.milliseconds / 1000),
    row('CPU of the start', 's', ({ start }) => start.cpuMilliseconds / 1000),
    row('rules', '', ({ kernel }) => kernel.rules),
    row('elements', '', ({ kernel }) => kernel.elements),
    row('resident after the start', 'MiB', ({ settled }) => settled),
    row('peak of the start', 'MiB', ({ start }) => start.peak),
    ...kinds.flatMap((kind) => [
      ...spread(`endpoint ${kind}: in force`, ({ changes }) => changes[kind]?.effective),
      ...spread(
        `endpoint ${kind}: bytes received to input written`,
        ({ changes }) => changes[kind]?.ownShare,
      ),
      ...spread(`endpoint ${kind}: bytes received to commit`, ({ changes }) => changes[kind]?.committed),
      row(`endpoint ${kind}: CPU`, 'ms', ({ changes }) => changes[kind]?.cpuMilliseconds),
      row(
        `endpoint ${kind}: never seen in the kernel`,
        '',
        ({ changes }) => changes[kind]?.missed || undefined,
      ),
    ]),
    row('rolling update of 100: CPU an event', 'ms', ({ rolling }) => rolling?.cpuMilliseconds),
    row('resident after the changes', 'MiB', ({ after }) => after.resident),
    row('peak', 'MiB', ({ after }) => after.peak),
    row('restart', 's', ({ restart }) => restart && restart.milliseconds / 1000),
    row('restart: CPU', 's', ({ restart }) => restart && restart.cpuMilliseconds / 1000),
    row('restart: rules and elements written', '', ({ restart }) => restart?.written),
    row('connections a second, direct', '', ({ connections }) => connections?.direct),
    row('connections a second, through a Service', '', ({ connections }) => connections?.service),
    row('ratio', '%', ({ connections }) => connections && connections.ratio * 100),
  ];
}

export function printResults(
  mode: string,
  { services, endpoints, changes }: Plan,
  report: readonly { readonly name: string; readonly result: Result }[],
): string {
  const rows = rowsOf(report.map(({ result }) => result)).filter(([, values]) =>
    values.some((value) => value !== undefined),
  );
  const names = report.map(({ name }) => name.split('/').at(-1) ?? name);
  const lines = [
    `${mode} mode, ${services} services x ${endpoints} endpoints, ${changes} changes of each kind`,
    '',
  ];
  lines.push(`${''.padEnd(58)}${names.map((name) => name.padStart(16)).join('')}`);
  for (const [what, values, unit] of rows) {
    const cells = values.map((value) =>
      (value === undefined ? '-' : `${number(value)} ${unit}`.trimEnd()).padStart(16),
    );
    const [own, other] = values;
    const ratio =
      own !== undefined && other !== undefined && own > 0 ? `${number(other / own)} x`.padStart(12) : '';
    lines.push(`${what.padEnd(58)}${cells.join('')}${ratio}`);
  }
  return `${lines.join('\n')}\n`;
}
