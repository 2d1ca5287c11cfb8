/** Finds what is wrong, and says it in words: the classic mistakes around Services. */
import type { Case } from './case.ts';
import { aboutRoute } from './findings/aboutRoute.ts';
import type { Finding, Report } from './findings/finding.ts';
import { dependence, supposition } from './outcome.ts';
import { withoutService } from './findings/noService.ts';
import { conditions } from './findings/words.ts';
import { foreignRules, goneEndpoints, nobodyListens, oldConnections, staleFlows } from './findings/rules.ts';

export type { Finding } from './findings/finding.ts';

export function diagnose(given: Case): Finding[] {
  const findings: Finding[] = [];
  const report: Report = (severity, reason, message, advice = '') => {
    if (!findings.some((one) => one.message === message))
      findings.push({ severity, reason, message, advice });
  };
  const { decision, catalog, prediction, rules } = given;
  const [usual] = prediction.possibilities;
  const outcomes = usual?.outcomes ?? [];
  const depends = dependence(prediction);
  // What follows from the shown way alone is no more certain than that is.
  const ofThisWay: Report =
    depends === undefined
      ? report
      : (severity, reason, message, advice) =>
          report(
            severity === 'cause' ? 'warning' : severity,
            reason,
            `${conditions(depends.supposed.map(supposition))}: ${message}`,
            advice,
          );
  if (rules.kind !== 'wanted') foreignRules(given, outcomes, ofThisWay);
  if (decision?.route !== undefined) {
    const info = catalog?.service(`${decision.route.port.namespace}/${decision.route.port.service}`);
    aboutRoute(given, decision.route, info, report);
  } else if (catalog !== undefined) withoutService(given, report);
  staleFlows(given, report);
  oldConnections(given, report);
  nobodyListens(given, outcomes, ofThisWay);
  goneEndpoints(given, outcomes, ofThisWay);
  for (const { assumptions } of prediction.possibilities) {
    for (const { kind, question, usual: ordinary } of assumptions) {
      if (kind === 'affinity' || ordinary !== false) continue;
      report('note', 'unknown_condition', `Whether ${question} cannot be told from here.`);
    }
  }
  if (prediction.incomplete) {
    report('note', 'incomplete', 'The rules branch so often that not every possibility was followed.');
  }
  return findings.sort((a, b) => order[a.severity] - order[b.severity]);
}

const order = { cause: 0, warning: 1, note: 2 } as const;
