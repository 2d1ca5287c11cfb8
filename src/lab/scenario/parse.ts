/** Reads scenario files. A key that is not known is remarked on: it is a test that silently tests less. */
import { readFileSync } from 'node:fs';
import { parse as parseYaml } from 'yaml';
import { asText, expandObjects, isObject, type Json, type JsonObject } from './generate.ts';
import type { Action, FamilyName, ProbeSpec, Scenario, ScenarioPod, Step } from './types.ts';

const apiVersions: Readonly<Record<string, string>> = {
  Service: 'v1',
  Node: 'v1',
  Namespace: 'v1',
  EndpointSlice: 'discovery.k8s.io/v1',
  ServiceCIDR: 'networking.k8s.io/v1',
};

/** Cluster-scoped kinds have no namespace; everything else lives in `default`. */
const clusterScoped = new Set(['Node', 'ServiceCIDR', 'Namespace']);

/** What the file under the reader's hands has that is not understood; reading is synchronous. */
let remarks: string[] = [];

class Reader {
  private readonly object: JsonObject;
  private readonly where: string;
  private readonly read = new Set<string>();

  constructor(value: Json | undefined, where: string) {
    if (!isObject(value)) throw new Error(`${where}: a mapping was expected`);
    this.object = value;
    this.where = where;
  }

  raw(key: string): Json | undefined {
    this.read.add(key);
    return this.object[key];
  }

  has(key: string): boolean {
    return this.object[key] !== undefined;
  }

  text(key: string, absent?: string): string {
    const value = this.raw(key) ?? absent;
    if (typeof value !== 'string' && typeof value !== 'number')
      throw new Error(`${this.where}.${key}: a text was expected`);
    return asText(value);
  }

  optionalText(key: string): string | undefined {
    return this.has(key) ? this.text(key) : undefined;
  }

  number(key: string, absent?: number): number {
    const value = this.raw(key) ?? absent;
    if (typeof value !== 'number') throw new Error(`${this.where}.${key}: a number was expected`);
    return value;
  }

  optionalNumber(key: string): number | undefined {
    return this.has(key) ? this.number(key) : undefined;
  }

  flag(key: string, absent: boolean): boolean {
    const value = this.raw(key) ?? absent;
    if (typeof value !== 'boolean') throw new Error(`${this.where}.${key}: true or false was expected`);
    return value;
  }

  list(key: string): readonly Json[] {
    const value = this.raw(key) ?? [];
    if (!Array.isArray(value)) throw new Error(`${this.where}.${key}: a list was expected`);
    return value as readonly Json[];
  }

  /** A list of texts, or one. */
  texts(key: string): string[] {
    const value = this.raw(key) ?? [];
    return (Array.isArray(value) ? (value as Json[]) : [value]).map((item) => {
      if (typeof item !== 'string' && typeof item !== 'number')
        throw new Error(`${this.where}.${key}: texts were expected`);
      return asText(item);
    });
  }

  optionalTexts(key: string): string[] | undefined {
    return this.has(key) ? this.texts(key) : undefined;
  }

  mapping(key: string): JsonObject | undefined {
    const value = this.raw(key);
    if (value === undefined || value === null) return undefined;
    if (!isObject(value)) throw new Error(`${this.where}.${key}: a mapping was expected`);
    return value;
  }

  end(): void {
    const unknown = Object.keys(this.object).filter((key) => !this.read.has(key));
    if (unknown.length > 0) remarks.push(`${this.where}: unknown key ${unknown.join(', ')}`);
  }
}

function parsePod(value: Json | undefined, where: string): ScenarioPod {
  const reader = new Reader(value, where);
  const pod: ScenarioPod = {
    name: reader.text('name'),
    node: reader.text('node'),
    ip: reader.text('ip', ''),
    ports: reader.texts('ports'),
    hostNetwork: reader.flag('hostNetwork', false),
    ranges: reader.texts('ranges'),
  };
  if (!pod.hostNetwork && pod.ip === '') throw new Error(`${where}.ip: missing`);
  reader.end();
  return pod;
}

function parseProbe(value: Json | undefined, where: string, id?: string): ProbeSpec {
  const reader = new Reader(value, where);
  const sources = reader.raw('sources');
  const proto = reader.text('proto', 'tcp');
  if (proto !== 'tcp' && proto !== 'udp' && proto !== 'sctp')
    throw new Error(`${where}.proto: "tcp", "udp" or "sctp" was expected`);
  const spec: ProbeSpec = {
    id: reader.text('id', id ?? ''),
    from: reader.text('from'),
    to: reader.text('to'),
    proto,
    count: reader.number('count', 1),
    src: reader.optionalText('src'),
    sources: typeof sources === 'number' ? sources : reader.optionalTexts('sources'),
    sport: reader.optionalNumber('sport'),
    parallel: reader.optionalNumber('parallel'),
    sticky: reader.flag('sticky', false),
    sameAs: reader.optionalText('same_as'),
    pool: reader.texts('pool'),
    stream: reader.optionalNumber('stream'),
    expect: reader.mapping('expect'),
  };
  reader.end();
  return spec;
}

/** Sets what follows from the kind: `apiVersion` and the namespace. */
export function completeObject(object: JsonObject): JsonObject {
  const kind = asText(object['kind']);
  const apiVersion = object['apiVersion'] ?? apiVersions[kind];
  if (apiVersion === undefined) throw new Error(`kind "${kind}": apiVersion is missing`);
  const metadata = isObject(object['metadata']) ? object['metadata'] : {};
  if (typeof metadata['name'] !== 'string') throw new Error(`an object of kind ${kind} has no name`);
  return {
    apiVersion,
    ...object,
    metadata: clusterScoped.has(kind) ? metadata : { namespace: 'default', ...metadata },
  };
}

function parseObjects(list: readonly Json[]): JsonObject[] {
  return expandObjects(list).map(completeObject);
}

const actionKeys = [
  'apply',
  'delete',
  'patch',
  'wait',
  'probe',
  'open',
  'check',
  'close',
  'http',
  'until',
  'proxy',
  'exec',
  'api',
  'listen',
] as const;

function parseAction(
  key: (typeof actionKeys)[number],
  step: Reader,
  where: string,
  position: string,
): Action {
  switch (key) {
    case 'apply':
      return { kind: 'apply', objects: parseObjects(step.list('apply')) };
    case 'delete':
      return { kind: 'delete', names: step.texts('delete') };
    case 'patch': {
      const reader = new Reader(step.raw('patch'), where);
      const action: Action = {
        kind: 'patch',
        object: reader.text('kind'),
        name: reader.text('name'),
        patch: reader.mapping('patch') ?? {},
      };
      reader.end();
      return action;
    }
    case 'wait':
      return { kind: 'wait', seconds: step.number('wait') };
    case 'probe':
    case 'open':
      return { kind: key, spec: parseProbe(step.raw(key), where, position) };
    case 'check': {
      const reader = new Reader(step.raw('check'), where);
      const conns = reader.text('conns');
      const spec = { id: reader.text('id', position), conns, expect: reader.mapping('expect') };
      reader.end();
      return { kind: 'check', spec };
    }
    case 'close': {
      const value = step.raw('close');
      const conns = isObject(value) ? (value['conns'] ?? value['id']) : value;
      if (typeof conns !== 'string') throw new Error(`${where}: the id of an open step was expected`);
      return { kind: 'close', conns };
    }
    case 'http': {
      const reader = new Reader(step.raw('http'), where);
      const spec = {
        id: reader.text('id', position),
        from: reader.text('from'),
        url: reader.text('url'),
        expect: reader.mapping('expect'),
      };
      reader.end();
      return { kind: 'http', spec };
    }
    case 'until': {
      const reader = new Reader(step.raw('until'), where);
      const spec = {
        id: reader.text('id', position),
        probe: parseProbe(reader.raw('probe'), `${where}.probe`),
        backends: reader.optionalTexts('backends'),
        outcome: reader.text('outcome', 'ok'),
        timeout: reader.number('timeout', 20),
        expect: reader.mapping('expect'),
      };
      reader.end();
      return { kind: 'until', spec };
    }
    case 'proxy': {
      const reader = new Reader(step.raw('proxy'), where);
      const action: Action = {
        kind: 'proxy',
        stop: reader.texts('stop'),
        start: reader.texts('start'),
        restart: reader.texts('restart'),
        signal: reader.text('signal', 'SIGTERM') as NodeJS.Signals,
      };
      reader.end();
      return action;
    }
    case 'exec': {
      const { node, ...commands } = step.mapping('exec') ?? {};
      if (typeof node !== 'string') throw new Error(`${where}.node: missing`);
      const parsed = Object.entries(commands).map(([mode, list]) => {
        const items = Array.isArray(list) ? (list as Json[]) : [list];
        return [
          mode,
          items.map((item) => (Array.isArray(item) ? (item as Json[]).map(asText) : asText(item))),
        ] as const;
      });
      return { kind: 'exec', node, commands: Object.fromEntries(parsed) };
    }
    case 'api': {
      const value = step.text('api');
      if (value !== 'up' && value !== 'down') throw new Error(`${where}: "up" or "down" was expected`);
      return { kind: 'api', up: value === 'up' };
    }
    case 'listen':
      return { kind: 'listen', pod: parsePod(step.raw('listen'), where) };
  }
}

function isActionKey(key: string): key is (typeof actionKeys)[number] {
  return (actionKeys as readonly string[]).includes(key);
}

function parseStep(value: Json, index: number): Step {
  const position = `step ${index + 1}`;
  if (!isObject(value)) throw new Error(`${position}: a mapping was expected`);
  const reader = new Reader(value, position);
  const settle = reader.has('settle') ? reader.flag('settle', false) : undefined;
  const modes = reader.optionalTexts('modes');
  const actions = Object.keys(value)
    .filter(isActionKey)
    .map((key) => parseAction(key, reader, `${position}: ${key}`, `step-${index + 1}`));
  reader.end();
  if (actions.length === 0 && settle === undefined) throw new Error(`${position}: nothing to do`);
  return { actions, settle, modes };
}

/** `nodes` is a mapping of node names to merge patches, or a list of partial Node objects. */
function parseNodes(value: Json | undefined): Readonly<Record<string, JsonObject>> {
  if (value === undefined || value === null) return {};
  const entries = Array.isArray(value)
    ? (value as Json[]).map((item) => {
        const metadata = isObject(item) && isObject(item['metadata']) ? item['metadata'] : {};
        return [metadata['name'], item] as const;
      })
    : Object.entries(value as JsonObject);
  return Object.fromEntries(
    entries.map(([name, patch]) => {
      if (typeof name !== 'string' || !isObject(patch))
        throw new Error('nodes: node names and their changes were expected');
      const { labels, annotations, taints, ...rest } = patch;
      const meta = {
        ...(labels === undefined ? {} : { labels }),
        ...(annotations === undefined ? {} : { annotations }),
      };
      return [
        name,
        {
          ...rest,
          ...(Object.keys(meta).length > 0
            ? { metadata: { ...(isObject(rest['metadata']) ? rest['metadata'] : {}), ...meta } }
            : {}),
          ...(taints === undefined
            ? {}
            : { spec: { ...(isObject(rest['spec']) ? rest['spec'] : {}), taints } }),
        },
      ] as const;
    }),
  );
}

/** Reads a scenario; throws an Error that says where in it something is wrong. */
export function parseScenario(text: string): Scenario {
  remarks = [];
  const reader = new Reader(parseYaml(text) as Json, 'scenario');
  const families = reader.optionalTexts('families') ?? ['ipv4'];
  for (const family of families) {
    if (family !== 'ipv4' && family !== 'ipv6')
      throw new Error(`scenario.families: "${family}" is not ipv4 or ipv6`);
  }
  const scenario: Omit<Scenario, 'remarks'> = {
    name: reader.text('name'),
    description: reader.text('description', ''),
    modes: reader.optionalTexts('modes'),
    families: families as FamilyName[],
    proxies: reader.optionalTexts('proxies') ?? ['node-1'],
    nodes: parseNodes(reader.raw('nodes')),
    config: reader.mapping('config') ?? {},
    relay: reader.flag('relay', false),
    pods: reader.list('pods').map((pod, i) => parsePod(pod, `pods[${i}]`)),
    objects: parseObjects(reader.list('objects')),
    start: reader.flag('start', true),
    dump: reader.flag('dump', true),
    steps: reader.list('steps').map(parseStep),
  };
  reader.end();
  return { ...scenario, remarks };
}

export function readScenario(path: string): Scenario {
  try {
    return parseScenario(readFileSync(path, 'utf8'));
  } catch (error) {
    throw new Error(`${path}: ${error instanceof Error ? error.message : String(error)}`, { cause: error });
  }
}
