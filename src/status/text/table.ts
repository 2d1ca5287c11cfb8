/** Text for terminals: columns as narrow as their contents, times as people say them. */

export type Row = readonly string[];

/** A column whose cells may be long: one longer than `width` is the last of its line. */
export interface LongColumn {
  readonly column: number;
  readonly width: number;
}

/**
 * Columns with two spaces between them; those in `right` are aligned to the right. One string for each row: where a
 * cell of the long column is too long, two lines, so that it does not move the others.
 */
export function columns(
  rows: readonly Row[],
  right: readonly number[] = [],
  indent = '',
  long?: LongColumn,
): string[] {
  const widths: number[] = [];
  const tooLong = (cell: string, i: number): boolean => i === long?.column && cell.length > long.width;
  for (const row of rows)
    for (const [i, cell] of row.entries())
      if (!tooLong(cell, i)) widths[i] = Math.max(widths[i] ?? 0, cell.length);
  return rows.map((row) => {
    let line = indent;
    for (const [i, cell] of row.entries()) {
      const width = widths[i] ?? 0;
      line += right.includes(i) ? cell.padStart(width) : cell.padEnd(width);
      if (!tooLong(cell, i)) line += '  ';
      else if (i < row.length - 1) {
        const before = widths.slice(0, i + 1).reduce((sum, one) => sum + one + 2, indent.length);
        line += `\n${' '.repeat(before)}`;
      }
    }
    return line.trimEnd();
  });
}

/** Broken between words into lines of at most `width` characters, where words are not longer; all but the first are indented. */
export function wrap(text: string, width: number, indent = '  '): string[] {
  const lines: string[] = [];
  let line = '';
  for (const word of text.split(' ')) {
    if (line !== '' && line.length + 1 + word.length > width) {
      lines.push(line);
      line = indent + word;
    } else line = line === '' ? word : `${line} ${word}`;
  }
  return [...lines, line];
}

/** Shortened in the middle: both ends of a name tell things apart. */
export function shorten(text: string, width: number): string {
  if (text.length <= width) return text;
  const end = Math.floor((width - 1) / 2);
  return `${text.slice(0, width - 1 - end)}…${text.slice(text.length - end)}`;
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
