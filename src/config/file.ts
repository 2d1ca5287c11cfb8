/** Text of a configuration file → Document. Strict first; what strictness alone objects to is reported and let pass. */
import { parseDocument, type Document as YamlDocument } from 'yaml';
import { apiVersion, decodeTree, isMap, kind, type Document } from './schema.ts';

export interface DecodedFile {
  readonly document: Document;
  /** What strict decoding objected to: unknown fields, keys given twice (the last one counts). */
  readonly strictErrors: readonly string[];
}

/** YAML 1.1 as Kubernetes reads it: `yes` is true, but `1:30` and dates are strings. */
const foreignTags = new Set([
  'tag:yaml.org,2002:int TIME',
  'tag:yaml.org,2002:float TIME',
  'tag:yaml.org,2002:timestamp',
]);

/** Throws an Error whose message begins `failed to decode:` and lists all that is wrong. */
export function decodeFile(text: string): DecodedFile {
  const strictErrors: string[] = [];
  const tree = parseTree(text, strictErrors);
  if (!isMap(tree)) throw failed(['the file must hold a map of fields']);
  const { kind: givenKind, apiVersion: givenVersion } = tree;
  if (typeof givenKind !== 'string' || givenKind === '')
    throw failed([`Object 'Kind' is missing: add "kind: ${kind}"`]);
  if (givenKind !== kind || givenVersion !== apiVersion) {
    const shown = typeof givenVersion === 'string' ? givenVersion : '';
    throw failed([
      `no kind "${givenKind}" is registered for version "${shown}": use "kind: ${kind}" and "apiVersion: ${apiVersion}"`,
    ]);
  }
  const { document, unknown, errors } = decodeTree(tree);
  if (errors.length > 0) throw failed(errors);
  strictErrors.push(...unknown.map((path) => `unknown field "${path}"`));
  return { document, strictErrors };
}

function parseTree(text: string, strictErrors: string[]): unknown {
  const yaml = parseDocument(text, {
    version: '1.1',
    merge: true,
    customTags: (tags) =>
      tags.filter(
        (tag) =>
          typeof tag === 'string' || !foreignTags.has(`${tag.tag}${tag.format ? ` ${tag.format}` : ''}`),
      ),
  });
  const problems = yaml.errors.filter(
    (error) => error.code !== 'DUPLICATE_KEY' && error.code !== 'MULTIPLE_DOCS',
  );
  if (problems.length > 0) {
    // JSON that is no YAML: indented with tabs, say.
    const json = text.trimStart().startsWith('{') ? parseJson(text) : undefined;
    if (json !== undefined) return json;
    // One mistake makes the parser stumble many times: the first places are those to look at.
    const first = problems
      .slice(0, 2)
      .map(({ message }) => message.split('\n')[0]?.replace(/:$/, '') ?? message);
    const rest = problems.length - first.length;
    throw failed(rest > 0 ? [...first, `and ${rest} more`] : first);
  }
  for (const error of yaml.errors) {
    if (error.code === 'DUPLICATE_KEY') {
      strictErrors.push(
        `key ${quoteKeyAt(text, error.pos[0])} on line ${error.linePos?.[0].line ?? '?'} is given twice`,
      );
    } else {
      strictErrors.push('only the first YAML document of the file is read');
    }
  }
  return toTree(yaml);
}

function toTree(yaml: YamlDocument): unknown {
  try {
    return yaml.toJS({ maxAliasCount: 100 });
  } catch (error) {
    throw failed([error instanceof Error ? error.message : String(error)]);
  }
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    // Neither YAML nor JSON: the caller reports what YAML objected to.
    return undefined;
  }
}

function quoteKeyAt(text: string, position: number): string {
  return JSON.stringify(/^["']?([\w.-]*)/.exec(text.slice(position))?.[1] ?? '');
}

function failed(problems: readonly string[]): Error {
  return new Error(`failed to decode: ${problems.join('; ')}`);
}
