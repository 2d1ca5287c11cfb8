/** What one rule makes of a packet, statement by statement. */
import { assumed, type Effect, type Flow, type Result, type Surroundings } from '../flow.ts';
import { formatPlace } from '../packet.ts';
import { addressText, NotKnown } from './fields.ts';
import type { Expr, NftRule, NftVerdict, Value } from './form.ts';
import type { Looked, TableValues } from './values.ts';

/** What a rule made of the packet: not matched, done with its last statement, or a verdict. */
export type RuleEnd =
  | { readonly kind: 'break' }
  | { readonly kind: 'done'; readonly flow: Flow }
  | {
      readonly kind: 'verdict';
      readonly flow: Flow;
      readonly verdict: NftVerdict;
      readonly element?: { text: string; comment: string };
    }
  | {
      readonly kind: 'final';
      readonly flow: Flow;
      readonly effect: Effect;
      readonly verdict: Result['verdict'];
      readonly element?: { text: string; comment: string };
    }
  | { readonly kind: 'question'; readonly question: string; readonly usual: boolean | undefined };

/** @param drawn the number that the rule draws, if it draws one */
export function evaluateRule(
  values: TableValues,
  rule: NftRule,
  start: Flow,
  at: Surroundings,
  drawn: number | undefined,
): RuleEnd {
  let flow = start;
  const looked: Looked = { element: undefined };
  const value = (expr: Expr): readonly Value[] | undefined => values.value(expr, flow, at, drawn, looked);
  const withElement = (): { element?: { text: string; comment: string } } =>
    looked.element === undefined ? {} : { element: looked.element };
  try {
    for (const statement of rule.statements) {
      switch (statement.kind) {
        case 'match': {
          let answer: boolean;
          try {
            answer = values.match(statement, value, rule);
          } catch (reason) {
            if (!(reason instanceof NotKnown) || onlyCounts(rule)) throw reason;
            // What cannot be told is asked; everything else in the rule still counts.
            const question = `"${rule.text}" matches, which asks for ${reason.question}`;
            const known = assumed(start, question);
            if (known === undefined) return { kind: 'question', question, usual: undefined };
            answer = known;
          }
          if (!answer) return { kind: 'break' };
          break;
        }
        case 'vmap': {
          const key = value(statement.key);
          if (key === undefined) return { kind: 'break' };
          const found = values.index(statement.set).find(key);
          if (found?.verdict === undefined) return { kind: 'break' };
          return {
            kind: 'verdict',
            flow,
            verdict: found.verdict,
            element: { text: found.text, comment: found.comment },
          };
        }
        case 'verdict':
          return { kind: 'verdict', flow, verdict: statement.verdict, ...withElement() };
        case 'set': {
          const found = value(statement.value)?.[0];
          if (found === undefined) return { kind: 'break' };
          const number = typeof found === 'bigint' ? Number(found) : 0;
          if (statement.field === 'meta mark') flow = { ...flow, mark: number };
          else if (statement.field === 'ct mark') flow = { ...flow, connectionMark: number };
          else if (statement.field === 'meta priority') flow = { ...flow, priority: number };
          break;
        }
        case 'dnat': {
          const address = statement.address === undefined ? undefined : value(statement.address);
          if (statement.address !== undefined && address === undefined) return { kind: 'break' };
          // A map may give address and port at once.
          const port = statement.port === undefined ? address?.[1] : value(statement.port)?.[0];
          const to = address?.[0];
          const destination = to === undefined ? flow.destination : addressText(to, at);
          const destinationPort = typeof port === 'bigint' ? Number(port) : flow.destinationPort;
          const effect: Effect = { kind: 'dnat', to: formatPlace(destination, destinationPort) };
          const translated: Flow = { ...flow, destination, destinationPort, dnat: 'translated' };
          return { kind: 'final', flow: translated, effect, verdict: 'accept', ...withElement() };
        }
        case 'redirect': {
          const port = statement.port === undefined ? undefined : value(statement.port)?.[0];
          const loopback = at.world.family === 'IPv6' ? '::1' : '127.0.0.1';
          const destination = at.hook === 'output' ? loopback : at.world.nodeIP;
          const destinationPort = typeof port === 'bigint' ? Number(port) : flow.destinationPort;
          const effect: Effect = { kind: 'dnat', to: formatPlace(destination, destinationPort) };
          return {
            kind: 'final',
            flow: { ...flow, destination, destinationPort, dnat: 'translated' },
            effect,
            verdict: 'accept',
          };
        }
        case 'snat': {
          const address = statement.address === undefined ? undefined : value(statement.address)?.[0];
          if (address === undefined) return { kind: 'break' };
          const source = addressText(address, at);
          return {
            kind: 'final',
            flow: { ...flow, source, snat: 'snat' },
            effect: { kind: 'snat', to: source },
            verdict: 'accept',
          };
        }
        case 'masquerade':
          return {
            kind: 'final',
            flow: { ...flow, snat: 'masquerade' },
            effect: { kind: 'masquerade' },
            verdict: 'accept',
          };
        case 'reject':
          return {
            kind: 'final',
            flow,
            effect: { kind: 'reject', with: statement.with },
            verdict: 'reject',
            ...withElement(),
          };
        case 'notrack':
          flow = { ...flow, untracked: true };
          break;
        case 'maybe': {
          const known = assumed(flow, statement.question);
          if (known === undefined)
            return { kind: 'question', question: statement.question, usual: statement.usual };
          if (!known) return { kind: 'break' };
          break;
        }
        case 'unknown':
          if (onlyCounts(rule)) return { kind: 'break' };
          throw new NotKnown(statement.text);
        case 'remember':
        case 'nothing':
          break;
      }
    }
  } catch (reason) {
    if (!(reason instanceof NotKnown)) throw reason;
    if (onlyCounts(rule)) return { kind: 'break' };
    const known = assumed(start, reason.question);
    if (known === undefined) return { kind: 'question', question: reason.question, usual: undefined };
    // It may match for all we know, but what it does cannot be followed.
    if (!known) return { kind: 'break' };
    return { kind: 'final', flow, effect: { kind: 'unknown', text: reason.question }, verdict: 'unknown' };
  }
  return { kind: 'done', flow };
}

/** The rule has no effect beyond counting and logging. */
function onlyCounts(rule: NftRule): boolean {
  return (
    rule.statements.every(
      ({ kind }) =>
        kind === 'match' ||
        kind === 'nothing' ||
        kind === 'remember' ||
        kind === 'unknown' ||
        kind === 'maybe',
    ) && rule.statements.some(({ kind }) => kind === 'nothing' || kind === 'remember')
  );
}
