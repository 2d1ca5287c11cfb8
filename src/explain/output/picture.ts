/** The way through the hooks as a picture (SVG): stations from left to right, the packet's addresses on the track between them. */
import type { Explanation, ToldHook } from '../explanation.ts';
import { escape } from './escape.ts';

interface Station {
  readonly title: string;
  readonly lines: readonly string[];
  readonly colour: string;
  readonly round: boolean;
}

interface Track {
  readonly source: string;
  readonly destination: string;
  /** Which half was rewritten at the station before. */
  readonly changed: readonly ('source' | 'destination')[];
}

const box = { width: 190, height: 90, gap: 96, margin: 12 };

/** `wide`: rows of three; `tall`: one below the other, for narrow screens. */
export type Layout = 'wide' | 'tall';

const layouts = { wide: { perRow: 3, row: 212 }, tall: { perRow: 1, row: 150 } } as const;

export function drawWay(explanation: Explanation, layout: Layout = 'wide'): string {
  const { perRow, row } = layouts[layout];
  const { way, question, outcomes, node } = explanation;
  const stations: Station[] = [
    {
      title: 'The client',
      lines: [...whoLines(question.from.replace(' outside the cluster', ' outside')), question.source],
      colour: 'var(--faint)',
      round: true,
    },
  ];
  const tracks: Track[] = [];
  let current = `${question.source} → ${question.destination}`;
  tracks.push(track(current, current));
  for (const hook of way) {
    const after = hook.steps.at(-1)?.packet ?? hook.packet;
    stations.push(hookStation(hook));
    tracks.push(track(after, current));
    current = after;
  }
  const first = outcomes[0];
  if (first !== undefined)
    stations.push(endStation(first.kind, first.destination, first.who, outcomes.length, node));
  const columns = Math.min(perRow, stations.length);
  const rows = Math.ceil(stations.length / perRow);
  const width = columns * box.width + (columns - 1) * box.gap + 2 * box.margin + (layout === 'tall' ? 80 : 0);
  const height = (rows - 1) * row + box.height + 2 * box.margin + (layout === 'tall' ? 0 : 46);
  const stopped = first !== undefined && ['drop', 'reject', 'unknown'].includes(first.kind);
  const parts = [
    `<svg class="${layout}" viewBox="0 0 ${width} ${height}" width="${width}" role="img" aria-label="${escape(`The packet passes ${way.map(({ hook }) => hook).join(', ')}`)}" font-family="system-ui,sans-serif">`,
    `<defs><marker id="tip-${layout}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto"><path d="M0 0L8 4L0 8z" fill="var(--accent)"/></marker></defs>`,
  ];
  stations.forEach((station, i) => {
    const { x, y } = placeOf(i, layout);
    parts.push(drawStation(station, x, y));
    const next = tracks[i];
    if (i + 1 < stations.length && next !== undefined)
      parts.push(drawTrack(next, i, layout, stopped && i + 2 === stations.length));
  });
  parts.push('</svg>');
  return parts.join('');
}

function placeOf(index: number, layout: Layout): { x: number; y: number } {
  const { perRow, row } = layouts[layout];
  const column = index % perRow;
  return {
    x: box.margin + column * (box.width + box.gap),
    y: box.margin + Math.floor(index / perRow) * row,
  };
}

/** `Pod default/web-1 on node-2, ready` in lines that fit. */
function whoLines(who: string): string[] {
  return who
    .replace(/^Pod /, '')
    .split(/ (?=on )/)
    .map((part) => shorten(part, 30));
}

function hookStation({ hook, steps }: ToldHook): Station {
  const rewrite = steps.filter(({ rewrites }) => rewrites);
  const end = steps.find(
    ({ effectKind }) => effectKind === 'drop' || effectKind === 'reject' || effectKind === 'unknown',
  );
  const lines: string[] = [];
  for (const { effectKind } of rewrite)
    lines.push(effectKind === 'dnat' ? 'destination rewritten' : 'source rewritten');
  if (end !== undefined)
    lines.push(
      end.effectKind === 'reject'
        ? 'rejected here'
        : end.effectKind === 'drop'
          ? 'dropped here'
          : 'not known',
    );
  if (lines.length === 0) lines.push(hook === 'input' || hook === 'forward' ? 'let through' : 'unchanged');
  const program = steps.find(({ chain }) => chain.startsWith('process '));
  if (program !== undefined) lines.splice(0, lines.length, 'pointsman takes it,', 'and dials the endpoint');
  if (steps.some(({ chain }) => chain.startsWith('virtual server '))) lines.push('by the virtual server');
  const rules = program === undefined ? steps.filter(({ rule }) => rule !== '').length : 0;
  if (rules > 0) lines.push(`${rules} rule${rules === 1 ? '' : 's'} took part`);
  const colour =
    end !== undefined
      ? 'var(--bad)'
      : rewrite.length > 0 || program !== undefined
        ? 'var(--good)'
        : 'var(--accent)';
  return { title: hook.toUpperCase(), lines, colour, round: false };
}

function endStation(kind: string, destination: string, who: string, count: number, node: string): Station {
  const many = count > 1 ? [`one of ${count}`] : [];
  switch (kind) {
    case 'endpoint':
      return {
        title: 'The endpoint',
        lines: [destination, ...(who === '' ? many : whoLines(who))],
        colour: 'var(--good)',
        round: true,
      };
    case 'node':
      return {
        title: node === '' ? 'This node' : node,
        lines: ['a program on it, if any listens'],
        colour: 'var(--accent)',
        round: true,
      };
    case 'forward':
      return { title: 'Onwards', lines: [destination, 'untranslated'], colour: 'var(--accent)', round: true };
    case 'reject':
      return {
        title: 'Rejected',
        lines: ['the client is told:', 'connection refused'],
        colour: 'var(--bad)',
        round: true,
      };
    case 'drop':
      return { title: 'Dropped', lines: ['the client hears nothing'], colour: 'var(--bad)', round: true };
    default:
      return {
        title: 'Not known',
        lines: ['a rule that cannot be', 'interpreted decides'],
        colour: 'var(--bad)',
        round: true,
      };
  }
}

function track(now: string, before: string): Track {
  const [source = '', destination = ''] = now.split(' → ');
  const [oldSource, oldDestination] = before.split(' → ');
  const changed: ('source' | 'destination')[] = [];
  if (source !== oldSource) changed.push('source');
  if (destination !== oldDestination) changed.push('destination');
  return { source, destination, changed };
}

function drawStation({ title, lines, colour, round }: Station, x: number, y: number): string {
  const middle = x + box.width / 2;
  const text = lines
    .slice(0, 3)
    .map(
      (line, i) =>
        `<text x="${middle}" y="${y + 47 + i * 16}" text-anchor="middle" font-size="${fontFor(line, box.width - 16)}" fill="var(--faint)">${escape(line)}</text>`,
    )
    .join('');
  return `<rect x="${x}" y="${y}" width="${box.width}" height="${box.height}" rx="${round ? 26 : 6}" fill="var(--card)" stroke="${colour}" stroke-width="2"/><text x="${middle}" y="${y + 27}" text-anchor="middle" font-size="15" font-weight="600" fill="var(--ink)">${escape(title)}</text>${text}`;
}

/** The rail to the next station, and under it who the packet seems to come from and go to. */
function drawTrack(
  { source, destination, changed }: Track,
  index: number,
  layout: Layout,
  last: boolean,
): string {
  const from = placeOf(index, layout);
  const to = placeOf(index + 1, layout);
  const y = from.y + box.height / 2;
  const dash = last ? ' stroke-dasharray="5 4"' : '';
  const label = (
    text: string,
    what: 'source' | 'destination',
    x: number,
    at: number,
    anchor: string,
  ): string => {
    const isNew = changed.includes(what);
    const arrow = what === 'source' ? 'from' : 'to';
    // Bold letters are wider.
    const size = fontFor(`${arrow} ${text}${isNew ? '    ' : ''}`, box.width + box.gap - 40);
    return `<text x="${x}" y="${at}" text-anchor="${anchor}" font-size="${size}" font-weight="${isNew ? 700 : 400}" fill="${isNew ? 'var(--good)' : 'var(--faint)'}">${arrow} ${escape(text)}</text>`;
  };
  if (to.x === from.x) {
    const x = from.x + 30;
    const bottom = from.y + box.height;
    return `<path d="M${x} ${bottom + 3}V${to.y - 5}" stroke="var(--accent)" stroke-width="2"${dash} fill="none" marker-end="url(#tip-${layout})"/>${label(source, 'source', x + 16, bottom + 26, 'start')}${label(destination, 'destination', x + 16, bottom + 43, 'start')}`;
  }
  if (to.y === from.y) {
    const left = from.x + box.width;
    const middle = left + box.gap / 2;
    const under = from.y + box.height + 20;
    return `<path d="M${left + 3} ${y}H${to.x - 4}" stroke="var(--accent)" stroke-width="2"${dash} fill="none" marker-end="url(#tip-${layout})"/>${label(source, 'source', middle, under, 'middle')}${label(destination, 'destination', middle, under + 17, 'middle')}`;
  }
  const start = from.x + box.width / 2;
  const end = to.x + box.width / 2;
  const turn = from.y + box.height + 66;
  return `<path d="M${start} ${from.y + box.height + 3}V${turn}H${end}V${to.y - 5}" stroke="var(--accent)" stroke-width="2"${dash} fill="none" marker-end="url(#tip-${layout})"/>${label(source, 'source', (start + end) / 2, turn + 18, 'middle')}${label(destination, 'destination', (start + end) / 2, turn + 35, 'middle')}`;
}

/** The size, in units of the picture, in which the text is no wider than `width`; 12 where that is enough. */
function fontFor(text: string, width: number): number {
  // Letters of common fonts are 0.55 of their size wide, on average.
  return Math.min(12, Math.max(6, Math.floor((width / (text.length * 0.55)) * 2) / 2));
}

function shorten(text: string, most: number): string {
  return text.length <= most ? text : `${text.slice(0, most - 1)}…`;
}
