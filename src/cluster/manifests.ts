/** Manifests from files: YAML or JSON, several documents a file, Lists, whole folders; into the same compact objects. */
import { readFileSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import {
  LineCounter,
  isCollection,
  isMap,
  isNode,
  isScalar,
  parseAllDocuments,
  parseDocument,
  visit,
} from 'yaml';
import type { Document, ParseOptions, DocumentOptions, SchemaOptions, Tags } from 'yaml';
import type { ApiObject, Kind } from '../api/objects.ts';
import { fileReason } from '../config/fileError.ts';
import { meant } from '../config/spelling.ts';
import { jsonPlaces, type JsonPlace } from './jsonPositions.ts';
import { decodeJsonObject } from './decode/json.ts';
import { checkStrictly } from './strict.ts';
import { listPieces, yamlDocuments, type YamlPiece } from './yamlPieces.ts';

/** Something in a file that cannot be used. */
export interface ManifestProblem {
  readonly file: string;
  /** Both count from 1; 0 = the file as a whole. */
  readonly line: number;
  readonly column: number;
  /** `namespace/name`, where known. */
  readonly object: string;
  /** Path of the field, as `spec.ports[0].port`; may be empty. */
  readonly field: string;
  readonly message: string;
}

/** Where something stands in a file; both count from 1. */
export interface Position {
  readonly line: number;
  readonly column: number;
}

export interface ManifestObject {
  readonly object: ApiObject;
  readonly file: string;
  /** Where the object begins, from 1. */
  readonly line: number;
  /** As written: the compact form leaves much out. */
  readonly value: Readonly<Record<string, unknown>>;
  /** Where a field stands (`spec.ports[0].port`), or what comes nearest to it if it is not there. */
  position(field: string): Position;
}

/**
 * An object of a kind that no service proxy reads, but that says what Services mean: Pods and what makes them, and
 * Endpoints, which somebody may take for slices.
 */
export interface OtherObject {
  readonly kind: string;
  readonly value: Readonly<Record<string, unknown>>;
  readonly file: string;
  readonly line: number;
}

export interface ReadOptions {
  /** Report unknown fields and wrong types everywhere, not only where they cost something. Default false. */
  readonly strict?: boolean;
  /** What the path `-` stands for; default: standard input, read to its end. */
  readonly standardInput?: () => string;
}

export interface Manifests {
  readonly objects: readonly ManifestObject[];
  readonly problems: readonly ManifestProblem[];
  /** Objects of kinds that no service proxy reads, as `Deployment`: how many of each. */
  readonly ignored: ReadonlyMap<string, number>;
  /** Those of them that are Pods, make Pods, or are Endpoints. */
  readonly others: readonly OtherObject[];
}

/** `file:line:column: object field: message` */
export function formatProblem(problem: ManifestProblem): string {
  const { file, line, column, object, field, message } = problem;
  const where = line === 0 ? file : `${file}:${line}:${column}`;
  const what = [object, field].filter((text) => text !== '').join(' ');
  return `${where}: ${what === '' ? '' : `${what}: `}${message}`;
}

/**
 * Reads files, folders (their .yaml, .yml and .json files, in order of name, subfolders too) and standard input (`-`).
 * Never throws: see `problems`.
 */
export function readManifests(paths: readonly string[], options: ReadOptions = {}): Manifests {
  const collected = new Collector(options.strict === true);
  for (const path of paths) {
    try {
      if (path === '-') {
        collected.file('stdin', (options.standardInput ?? (() => decode(readFileSync(0))))());
        continue;
      }
      const files = filesIn(path);
      if (files.length === 0)
        collected.problem({ file: path, message: 'there is no .yaml, .yml or .json file in this folder' });
      for (const file of files) collected.file(file, decode(readFileSync(file)));
    } catch (error) {
      collected.problem({ file: path, message: `cannot be read: ${fileReason(error)}` });
    }
  }
  return collected;
}

/** Reads manifests from text. @param file the name that problems are reported under */
export function parseManifests(file: string, text: string, options: ReadOptions = {}): Manifests {
  const collected = new Collector(options.strict === true);
  collected.file(file, text);
  return collected;
}

/** UTF-8, or UTF-16 with its mark: what `kubectl get … > FILE` makes in Windows PowerShell. */
function decode(bytes: Buffer): string {
  const mark = bytes.length < 2 ? 0 : bytes.readUInt16BE(0);
  if (mark === 0xfffe) return bytes.toString('utf16le', 2);
  if (mark === 0xfeff && bytes.length % 2 === 0) return bytes.swap16().toString('utf16le', 2);
  return bytes.toString('utf8');
}

/**
 * YAML as kubectl reads it, which is version 1.1: `<<` merges maps, `yes`, `on` and `y` are booleans, `0777` is octal. Times
 * stay text, as they are in JSON, and `1:30` is no number there.
 */
const asKubectl: ParseOptions & DocumentOptions & SchemaOptions = {
  uniqueKeys: true,
  schema: 'yaml-1.1',
  merge: true,
  customTags: (tags: Tags) =>
    tags.flatMap((tag) => {
      if (typeof tag === 'string') return tag;
      return tag.tag === 'tag:yaml.org,2002:timestamp' || tag.format === 'TIME' ? [] : tag;
    }),
};

function filesIn(path: string): string[] {
  if (!statSync(path).isDirectory()) return [path];
  const files: string[] = [];
  const entries = readdirSync(path, { withFileTypes: true }).sort((a, b) => (a.name < b.name ? -1 : 1));
  for (const entry of entries) {
    const inner = join(path, entry.name);
    if (entry.isDirectory()) files.push(...filesIn(inner));
    else if (/\.(ya?ml|json)$/.test(entry.name)) files.push(inner);
  }
  return files;
}

/** The versions each kind is read in. */
const versions: Readonly<Record<Kind, readonly string[]>> = {
  Service: ['v1'],
  EndpointSlice: ['discovery.k8s.io/v1'],
  Node: ['v1'],
  ServiceCIDR: ['networking.k8s.io/v1', 'networking.k8s.io/v1beta1'],
};

function isKind(kind: string): kind is Kind {
  return Object.hasOwn(versions, kind);
}

type Path = readonly (string | number)[];
type PlacedProblem = Pick<ManifestProblem, 'file' | 'message'> & Partial<ManifestProblem>;

/** True: a kind of this name in another API group, as Knative's Service. */
function isForeign(kind: Kind, apiVersion: unknown): boolean {
  const group = (text: string): string => (text.includes('/') ? text.slice(0, text.indexOf('/')) : '');
  return typeof apiVersion === 'string' && group(apiVersion) !== group(versions[kind][0] ?? '');
}

/** The kind that was probably meant by one that nobody reads. */
function kindMeant(kind: string, apiVersion: unknown): Kind | undefined {
  const kinds = (Object.keys(versions) as Kind[]).filter((one) => versions[one].includes(String(apiVersion)));
  const same = kinds.find((one) => one.toLowerCase() === kind.toLowerCase());
  if (same !== undefined || kind.length < 6) return same;
  const near = meant(kind, kinds, 1);
  return kinds.find((one) => one === near);
}

/** Kinds that are Pods or make them, and Endpoints. */
const otherKinds = new Set([
  'Pod',
  'Deployment',
  'StatefulSet',
  'DaemonSet',
  'ReplicaSet',
  'ReplicationController',
  'Job',
  'Endpoints',
]);

class Collector implements Manifests {
  readonly objects: ManifestObject[] = [];
  readonly problems: ManifestProblem[] = [];
  readonly ignored = new Map<string, number>();
  readonly others: OtherObject[] = [];
  private readonly strict: boolean;

  constructor(strict: boolean) {
    this.strict = strict;
  }

  problem(problem: PlacedProblem): void {
    this.problems.push({ line: 0, column: 0, object: '', field: '', ...problem });
  }

  file(file: string, text: string): void {
    const json = parseJson(text);
    if (json !== undefined) {
      if (json.value !== null) this.value(new Source(file, () => placesInJson(text)), json.value, []);
      return;
    }
    const lines = new Lines(text);
    for (const piece of yamlDocuments(text))
      if (!this.list(file, piece, lines)) this.documents(file, piece, lines);
  }

  private documents(file: string, { text, at }: YamlPiece, lines: Lines): void {
    const documents = parseAllDocuments(text, asKubectl);
    for (const document of documents) {
      const [error] = document.errors;
      if (error !== undefined) {
        const { line, col } = lines.counter.linePos(at + error.pos[0]);
        const said = error.message.split(' at line', 1)[0]?.split('\n', 1)[0] ?? error.message;
        const twice = error.code === 'DUPLICATE_KEY';
        const message = twice ? 'the same key comes twice in this map' : `not valid YAML: ${said}`;
        this.problem({ file, line, column: col, message });
        continue;
      }
      // Trees are large, and places are rarely asked for: what stands alone is read again then.
      const tree =
        documents.length === 1 ? (): Document => parseDocument(text, asKubectl) : (): Document => document;
      const circle = text.includes('*') ? circularAlias(document) : undefined;
      if (circle !== undefined) {
        const { line, col } = lines.counter.linePos(at + circle);
        const message = 'cannot be read: this alias is inside what it stands for';
        this.problem({ file, line, column: col, message });
        continue;
      }
      let value: unknown;
      try {
        value = document.toJS();
      } catch (failure) {
        const { line, col } = lines.counter.linePos(at + badAlias(document));
        const message = `cannot be read: ${(failure as Error).message}`;
        this.problem({ file, line, column: col, message });
        continue;
      }
      if (value !== null && value !== undefined)
        this.value(new Source(file, () => yamlPlaces(tree(), lines, at)), value, []);
    }
  }

  /** Reads a List item by item; false: it is none, or something in it has to be read as part of the whole. */
  private list(file: string, piece: YamlPiece, lines: Lines): boolean {
    const pieces = listPieces(piece);
    const frame = pieces === undefined ? undefined : soundValue(pieces.frame);
    if (pieces === undefined || frame === undefined) return false;
    const { kind, apiVersion } = (frame.value ?? {}) as Record<string, unknown>;
    if (typeof kind !== 'string' || !kind.endsWith('List')) return false;
    const values: unknown[] = [];
    for (const { text } of pieces.items) {
      const item = soundValue(text);
      // What is empty stands nowhere by itself.
      if (item?.value === undefined || item.value === null) return false;
      values.push(item.value);
    }
    values.forEach((value, i) => {
      const { text, at } = pieces.items[i]!;
      const source = new Source(file, () => yamlPlaces(parseDocument(text, asKubectl), lines, at));
      this.item(source, kind, apiVersion, value, []);
    });
    return true;
  }

  private value(source: Source, value: unknown, path: Path): void {
    const at = (field: Path): Pick<ManifestProblem, 'file' | 'line' | 'column'> =>
      source.position([...path, ...field]);
    if (typeof value !== 'object' || value === null || Array.isArray(value)) {
      this.problem({ ...at([]), message: 'is no Kubernetes object (a map with apiVersion and kind)' });
      return;
    }
    const { kind, apiVersion, items } = value as Record<string, unknown>;
    if (typeof kind !== 'string' || kind === '') {
      this.problem({ ...at([]), field: 'kind', message: 'is missing' });
    } else if (kind.endsWith('List') && Array.isArray(items)) {
      items.forEach((item: unknown, i) => this.item(source, kind, apiVersion, item, [...path, 'items', i]));
    } else if (!isKind(kind) || isForeign(kind, apiVersion)) {
      const near = this.strict && !isKind(kind) ? kindMeant(kind, apiVersion) : undefined;
      if (near !== undefined) {
        const message = `there is no kind ${JSON.stringify(kind)} in ${String(apiVersion)}; did you mean ${near}?`;
        this.problem({ ...at(['kind']), field: 'kind', message });
      }
      this.ignored.set(kind, (this.ignored.get(kind) ?? 0) + 1);
      if (otherKinds.has(kind)) {
        this.others.push({
          kind,
          value: value as Record<string, unknown>,
          file: source.file,
          get line() {
            return at([]).line;
          },
        });
      }
    } else if (typeof apiVersion !== 'string' || !versions[kind].includes(apiVersion)) {
      const said = apiVersion === undefined ? 'is missing' : `${JSON.stringify(apiVersion)} is not read`;
      const message = `${said}; ${kind} must be ${versions[kind].join(' or ')}`;
      this.problem({ ...at(['apiVersion']), field: 'apiVersion', message });
    } else {
      this.object(source, kind, value, path);
    }
  }

  private item(source: Source, listKind: string, apiVersion: unknown, item: unknown, path: Path): void {
    const single = listKind.slice(0, -'List'.length);
    // Items of a typed list may leave out their kind.
    const typed = typeof item === 'object' && item !== null && !('kind' in item) && isKind(single);
    this.value(source, typed ? { kind: single, apiVersion, ...item } : item, path);
  }

  private object(source: Source, kind: Kind, value: object, path: Path): void {
    const said = new Set<string>();
    if (this.strict) {
      const name = nameOf(kind, value);
      for (const problem of checkStrictly(kind, value)) {
        const field = printField(problem.path);
        said.add(field);
        const where = [...path, ...problem.path];
        const at = problem.key ? source.keyPosition(where) : source.position(where);
        this.problem({ ...at, object: name, field, message: problem.message });
      }
    }
    const object = decodeJsonObject(kind, value, ({ object: name, field, message }) => {
      if (said.has(field)) return;
      const at = source.position([...path, ...parseField(field)]);
      this.problem({ ...at, object: `${kind} ${name}`.trim(), field, message });
    });
    if (object === undefined) return;
    this.objects.push({
      object,
      file: source.file,
      get line() {
        return source.position(path).line;
      },
      value: value as Record<string, unknown>,
      position: (field) => {
        const at = source.position([...path, ...parseField(field)]);
        return { line: at.line, column: at.column };
      },
    });
  }
}

function nameOf(kind: Kind, value: object): string {
  const { metadata } = value as { metadata?: unknown };
  const { name, namespace } = (metadata ?? {}) as { name?: unknown; namespace?: unknown };
  if (typeof name !== 'string') return kind;
  return typeof namespace === 'string' ? `${kind} ${namespace}/${name}` : `${kind} ${name}`;
}

/** Steps to `spec.ports[0].name`, `metadata.labels["a.b/c"]`. */
function printField(path: Path): string {
  let text = '';
  for (const step of path) {
    if (typeof step === 'number') text += `[${step}]`;
    else if (/^[\w-]+$/.test(step)) text += text === '' ? step : `.${step}`;
    else text += `["${step}"]`;
  }
  return text;
}

/** Where things stand in a document; offsets count from 0. */
interface Places {
  /** Undefined: there is no such field. */
  value(path: Path): number | undefined;
  key(path: Path): number | undefined;
  readonly lines: LineCounter;
}

/** Where lines begin; looked for when a place is asked for first. */
class Lines {
  readonly #text: string;
  #counter: LineCounter | undefined;

  constructor(text: string) {
    this.#text = text;
  }

  get counter(): LineCounter {
    if (this.#counter !== undefined) return this.#counter;
    const counter = new LineCounter();
    counter.addNewLine(0);
    for (let at = this.#text.indexOf('\n'); at >= 0; at = this.#text.indexOf('\n', at + 1))
      counter.addNewLine(at + 1);
    this.#counter = counter;
    return counter;
  }
}

/** Where the first alias stands that names no anchor; 0 if none does. */
function badAlias(document: Document): number {
  let at = 0;
  visit(document, {
    Alias: (_, alias) => {
      if (alias.resolve(document) !== undefined) return undefined;
      at = alias.range?.[0] ?? 0;
      return visit.BREAK;
    },
  });
  return at;
}

/** Where an alias stands that is inside the value of its own anchor. */
function circularAlias(document: Document): number | undefined {
  let at: number | undefined;
  visit(document, {
    Alias: (_, { source, range }, path) => {
      if (!path.some((node) => isCollection(node) && node.anchor === source)) return undefined;
      at = range?.[0] ?? 0;
      return visit.BREAK;
    },
  });
  return at;
}

/** Undefined: it is not one document without a fault. */
function soundValue(text: string): { readonly value: unknown } | undefined {
  const document = parseDocument(text, asKubectl);
  if (document.errors.length > 0 || document.warnings.length > 0) return undefined;
  if (text.includes('*') && circularAlias(document) !== undefined) return undefined;
  try {
    return { value: document.toJS() };
  } catch {
    return undefined; // Read as part of the whole it is told what is wrong.
  }
}

/** @param at where the document begins in the file */
function yamlPlaces(document: Document, { counter }: Lines, at: number): Places {
  const offset = (node: unknown): number | undefined => {
    const begin = isNode(node) ? node.range?.[0] : undefined;
    return begin === undefined ? undefined : at + begin;
  };
  const find = (path: Path): unknown => (path.length === 0 ? document.contents : document.getIn(path, true));
  return {
    lines: counter,
    value: (path) => offset(find(path)),
    key: (path) => {
      const parent = find(path.slice(0, -1));
      if (!isMap(parent)) return undefined;
      const pair = parent.items.find(({ key }) => isScalar(key) && key.value === path.at(-1));
      return isScalar(pair?.key) ? offset(pair.key) : undefined;
    },
  };
}

function placesInJson(text: string): Places {
  const lines = new Lines(text).counter;
  const root = jsonPlaces(text);
  const find = (path: Path): JsonPlace | undefined => {
    let place: JsonPlace | undefined = root;
    for (const step of path)
      place = typeof step === 'number' ? place?.items?.[step] : place?.members?.get(step)?.value;
    return place;
  };
  return {
    lines,
    value: (path) => find(path)?.at,
    key: (path) => find(path.slice(0, -1))?.members?.get(String(path.at(-1)))?.key,
  };
}

/** Undefined: not one document of JSON, or one with a key that comes twice in a map. */
function parseJson(text: string): { readonly value: unknown } | undefined {
  if (!/^\s*\{/.test(text)) return undefined;
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    // It may be YAML, whose maps can begin with a brace too.
    return undefined;
  }
  // JSON.parse keeps the last one of two equal keys and says nothing.
  let keys = 0;
  for (const [, colon] of text.matchAll(/"(?:[^"\\]|\\.)*"\s*(:?)/g)) if (colon !== '') keys++;
  return keys === countKeys(value) ? { value } : undefined;
}

function countKeys(value: unknown): number {
  if (typeof value !== 'object' || value === null) return 0;
  let count = Array.isArray(value) ? 0 : Object.keys(value).length;
  for (const inner of Object.values(value)) count += countKeys(inner);
  return count;
}

/** Finds where in a file a field stands; places are looked for when one is asked for first. */
class Source {
  readonly file: string;
  readonly #look: () => Places;
  #places: Places | undefined;

  constructor(file: string, look: () => Places) {
    this.file = file;
    this.#look = look;
  }

  /** The key of a field, not its value. */
  keyPosition(path: Path): { file: string; line: number; column: number } {
    const places = (this.#places ??= this.#look());
    return this.#at(places.key(path)) ?? this.position(path);
  }

  /** The field, or what comes nearest to it if it is not there. */
  position(path: Path): { file: string; line: number; column: number } {
    const places = (this.#places ??= this.#look());
    for (let length = path.length; length >= 0; length--) {
      const found = this.#at(places.value(path.slice(0, length)));
      if (found !== undefined) return found;
    }
    return { file: this.file, line: 0, column: 0 };
  }

  #at(offset: number | undefined): { file: string; line: number; column: number } | undefined {
    if (offset === undefined || this.#places === undefined) return undefined;
    const { line, col } = this.#places.lines.linePos(offset);
    return { file: this.file, line, column: col };
  }
}

/** `spec.ports[0].name`, `metadata.labels["a.b/c"]` to steps. */
function parseField(field: string): (string | number)[] {
  const steps: (string | number)[] = [];
  for (const match of field.matchAll(/\["([^"]*)"\]|\[(\d+)\]|([^.[\]]+)/g)) {
    if (match[2] !== undefined) steps.push(Number(match[2]));
    else steps.push(match[1] ?? match[3] ?? '');
  }
  return steps;
}
