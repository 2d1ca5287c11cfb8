/** A scenario file, read and checked; and what a run of it records. */
import type { Outcome } from '../probe/connection.ts';
import type { Protocol } from '../net/sockets.ts';
import type { Json, JsonObject } from './generate.ts';

/** The modes that scenario files know; what the proxy is told is free text for others. */
export type ScenarioMode = string;
export type FamilyName = 'ipv4' | 'ipv6';

export interface ScenarioPod {
  readonly name: string;
  readonly node: string;
  /** Empty for hostNetwork Pods without one. */
  readonly ip: string;
  readonly ports: readonly string[];
  readonly hostNetwork: boolean;
  readonly ranges: readonly string[];
}

export interface ProbeSpec {
  readonly id: string;
  /** `client`, `node/NAME` or `pod/NAME` */
  readonly from: string;
  /** `address:port` */
  readonly to: string;
  readonly proto: Protocol;
  readonly count: number;
  readonly src: string | undefined;
  /** Source addresses, in turn; a number: the first so many addresses of the client. */
  readonly sources: readonly string[] | number | undefined;
  readonly sport: number | undefined;
  readonly parallel: number | undefined;
  readonly sticky: boolean;
  readonly sameAs: string | undefined;
  readonly pool: readonly string[];
  /** UDP: seconds between datagrams; for `open`. */
  readonly stream: number | undefined;
  readonly expect: JsonObject | undefined;
}

export interface CheckSpec {
  readonly id: string;
  readonly conns: string;
  readonly expect: JsonObject | undefined;
}

export interface HttpSpec {
  readonly id: string;
  readonly from: string;
  readonly url: string;
  readonly expect: JsonObject | undefined;
}

export interface UntilSpec {
  readonly id: string;
  readonly probe: ProbeSpec;
  /** Undefined: any. */
  readonly backends: readonly string[] | undefined;
  readonly outcome: string;
  /** Seconds. */
  readonly timeout: number;
  readonly expect: JsonObject | undefined;
}

export type Action =
  | { readonly kind: 'apply'; readonly objects: readonly JsonObject[] }
  | { readonly kind: 'delete'; readonly names: readonly string[] }
  | { readonly kind: 'patch'; readonly object: string; readonly name: string; readonly patch: JsonObject }
  | { readonly kind: 'wait'; readonly seconds: number }
  | { readonly kind: 'probe' | 'open'; readonly spec: ProbeSpec }
  | { readonly kind: 'check'; readonly spec: CheckSpec }
  | { readonly kind: 'close'; readonly conns: string }
  | { readonly kind: 'http'; readonly spec: HttpSpec }
  | { readonly kind: 'until'; readonly spec: UntilSpec }
  | {
      readonly kind: 'proxy';
      readonly stop: readonly string[];
      readonly start: readonly string[];
      readonly restart: readonly string[];
      readonly signal: NodeJS.Signals;
    }
  | {
      readonly kind: 'exec';
      readonly node: string;
      readonly commands: Readonly<Record<string, readonly (string | readonly string[])[]>>;
    }
  | { readonly kind: 'api'; readonly up: boolean }
  | { readonly kind: 'listen'; readonly pod: ScenarioPod };

export interface Step {
  readonly actions: readonly Action[];
  /** Undefined: as the kind of step says (after apply, delete and patch). */
  readonly settle: boolean | undefined;
  /** Undefined: all. */
  readonly modes: readonly ScenarioMode[] | undefined;
}

export interface Scenario {
  readonly name: string;
  readonly description: string;
  readonly modes: readonly ScenarioMode[] | undefined;
  readonly families: readonly FamilyName[];
  readonly proxies: readonly string[];
  /** Merge patches for the Node objects, by node name. */
  readonly nodes: Readonly<Record<string, JsonObject>>;
  readonly config: JsonObject;
  readonly relay: boolean;
  readonly pods: readonly ScenarioPod[];
  readonly objects: readonly JsonObject[];
  readonly start: boolean;
  readonly dump: boolean;
  readonly steps: readonly Step[];
  /** Keys of the file that are not understood. */
  readonly remarks: readonly string[];
}

export type Counts = Readonly<Record<string, number>>;

export interface ProbeRecord {
  readonly id: string;
  readonly kind: 'probe' | 'open';
  readonly outcomes: Partial<Readonly<Record<Outcome, number>>>;
  readonly by?: readonly string[];
  /** `POD:PORT` → answers */
  readonly backends: Counts;
  readonly sources: Counts;
  readonly sticky?: boolean;
  readonly kept?: 'all' | 'not all' | 'either';
  readonly pool?: readonly string[];
}

export interface CheckRecord {
  readonly id: string;
  readonly kind: 'check';
  /** First backend (`none`: never answered) → fate → connections */
  readonly fates: Readonly<Record<string, Counts>>;
  readonly now: Counts;
}

export interface HttpRecord {
  readonly id: string;
  readonly kind: 'http';
  readonly outcome: Outcome;
  readonly status?: number;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: Json;
}

export interface UntilRecord {
  readonly id: string;
  readonly kind: 'until';
  readonly reached: boolean;
  readonly seconds: number;
}

export type ScenarioRecord = ProbeRecord | CheckRecord | HttpRecord | UntilRecord;

/** `truth/NAME.MODE.json` */
export interface Truth {
  readonly scenario: string;
  readonly mode: string;
  readonly reference: string;
  readonly probes: readonly ScenarioRecord[];
}
