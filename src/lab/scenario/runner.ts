/** Plays a scenario: takes its steps in order, keeps what the probes see, and judges it. */
import { setTimeout as sleep } from 'node:timers/promises';
import { httpGet, HttpFailure } from '../net/http.ts';
import { outcomeOfError } from '../probe/connection.ts';
import {
  checkConnections,
  closeConnections,
  openProbe,
  runProbe,
  type HeldConnections,
  type Meetings,
} from '../probe/probe.ts';
import { ScenarioCluster, type RunOptions } from './cluster.ts';
import { ApiError } from './apiClient.ts';
import type { ApiKind } from './labApi.ts';
import { answeredBy, compareExpectation, compareRecords, type Verdict } from './compare.ts';
import { isObject, type Json, type JsonObject } from './generate.ts';
import { modeDifferences } from './modeDifferences.ts';
import { compareRules } from './rules.ts';
import type {
  Action,
  HttpRecord,
  HttpSpec,
  ProbeSpec,
  Scenario,
  ScenarioRecord,
  Step,
  Truth,
  UntilRecord,
  UntilSpec,
} from './types.ts';

/** ms */
const secondTry = 700;
const httpTime = 3000;
const chosenHeaders = ['content-type', 'x-content-type-options', 'x-load-balancing-endpoint-weight'];

export interface StepResult {
  readonly id: string;
  /** `late`: agrees at the second try. `unchecked`: neither truth nor expectation. */
  readonly verdict: 'agrees' | 'late' | 'differs' | 'unchecked';
  readonly differences: readonly string[];
  readonly remarks: readonly string[];
  readonly record: ScenarioRecord;
}

export interface ScenarioResult {
  readonly name: string;
  readonly mode: string;
  readonly agreed: boolean;
  readonly steps: readonly StepResult[];
  /** What went wrong beside the probes: a change not in force in time, a proxy that ended, a command that failed. */
  readonly errors: readonly string[];
  /** Differences from the recorded rule set; undefined where none was compared. */
  readonly rules: readonly string[] | undefined;
  /** Seconds: until the proxies were ready, and in all. */
  readonly startSeconds: number;
  readonly seconds: number;
}

export interface PlayOptions extends Omit<RunOptions, 'api'> {
  /** `auto`: the full one; but if it refuses an object of the scenario, the scenario is played again with the plain one. */
  readonly api: ApiKind | 'auto';
  readonly truth: Truth | undefined;
  /** The recorded rule set to compare with at the end. */
  readonly rules: string | undefined;
  /** Called as results come in. */
  readonly onStep?: (step: StepResult) => void;
  /** Called with words for people about the run itself. */
  readonly onNote?: (line: string) => void;
  /** Called before each attempt at a probe, in the state of the world that the probe will meet. */
  readonly beforeProbe?: (probe: ProbeSpec, cluster: ScenarioCluster) => void;
  /** Called before the cluster is taken down. */
  readonly beforeClose?: (cluster: ScenarioCluster) => Promise<void>;
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

function isRefusal(error: unknown): boolean {
  return error instanceof ApiError && (error.status === 422 || error.status === 400);
}

/** Of the times in a health answer only that they are there. */
function withoutTimes(value: Json): Json {
  if (Array.isArray(value)) return value.map((item: Json) => withoutTimes(item));
  if (!isObject(value)) return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, field]) => [
      key,
      key === 'currentTime' || key === 'lastUpdated' ? 'present' : withoutTimes(field),
    ]),
  );
}

function parseBody(text: string): Json {
  try {
    return withoutTimes(JSON.parse(text) as Json);
  } catch {
    return text; // Not JSON: compared as it is.
  }
}

class Player {
  readonly steps: StepResult[] = [];
  readonly errors: string[] = [];
  /** The API server would not take an object. */
  refused = false;
  private readonly cluster: ScenarioCluster;
  private readonly options: PlayOptions;
  private readonly meetings = new Map<string, Meetings>();
  private readonly held = new Map<string, HeldConnections>();

  constructor(cluster: ScenarioCluster, options: PlayOptions) {
    this.cluster = cluster;
    this.options = options;
  }

  async play(steps: readonly Step[]): Promise<void> {
    for (const [index, step] of steps.entries()) {
      if (step.modes !== undefined && !step.modes.includes(this.options.mode)) continue;
      try {
        await this.take(step);
      } catch (error) {
        if (isRefusal(error)) this.refused = true;
        this.errors.push(`step ${index + 1}: ${messageOf(error)}`);
        if (this.refused && this.options.api === 'auto') return;
      }
    }
  }

  private async take(step: Step): Promise<void> {
    let changed = false;
    let started: string[] = [];
    for (const action of step.actions) {
      await this.act(action);
      if (action.kind === 'apply' || action.kind === 'delete' || action.kind === 'patch') changed = true;
      if (action.kind === 'proxy') started = [...action.start, ...action.restart];
    }
    if (!(step.settle ?? changed)) return;
    if (started.length > 0) await this.cluster.ready(started);
    await this.cluster.settle();
  }

  private async act(action: Action): Promise<void> {
    const { cluster } = this;
    switch (action.kind) {
      case 'apply':
        for (const object of action.objects) await cluster.client.apply(object);
        return;
      case 'delete':
        for (const each of action.names) {
          const [kind = '', name = ''] = each.split('/');
          await cluster.client.delete(kind, name);
        }
        return;
      case 'patch':
        await cluster.client.patch(action.object, action.name, action.patch);
        return;
      case 'wait':
        await sleep(action.seconds * 1000);
        return;
      case 'probe':
        await this.probe(action.spec);
        return;
      case 'open': {
        const earlier = action.spec.sameAs === undefined ? undefined : this.meetings.get(action.spec.sameAs);
        const { record, meetings, connections } = await openProbe(
          cluster.probeContext(),
          action.spec,
          earlier,
        );
        this.meetings.set(action.spec.id, meetings);
        this.held.set(action.spec.id, connections);
        this.keep(record, action.spec.expect);
        return;
      }
      case 'check': {
        const connections = this.connections(action.spec.conns);
        this.keep(
          await checkConnections(cluster.probeContext(), action.spec.id, connections),
          action.spec.expect,
        );
        return;
      }
      case 'close':
        closeConnections(this.connections(action.conns));
        this.held.delete(action.conns);
        return;
      case 'http':
        await this.httpTwice(action.spec);
        return;
      case 'until':
        this.keep(await this.until(action.spec), action.spec.expect ?? { reached: true });
        return;
      case 'proxy':
        await Promise.all(
          [...action.stop, ...action.restart].map((node) => cluster.proxy(node).stop(action.signal)),
        );
        for (const node of [...action.start, ...action.restart]) cluster.proxy(node).start();
        return;
      case 'exec':
        for (const command of action.commands[this.options.mode] ?? []) cluster.execute(action.node, command);
        return;
      case 'api':
        cluster.setApi(action.up);
        return;
      case 'listen':
        cluster.listen(action.pod);
        return;
    }
  }

  private connections(id: string): HeldConnections {
    const connections = this.held.get(id);
    if (connections === undefined) throw new Error(`there are no open connections "${id}"`);
    return connections;
  }

  private judge(record: ScenarioRecord, expect: JsonObject | undefined, from?: string): Verdict | undefined {
    const truth = this.options.truth?.probes.find((each) => each.id === record.id);
    const clientHidden = modeDifferences[this.options.mode]?.clientHidden !== undefined;
    if (truth !== undefined) {
      const prober = from?.startsWith('pod/') === true ? from.slice(4) : undefined;
      const sticky = record.kind === 'probe' && record.sticky !== undefined;
      const sourceVaries = sticky && prober !== undefined && (record.pool ?? []).includes(prober);
      const { timeFactor } = this.options;
      return compareRecords(truth, record, { sourceVaries, clientHidden, timeFactor });
    }
    return expect === undefined
      ? undefined
      : compareExpectation(expect, this.options.mode, record, clientHidden);
  }

  private keep(
    record: ScenarioRecord,
    expect: JsonObject | undefined,
    verdict = this.judge(record, expect),
    late = false,
  ): void {
    const differs = (verdict?.differences.length ?? 0) > 0;
    const step: StepResult = {
      id: record.id,
      verdict: verdict === undefined ? 'unchecked' : differs ? 'differs' : late ? 'late' : 'agrees',
      differences: verdict?.differences ?? [],
      remarks: verdict?.remarks ?? [],
      record,
    };
    this.steps.push(step);
    this.options.onStep?.(step);
  }

  private async probe(spec: ProbeSpec): Promise<void> {
    const earlier = spec.sameAs === undefined ? undefined : this.meetings.get(spec.sameAs);
    const context = this.cluster.probeContext();
    this.options.beforeProbe?.(spec, this.cluster);
    let result = await runProbe(context, spec, earlier);
    let verdict = this.judge(result.record, spec.expect, spec.from);
    let late = false;
    if ((verdict?.differences.length ?? 0) > 0 && spec.sport === undefined && !spec.sticky) {
      await sleep(secondTry);
      this.options.beforeProbe?.(spec, this.cluster);
      result = await runProbe(context, spec, earlier);
      verdict = this.judge(result.record, spec.expect, spec.from);
      late = true;
    }
    this.meetings.set(spec.id, result.meetings);
    this.keep(result.record, spec.expect, verdict, late);
  }

  private async httpTwice(spec: HttpSpec): Promise<void> {
    let record = await this.http(spec);
    let verdict = this.judge(record, spec.expect);
    const late = (verdict?.differences.length ?? 0) > 0;
    if (late) {
      await sleep(secondTry);
      record = await this.http(spec);
      verdict = this.judge(record, spec.expect);
    }
    this.keep(record, spec.expect, verdict, late);
  }

  private async http(spec: HttpSpec): Promise<HttpRecord> {
    const { namespaces } = this.cluster.network;
    try {
      const patience = httpTime * this.options.timeFactor;
      const answer = await httpGet(namespaces, this.cluster.namespaceOf(spec.from), spec.url, patience);
      const headers = chosenHeaders.flatMap((name) => {
        const value = answer.headers[name];
        return value === undefined ? [] : [[name, value] as const];
      });
      return {
        id: spec.id,
        kind: 'http',
        outcome: 'ok',
        status: answer.status,
        headers: Object.fromEntries(headers),
        ...(answer.body === '' ? {} : { body: parseBody(answer.body) }),
      };
    } catch (error) {
      if (!(error instanceof HttpFailure)) throw error;
      return { id: spec.id, kind: 'http', outcome: outcomeOfError(error.code) ?? 'timeout' };
    }
  }

  private async until(spec: UntilSpec): Promise<UntilRecord> {
    const context = this.cluster.probeContext();
    const begin = performance.now();
    const limit = spec.timeout * 1000 * this.options.timeFactor;
    for (;;) {
      const seconds = (performance.now() - begin) / 1000;
      const { record } = await runProbe(context, spec.probe);
      const outcomes = Object.keys(record.outcomes);
      const only = outcomes.length === 1 && outcomes[0] === spec.outcome;
      if (only && (spec.backends === undefined || answeredBy(spec.backends, record.backends))) {
        return { id: spec.id, kind: 'until', reached: true, seconds: Math.round(seconds * 100) / 100 };
      }
      if (performance.now() - begin > limit) {
        return { id: spec.id, kind: 'until', reached: false, seconds: Math.round(seconds * 100) / 100 };
      }
      await sleep(50);
    }
  }

  close(): void {
    for (const connections of this.held.values()) closeConnections(connections);
    this.held.clear();
  }
}

/** The recorded rules against those in force; a sync that is still to come gets a moment. */
async function judgeRules(cluster: ScenarioCluster, recorded: string): Promise<readonly string[]> {
  let differences = compareRules(recorded, await cluster.dumpRules());
  for (let i = 0; i < 4 && differences.length > 0; i++) {
    await sleep(500);
    differences = compareRules(recorded, cluster.readRules());
  }
  return differences;
}

/** Runs one scenario from an empty world to its end. Rejects only if the world cannot be built. */
export async function playScenario(scenario: Scenario, options: PlayOptions): Promise<ScenarioResult> {
  if (options.api !== 'auto') return (await playOnce(scenario, options, options.api)).result;
  try {
    const { result, refused } = await playOnce(scenario, options, 'full');
    if (!refused) return result;
  } catch (error) {
    if (!isRefusal(error)) throw error;
  }
  options.onNote?.(
    'the API server refused an object of this scenario: once more, with one that takes anything',
  );
  return (await playOnce(scenario, options, 'plain')).result;
}

async function playOnce(
  scenario: Scenario,
  options: PlayOptions,
  api: ApiKind,
): Promise<{ readonly result: ScenarioResult; readonly refused: boolean }> {
  const begin = performance.now();
  const since = (): number => Math.round((performance.now() - begin) / 10) / 100;
  const cluster = await ScenarioCluster.create(scenario, { ...options, api });
  const player = new Player(cluster, options);
  let rules: readonly string[] | undefined;
  let startSeconds = 0;
  try {
    try {
      if (scenario.start) {
        await cluster.startProxies(scenario.proxies);
        if (options.mode === 'ipvs') await cluster.settle();
      }
      startSeconds = since();
      await player.play(scenario.steps);
      player.errors.push(...cluster.endedProxies());
      if (options.rules !== undefined) rules = await judgeRules(cluster, options.rules);
    } catch (error) {
      player.errors.push(messageOf(error));
    }
    await options.beforeClose?.(cluster);
  } finally {
    player.close();
    await cluster.close();
  }
  const agreed =
    player.errors.length === 0 &&
    (rules?.length ?? 0) === 0 &&
    player.steps.every((step) => step.verdict !== 'differs');
  const { steps, errors, refused } = player;
  const result = {
    name: scenario.name,
    mode: options.mode,
    agreed,
    steps,
    errors,
    rules,
    startSeconds,
    seconds: since(),
  };
  return { result, refused };
}
