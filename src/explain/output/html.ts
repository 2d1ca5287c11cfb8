/** An explanation as one page: a picture of the way through the hooks, readable without knowing them. No scripts. */
import type { Explanation, ToldHook, ToldStep } from '../explanation.ts';
import { conditions, percent } from '../findings/words.ts';
import type { Observation } from '../live.ts';
import { liveStyle, renderObservation } from './liveHtml.ts';
import { glossary } from './glossary.ts';
import { drawWay } from './picture.ts';
import { escape } from './escape.ts';
import { ends } from './terminal.ts';

const hookMeaning: Readonly<Record<string, string>> = {
  prerouting:
    'The packet has just come in. Rules here may change where it goes: this is where a Service address becomes the address of a Pod.',
  input: 'The packet is for this machine itself. Rules here may refuse it.',
  forward: 'The packet goes through this machine to another one, or to a Pod. Rules here may refuse it.',
  output: 'A program on this machine sends the packet. Rules here may change where it goes, or refuse it.',
  postrouting: 'The packet is about to leave. Rules here may change whom it seems to come from.',
};

const style = `
:root{--back:#fbfaf8;--ink:#22252a;--faint:#6d7178;--line:#d9d6d0;--card:#fff;--accent:#1f6f8b;--good:#2b7a4b;--bad:#b3372f;--soft:#eef4f6}
@media (prefers-color-scheme:dark){:root{--back:#17191c;--ink:#e7e5e1;--faint:#9a9ea6;--line:#3a3e45;--card:#202327;--accent:#6cb8d0;--good:#74c493;--bad:#ef8077;--soft:#232b30}}
*{box-sizing:border-box}body{margin:0;background:var(--back);color:var(--ink);font:16px/1.55 system-ui,sans-serif}
main{max-width:64rem;margin:0 auto;padding:2rem 1.2rem 4rem}h1{font-size:1.5rem;margin:0 0 .2rem}h2{font-size:1.1rem;margin:2.4rem 0 .6rem}
.faint{color:var(--faint)}code{font:.86em/1.45 ui-monospace,Menlo,Consolas,monospace;overflow-wrap:anywhere}
.answer{font-size:1.15rem;border-left:4px solid var(--good);background:var(--card);padding:.8rem 1rem;margin:1.2rem 0;border-radius:0 6px 6px 0}
.answer.bad{border-color:var(--bad)}.finding{background:var(--card);border:1px solid var(--line);border-radius:6px;padding:.7rem 1rem;margin:.6rem 0}
.finding.cause{border-color:var(--bad)}.finding b{display:block}.advice{color:var(--accent)}
svg{display:block;max-width:100%;height:auto;margin:.6rem 0}svg.tall{display:none}dt{font-weight:600;margin-top:.6rem}dd{margin:0}
table{border-collapse:collapse;width:100%}td{padding:.25rem .8rem .25rem 0;border-bottom:1px solid var(--line);vertical-align:top}
td:first-child,td code{white-space:nowrap}
@media (max-width:44rem){h1{font-size:1.15rem}td code{white-space:normal}svg.wide{display:none}svg.tall{display:block}main{padding:1.2rem .9rem 3rem}table,tbody,tr{display:block}tr{border-bottom:1px solid var(--line);padding:.3rem 0}td{display:inline-block;border:0;padding:.1rem .8rem .1rem 0}}
.bar{display:inline-block;height:.7em;background:var(--accent);border-radius:2px}
section.hook{border:1px solid var(--line);background:var(--card);border-radius:8px;padding:.8rem 1rem;margin:.8rem 0}
section.hook h3{margin:0;font-size:1rem;letter-spacing:.04em}ol{list-style:none;margin:.6rem 0 0;padding:0}
li{border-left:2px solid var(--line);padding:.1rem 0 .5rem .9rem}li.rewrite{border-color:var(--good)}li.end{border-color:var(--bad)}
.rule{display:block;color:var(--faint)}.cause-text{color:var(--accent)}.packet{display:inline-block;background:var(--soft);border-radius:4px;padding:0 .4em;margin-top:.15rem}
`;

/** @param live what really happened, where somebody looked */
export function renderPage(explanation: Explanation, live?: Observation): string {
  const { question, outcomes, way, findings, conntrack, otherwise, remarks, node } = explanation;
  const isBad = outcomes.some(({ kind }) => kind === 'drop' || kind === 'reject' || kind === 'unknown');
  const title = `${question.protocol} ${question.source} → ${question.destination}`;
  const parts = [
    `<h1><code>${escape(title)}</code></h1>`,
    `<div class="faint">from ${escape(question.from)}; rules of ${escape(node || 'this node')}, ${escape(explanation.rules)}</div>`,
    `<p class="answer${isBad ? ' bad' : ''}">${escape(explanation.answer)}</p>`,
    ...remarks.map((remark) => `<p class="faint">Note: ${escape(remark)}</p>`),
    ...findings.map(
      ({ severity, message, advice }) =>
        `<div class="finding ${severity}"><b>${{ cause: 'Why', warning: 'Look at this', note: 'Note' }[severity]}</b>${escape(message)}${advice === '' ? '' : `<div class="advice">→ ${escape(advice)}</div>`}</div>`,
    ),
    '<h2>The way through the machine</h2>',
    '<p class="faint">A packet passes gates in the kernel, called hooks. At each of them there may be rules: they change where the packet goes or whom it seems to come from, or stop it. Green: something is rewritten. Red: it ends here.</p>',
    drawWay(explanation),
    drawWay(explanation, 'tall'),
  ];
  if (outcomes.some(({ kind }) => kind === 'endpoint')) {
    parts.push('<h2>Who gets it</h2><table>');
    for (const { destination, kind, probability, who } of outcomes.slice(0, 50)) {
      const width = Math.max(1, Math.round(probability * 160));
      parts.push(
        `<tr><td><span class="bar" style="width:${width}px"></span> ${escape(percent(probability))}</td><td>${kind === 'endpoint' ? `<code>${escape(destination)}</code>` : `nobody: ${ends[kind]}`}</td><td>${escape(who)}</td></tr>`,
      );
    }
    parts.push('</table>');
    const why = outcomes.find((one) => one.why !== '')?.why;
    if (why !== undefined) parts.push(`<p>The source is rewritten: ${escape(why)}.</p>`);
  }
  parts.push('<h2>Rule by rule</h2>', ...way.map(hookSection));
  for (const { outcome, way: rest } of explanation.otherWays.slice(0, 4)) {
    parts.push(
      `<h2>Another way, ${percent(outcome.probability)}: ${ends[outcome.kind]}</h2>`,
      ...rest.map(hookSection),
    );
  }
  parts.push(
    '<h2>What connection tracking remembers</h2>',
    ...conntrack.map((line) => `<p>${escape(line)}</p>`),
  );
  if (otherwise.length > 0) parts.push('<h2>Otherwise</h2>');
  for (const { assumptions, outcomes: others } of otherwise) {
    const list = others
      .slice(0, 6)
      .map(
        ({ probability, kind, destination }) =>
          `${percent(probability)} ${kind === 'endpoint' ? destination : kind}`,
      );
    parts.push(`<p>${escape(conditions(assumptions))}: ${escape(list.join(', '))}</p>`);
  }
  if (live !== undefined) parts.push(renderObservation(live));
  parts.push(glossary(explanation));
  return `<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1"><title>${escape(title)}</title><style>${style}${live === undefined ? '' : liveStyle}</style></head><body><main>${parts.join('\n')}</main></body></html>\n`;
}

function hookSection({ hook, packet, steps }: ToldHook): string {
  return `<section class="hook"><h3>${hook.toUpperCase()}</h3><div class="faint">${escape(hookMeaning[hook] ?? '')}</div><div>comes in as <code class="packet">${escape(packet)}</code></div>${steps.some(({ rule, effectKind }) => rule !== '' || effectKind === 'drop') ? '' : '<div class="faint">No rule concerns it.</div>'}<ol>${steps.map(stepItem).join('')}</ol></section>`;
}

function stepItem(step: ToldStep): string {
  const ends = step.effectKind === 'drop' || step.effectKind === 'reject' || step.effectKind === 'unknown';
  const kind = step.rewrites ? ' class="rewrite"' : ends ? ' class="end"' : '';
  const rule =
    step.rule === ''
      ? ''
      : `<code class="rule">${escape(step.chain)}: ${escape(step.rule)}${step.element === '' ? '' : `<br>element ${escape(step.element)}`}</code>`;
  const cause = step.cause === '' ? '' : `<div class="cause-text">because: ${escape(step.cause)}</div>`;
  const now = step.rewrites ? `<div>now <code class="packet">${escape(step.packet)}</code></div>` : '';
  return `<li${kind}>${rule}<div>${escape(step.effect)}</div>${cause}${now}</li>`;
}
