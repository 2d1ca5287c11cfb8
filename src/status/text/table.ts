/** Text for terminals: columns as narrow as their contents, times as people say them. */

export type Row = readonly string[];

/** Columns with two spaces between them; those in `right` are aligned to the right. */
export function columns(rows: readonly Row[], right: readonly number[] = [], indent = ''): string[] {
  const widths: number[] = [];
  for (const row of rows)
    for (const [i, cell] of row.entries()) widths[i] = Math.max(widths[i] ?? 0, cell.length);
  return rows.map((row) =>
    (
      indent +
      row
        .map((cell, i) => (right.includes(i) ? cell.padStart(widths[i] ?? 0) : cell.padEnd(widths[i] ?? 0)))
        .join('  ')
    ).trimEnd(),
  );
}

/** `850µs`, `3.4ms`, `2.1s`, `3m12s`, `5h02m`, `12d3h` */
export function duration(milliseconds: number): string {
  if (milliseconds < 1) return `${Math.round(milliseconds * 1000)}µs`;
  if (milliseconds < 1000)
    return milliseconds < 10 ? `${milliseconds.toFixed(1)}ms` : `${Math.round(milliseconds)}ms`;
  const seconds = milliseconds / 1000;
  if (seconds < 60) return seconds < 10 ? `${seconds.toFixed(1)}s` : `${Math.round(seconds)}s`;
  const two = (value: number): string => String(Math.floor(value)).padStart(2, '0');
  if (seconds < 3600) return `${Math.floor(seconds / 60)}m${two(seconds % 60)}s`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)}h${two((seconds / 60) % 60)}m`;
  return `${Math.floor(seconds / 86_400)}d${Math.floor((seconds / 3600) % 24)}h`;
}

/** `1 service`, `2 services` */
export function count(number: number, one: string, many = `${one}s`): string {
  return `${number} ${number === 1 ? one : many}`;
}

/** Cut to the width, with an ellipsis. */
export function fit(text: string, width: number): string {
  return text.length <= width ? text : `${text.slice(0, Math.max(0, width - 1))}…`;
}
