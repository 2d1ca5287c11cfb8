/** The fields of KubeProxyConfiguration v1alpha1, and how a parsed YAML or JSON tree becomes one. */
import { parseDuration } from './duration.ts';
import { parsers } from './flag-values.ts';
import type { VModuleRule } from './types.ts';

export const apiVersion = 'kubeproxy.config.k8s.io/v1alpha1';
export const kind = 'KubeProxyConfiguration';

interface Kinds {
  string: string;
  bool: boolean;
  int32: number;
  uint32: number;
  float: number;
  /** Milliseconds. */
  duration: number;
  /** A duration, or a whole number of nanoseconds. */
  durationOrNanoseconds: number;
  strings: string[];
  gates: Record<string, boolean>;
  vmodule: VModuleRule[];
  quantity: string;
}

interface Schema {
  readonly [field: string]: keyof Kinds | Schema;
}

const logOutput = { splitStream: 'bool', infoBufferSize: 'quantity' } as const satisfies Schema;

export const schema = {
  apiVersion: 'string',
  kind: 'string',
  featureGates: 'gates',
  clientConnection: {
    kubeconfig: 'string',
    acceptContentTypes: 'string',
    contentType: 'string',
    qps: 'float',
    burst: 'int32',
  },
  logging: {
    format: 'string',
    flushFrequency: 'durationOrNanoseconds',
    verbosity: 'uint32',
    vmodule: 'vmodule',
    options: { text: logOutput, json: logOutput },
  },
  hostnameOverride: 'string',
  bindAddress: 'string',
  healthzBindAddress: 'string',
  metricsBindAddress: 'string',
  bindAddressHardFail: 'bool',
  enableProfiling: 'bool',
  showHiddenMetricsForVersion: 'string',
  mode: 'string',
  iptables: {
    masqueradeBit: 'int32',
    masqueradeAll: 'bool',
    localhostNodePorts: 'bool',
    syncPeriod: 'duration',
    minSyncPeriod: 'duration',
  },
  ipvs: {
    syncPeriod: 'duration',
    minSyncPeriod: 'duration',
    scheduler: 'string',
    excludeCIDRs: 'strings',
    strictARP: 'bool',
    tcpTimeout: 'duration',
    tcpFinTimeout: 'duration',
    udpTimeout: 'duration',
  },
  nftables: {
    masqueradeBit: 'int32',
    masqueradeAll: 'bool',
    syncPeriod: 'duration',
    minSyncPeriod: 'duration',
  },
  winkernel: {
    networkName: 'string',
    sourceVip: 'string',
    enableDSR: 'bool',
    rootHnsEndpointName: 'string',
    forwardHealthCheckVip: 'bool',
  },
  windowsRunAsService: 'bool',
  detectLocalMode: 'string',
  detectLocal: { bridgeInterface: 'string', interfaceNamePrefix: 'string' },
  clusterCIDR: 'string',
  nodePortAddresses: 'strings',
  oomScoreAdj: 'int32',
  conntrack: {
    maxPerCore: 'int32',
    min: 'int32',
    tcpEstablishedTimeout: 'duration',
    tcpCloseWaitTimeout: 'duration',
    tcpBeLiberal: 'bool',
    udpTimeout: 'duration',
    udpStreamTimeout: 'duration',
  },
  configSyncPeriod: 'duration',
  portRange: 'string',
} as const satisfies Schema;

type Decoded<S> = {
  -readonly [K in keyof S]?: S[K] extends keyof Kinds ? Kinds[S[K]] : Decoded<S[K]>;
};

/** The document as written; what is absent or null in it is absent here. Durations are milliseconds. */
export type Document = Decoded<typeof schema>;

export interface DecodedTree {
  readonly document: Document;
  /** Paths of fields the schema does not have; their values are left out. */
  readonly unknown: readonly string[];
  /** `path: what is wrong`, one a field. */
  readonly errors: readonly string[];
}

/** Checks types only; which values make sense is the business of validate.ts. */
export function decodeTree(tree: Readonly<Record<string, unknown>>): DecodedTree {
  const unknown: string[] = [];
  const errors: string[] = [];
  const decode = (fields: Schema, values: Readonly<Record<string, unknown>>, prefix: string): object => {
    const decoded: Record<string, unknown> = {};
    for (const [field, value] of Object.entries(values)) {
      const path = prefix + field;
      const type = Object.hasOwn(fields, field) ? fields[field] : undefined;
      if (type === undefined) {
        unknown.push(path);
      } else if (value === null || value === undefined) {
        continue;
      } else if (typeof type === 'object') {
        if (isMap(value)) decoded[field] = decode(type, value, `${path}.`);
        else errors.push(`${path}: expected a map of fields, got ${describe(value)}`);
      } else {
        try {
          decoded[field] = readers[type](value, path, unknown);
        } catch (error) {
          errors.push(`${path}: ${error instanceof Error ? error.message : String(error)}`);
        }
      }
    }
    return decoded;
  };
  return { document: decode(schema, tree, ''), unknown, errors };
}

export function isMap(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

type Readers = { [K in keyof Kinds]: (value: unknown, path: string, unknown: string[]) => Kinds[K] };

const readers: Readers = {
  string: readString,
  bool: readBool,
  int32: (value) => readInteger(value, -(2 ** 31), 2 ** 31 - 1),
  uint32: (value) => readInteger(value, 0, 2 ** 32 - 1),
  float: (value) => {
    if (typeof value !== 'number' || !Number.isFinite(value)) throw expected('a number', value);
    return value;
  },
  duration: readDuration,
  durationOrNanoseconds: (value) =>
    typeof value === 'number'
      ? readInteger(value, Number.MIN_SAFE_INTEGER, Number.MAX_SAFE_INTEGER) / 1e6
      : readDuration(value),
  strings: (value) => {
    if (!Array.isArray(value)) throw expected('a list of strings', value);
    return value.map((item) => (item === null ? '' : readString(item)));
  },
  gates: (value) => {
    if (!isMap(value)) throw expected('a map of gate names to true or false', value);
    const gates: Record<string, boolean> = {};
    for (const [gate, on] of Object.entries(value)) gates[gate] = on === null ? false : readBool(on);
    return gates;
  },
  vmodule: (value, path, unknown) => {
    if (!Array.isArray(value)) throw expected('a list of {filePattern, verbosity}', value);
    return value.map((item: unknown, i) => {
      if (!isMap(item)) throw expected('{filePattern, verbosity}', item);
      const { filePattern, verbosity, ...rest } = item;
      unknown.push(...Object.keys(rest).map((field) => `${path}[${i}].${field}`));
      return {
        filePattern: readString(filePattern ?? ''),
        verbosity: readInteger(verbosity ?? 0, 0, 2 ** 32 - 1),
      };
    });
  },
  quantity: (value) => parsers.quantity(typeof value === 'number' ? String(value) : readString(value)),
};

function readString(value: unknown): string {
  if (typeof value !== 'string') throw expected('a string', value);
  return value;
}

function readBool(value: unknown): boolean {
  if (typeof value !== 'boolean') throw expected('true or false', value);
  return value;
}

function readInteger(value: unknown, min: number, max: number): number {
  if (typeof value !== 'number' || !Number.isInteger(value)) throw expected('a whole number', value);
  if (value < min || value > max) throw expected(`a whole number from ${min} to ${max}`, value);
  return value;
}

function readDuration(value: unknown): number {
  const duration = typeof value === 'string' ? parseDuration(value) : undefined;
  if (duration === undefined) throw expected('a duration such as 30s or 1h30m', value);
  return duration;
}

function expected(what: string, value: unknown): Error {
  return new Error(`expected ${what}, got ${describe(value)}`);
}

function describe(value: unknown): string {
  if (Array.isArray(value)) return 'a list';
  if (typeof value === 'object' && value !== null) return 'a map';
  return value === undefined ? 'nothing' : JSON.stringify(value);
}
