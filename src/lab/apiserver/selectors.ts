/** Label and field selectors, in the grammar of the Kubernetes API. */
import { badRequest } from './status.ts';

export type Labels = Readonly<Record<string, string>>;
export type LabelMatcher = (labels: Labels | undefined) => boolean;

interface Requirement {
  readonly key: string;
  readonly operator: 'in' | 'notin' | 'exists' | '!' | 'gt' | 'lt';
  readonly values: readonly string[];
}

const keyPattern = /^([a-z0-9A-Z]([-a-z0-9A-Z.]*[a-z0-9A-Z])?\/)?[a-z0-9A-Z]([-a-z0-9A-Z_.]*[a-z0-9A-Z])?$/;
const valuePattern = /^([a-z0-9A-Z]([-a-z0-9A-Z_.]*[a-z0-9A-Z])?)?$/;

/** Splits at commas that are not inside parentheses. */
function splitRequirements(text: string): string[] {
  const parts: string[] = [];
  let depth = 0;
  let start = 0;
  for (let index = 0; index < text.length; index++) {
    const character = text[index];
    if (character === '(') depth++;
    else if (character === ')') depth--;
    else if (character === ',' && depth === 0) {
      parts.push(text.slice(start, index));
      start = index + 1;
    }
  }
  parts.push(text.slice(start));
  return parts.map((part) => part.trim());
}

function unparsable(text: string): Error {
  return badRequest(`unable to parse requirement: ${JSON.stringify(text)} is not a label selector`);
}

function parseRequirement(text: string): Requirement {
  const set = /^(\S+)\s+(in|notin)\s*\(([^()]*)\)$/.exec(text);
  if (set !== null) {
    const values = (set[3] ?? '').split(',').map((value) => value.trim());
    return checked({ key: set[1] ?? '', operator: set[2] as 'in' | 'notin', values }, text);
  }
  const exists = /^(!?)\s*([^\s=!<>]+)$/.exec(text);
  if (exists !== null) {
    return checked({ key: exists[2] ?? '', operator: exists[1] === '!' ? '!' : 'exists', values: [] }, text);
  }
  const compare = /^([^\s=!<>]+)\s*(==|!=|=|>|<)\s*(\S*)$/.exec(text);
  if (compare === null) throw unparsable(text);
  const operators = { '=': 'in', '==': 'in', '!=': 'notin', '>': 'gt', '<': 'lt' } as const;
  const operator = operators[compare[2] as keyof typeof operators];
  return checked({ key: compare[1] ?? '', operator, values: [compare[3] ?? ''] }, text);
}

function checked(requirement: Requirement, text: string): Requirement {
  if (!keyPattern.test(requirement.key)) throw unparsable(text);
  if (!requirement.values.every((value) => valuePattern.test(value))) throw unparsable(text);
  return requirement;
}

function satisfies(requirement: Requirement, labels: Labels): boolean {
  const value = Object.hasOwn(labels, requirement.key) ? labels[requirement.key] : undefined;
  switch (requirement.operator) {
    case 'in':
      return value !== undefined && requirement.values.includes(value);
    case 'notin':
      return value === undefined || !requirement.values.includes(value);
    case 'exists':
      return value !== undefined;
    case '!':
      return value === undefined;
    case 'gt':
      return value !== undefined && Number(value) > Number(requirement.values[0]);
    case 'lt':
      return value !== undefined && Number(value) < Number(requirement.values[0]);
  }
}

const noLabels: Labels = {};

/** A matcher for `app=web,tier in (a,b),!old`; undefined if the selector is empty. Throws 400. */
export function parseLabelSelector(text: string | null | undefined): LabelMatcher | undefined {
  if (text === null || text === undefined || text.trim() === '') return undefined;
  const requirements = splitRequirements(text).map(parseRequirement);
  return (labels) => requirements.every((one) => satisfies(one, labels ?? noLabels));
}

export interface LabelSelectorObject {
  matchLabels?: Record<string, string>;
  matchExpressions?: { key: string; operator: string; values?: string[] }[];
}

/** A matcher for `spec.selector` of Deployments and ReplicaSets. An empty selector matches everything. */
export function labelSelectorMatcher(selector: LabelSelectorObject): LabelMatcher {
  const requirements: Requirement[] = Object.entries(selector.matchLabels ?? {}).map(([key, value]) => ({
    key,
    operator: 'in',
    values: [value],
  }));
  const operators = { In: 'in', NotIn: 'notin', Exists: 'exists', DoesNotExist: '!' } as const;
  for (const { key, operator, values } of selector.matchExpressions ?? []) {
    const known = operators[operator as keyof typeof operators];
    if (known !== undefined) requirements.push({ key, operator: known, values: values ?? [] });
  }
  return (labels) => requirements.every((one) => satisfies(one, labels ?? noLabels));
}

/** `a=b,c!=d` with the fields a resource knows; undefined if empty. Throws 400 for unknown fields. */
export function parseFieldSelector<T>(
  text: string | null | undefined,
  kind: string,
  fields: Readonly<Record<string, (object: T) => string>>,
): ((object: T) => boolean) | undefined {
  if (text === null || text === undefined || text.trim() === '') return undefined;
  const terms = text.split(',').map((term) => {
    const match = /^\s*([^=!\s]+)\s*(==|!=|=)\s*(\S*)\s*$/.exec(term);
    if (match === null) throw badRequest(`invalid selector: '${text}'; can't understand '${term}'`);
    const name = match[1] ?? '';
    const read = Object.hasOwn(fields, name) ? fields[name] : undefined;
    if (read === undefined) throw badRequest(`field label not supported: ${name} (kind ${kind})`);
    return { read, equal: match[2] !== '!=', value: match[3] ?? '' };
  });
  return (object) => terms.every((term) => (term.read(object) === term.value) === term.equal);
}
