/** What really happened, as a part of the page. */
import { percent } from '../findings/words.ts';
import type { Observation, ObservedWay } from '../live.ts';
import type { LaidHook, LaidStep } from '../live/layOver.ts';
import { escape } from './escape.ts';
import { describeHow, describeWay, judgementSigns, showsVerdict, verdict } from './liveText.ts';

/** Ways that are drawn. */
const waysMost = 8;

export const liveStyle = `
.seen li{border-left-color:var(--line)}.seen li.predicted{border-color:var(--good)}.seen li.differs{border-color:var(--bad)}
.sign{display:inline-block;width:1.2em}.predicted .sign{color:var(--good)}.differs .sign,.differs .note{color:var(--bad)}
`;

export function renderObservation(observation: Observation): string {
  const { ends, connections, ways, agrees, remarks } = observation;
  const rows = ends.map(({ end, connections: n, predicted }) => {
    const width = Math.max(1, Math.round((n / connections) * 160));
    const beside = predicted === undefined ? 'not predicted' : `predicted ${percent(predicted)}`;
    return `<tr><td><span class="bar" style="width:${width}px"></span> ${escape(percent(n / connections))}</td><td><code>${escape(end)}</code></td><td>${escape(beside)}</td></tr>`;
  });
  return [
    `<h2>What really happened</h2><p class="faint">${escape(describeHow(observation))}</p>`,
    `<p class="answer${agrees === false ? ' bad' : ''}">${escape(verdict(observation))}</p>`,
    rows.length === 0 ? '' : `<table>${rows.join('')}</table>`,
    ...remarks.map((remark) => `<p class="faint">Note: ${escape(remark)}</p>`),
    ...ways.slice(0, waysMost).map((way) => renderWay(way, ways)),
  ].join('\n');
}

function renderWay(way: ObservedWay, ways: readonly ObservedWay[]): string {
  return `<h2>The kernel’s trace of ${escape(describeWay(way, ways))}</h2>${way.hooks.map(renderHook).join('')}<p>⇒ ${escape(way.ended)}</p>`;
}

function renderHook({ hook, packet, steps }: LaidHook): string {
  const came = packet === '' ? '' : `<div>came in as <code class="packet">${escape(packet)}</code></div>`;
  return `<section class="hook seen"><h3>${hook.toUpperCase()}</h3>${came}<ol>${steps.map(renderStep).join('')}</ol></section>`;
}

function renderStep(step: LaidStep): string {
  const { chain, rule, did, judgement, note } = step;
  const text = rule === '' ? (did === '' ? '' : `policy ${did}`) : rule;
  const went = showsVerdict(step) ? `<div>⇒ ${escape(did)}</div>` : '';
  const title = judgement === 'differs' ? 'Here it differs: ' : '';
  const said = note === '' ? '' : `<div class="note">${escape(title + note)}</div>`;
  return `<li class="${judgement}"><span class="sign">${judgementSigns[judgement]}</span><code>${escape(chain)}: ${escape(text)}</code>${went}${said}</li>`;
}
