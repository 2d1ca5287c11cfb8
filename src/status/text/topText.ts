/** `pointsman top` as text: one screen. */
import type { RefusalRate, Rates } from '../rates.ts';
import { reasonText } from './statusText.ts';
import { columns, fit, shorten, wrap, type Row } from './table.ts';

export interface TopHead {
  readonly node: string;
  readonly mode: string;
  /** Where the numbers come from, in words. */
  readonly source: string;
  /** What they leave out. */
  readonly notes: readonly string[];
}

/** Characters that the numbers of a service port, or what is refused, may take. */
const besidesName = 48;

/** At most `height` lines of at most `width` characters. */
export function topLines(head: TopHead, rates: Rates, width: number, height: number): string[] {
  const lines = [
    `${head.node}  ${head.mode} mode  ${rates.seconds.toFixed(1)} s of ${head.source}`,
    `connections/s ${perSecond(rates.connections)}  refused/s ${perSecond(rates.refused)}  ` +
      `masqueraded/s ${perSecond(rates.masqueraded)}`,
    ...head.notes.flatMap((note) => wrap(`Note: ${note}`, width)),
    '',
  ];
  const refusals = rates.refusals
    .filter(({ total }) => total > 0)
    .map((one) => refusalRow(one, Math.max(20, width - besidesName)));
  const rows: Row[] = [['SERVICE PORT / ENDPOINT', 'PER SECOND', 'SHARE', 'TOTAL', 'POD']];
  const nameWidth = Math.max(20, width - besidesName);
  for (const service of rates.services) {
    rows.push([
      shorten(service.id, nameWidth),
      perSecond(service.perSecond),
      share(service.perSecond, rates.connections),
      String(service.total),
      '',
    ]);
    for (const endpoint of service.endpoints) {
      rows.push([
        `  ${endpoint.endpoint}`,
        perSecond(endpoint.perSecond),
        share(endpoint.perSecond, service.perSecond),
        String(endpoint.total),
        endpoint.pod,
      ]);
    }
  }
  const below = refusals.length === 0 ? 0 : Math.min(refusals.length, 5) + 2;
  const room = Math.max(3, height - lines.length - below);
  const table = columns(rows.slice(0, room), [1, 2, 3]);
  if (rows.length > room) table[room - 1] = `… and ${rows.length - room + 1} more lines`;
  lines.push(...(rows.length === 1 ? ['No connections counted yet.'] : table));
  if (refusals.length > 0)
    lines.push(
      '',
      ...columns([['REFUSED', 'PER SECOND', 'TOTAL', 'SERVICE PORT'], ...refusals.slice(0, 5)], [1, 2]),
    );
  return lines.map((line) => fit(line, width));
}

function refusalRow({ verdict, reason, id, perSecond: rate, total }: RefusalRate, nameWidth: number): Row {
  const what = verdict === 'drop' ? 'dropped' : 'rejected';
  return [`${what}: ${reasonText(reason)}`, perSecond(rate), String(total), shorten(id ?? '', nameWidth)];
}

function perSecond(rate: number): string {
  return rate >= 100 ? rate.toFixed(0) : rate.toFixed(1);
}

function share(part: number, whole: number): string {
  return whole === 0 ? '-' : `${Math.round((100 * part) / whole)}%`;
}
