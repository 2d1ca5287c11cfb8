/** What both stories of the demo need: a cluster, a voice, and ways to wait. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { LabCluster } from '../cluster/labCluster.ts';
import { httpGet } from '../net/http.ts';
import { podNamespace } from '../net/network.ts';
import { asText, isObject, type Json, type JsonObject } from '../scenario/generate.ts';

/** Something the demo shows did not hold. */
export class DemoFailure extends Error {}

export interface Stage {
  readonly cluster: LabCluster;
  readonly say: (line?: string) => void;
}

/** The value at a path of keys and indexes. */
export function at(object: Json | undefined, ...path: (string | number)[]): Json | undefined {
  let value: Json | undefined = object;
  for (const step of path) {
    if (typeof step === 'number') value = Array.isArray(value) ? (value as Json[])[step] : undefined;
    else value = isObject(value) ? value[step] : undefined;
  }
  return value;
}

/** Asks until the answer is not undefined; throws DemoFailure after `patience` ms. */
export async function waitFor<T>(
  what: string,
  patience: number,
  ask: () => Promise<T | undefined>,
): Promise<T> {
  const deadline = Date.now() + patience;
  for (;;) {
    const answer = await ask();
    if (answer !== undefined) return answer;
    if (Date.now() > deadline) throw new DemoFailure(`${what} did not happen in ${patience / 1000} s`);
    await sleep(20);
  }
}

export function podsOf(stage: Stage, app: string): Promise<JsonObject[]> {
  return stage.cluster.client
    .request('GET', `/api/v1/namespaces/default/pods?labelSelector=app%3D${app}`)
    .then((list) => (Array.isArray(list['items']) ? (list['items'] as JsonObject[]) : []));
}

function isReady(pod: JsonObject): boolean {
  const conditions = at(pod, 'status', 'conditions');
  return (
    at(pod, 'metadata', 'deletionTimestamp') === undefined &&
    Array.isArray(conditions) &&
    (conditions as Json[]).some((each) => at(each, 'type') === 'Ready' && at(each, 'status') === 'True')
  );
}

export function waitForPods(stage: Stage, app: string, count: number): Promise<JsonObject[]> {
  return waitFor(`${count} ready Pods of ${app}`, 20_000, async () => {
    const ready = (await podsOf(stage, app)).filter(isReady);
    return ready.length === count ? ready : undefined;
  });
}

/** The cluster IP that the API server chose. */
export async function clusterIpOf(stage: Stage, name: string): Promise<string> {
  return asText(at(await stage.cluster.client.get('Service', name), 'spec', 'clusterIP'));
}

export interface Call {
  readonly pod: string;
  /** As whom the Pod saw the caller, `address:port`. */
  readonly client: string;
  readonly text: string;
}

/**
 * How long one request may take, in milliseconds: a machine that makes or removes eight Pods while it is busy elsewhere
 * has no time for answers meanwhile, and no request has failed by that.
 */
const patience = 15_000;

/** One HTTP request out of a Pod; rejects if it fails. */
export async function call(
  stage: Stage,
  fromPod: string,
  ip: string,
  milliseconds = patience,
): Promise<Call> {
  const { namespaces } = stage.cluster.network;
  const answer = await httpGet(namespaces, podNamespace(fromPod), `http://${ip}/`, milliseconds);
  if (answer.status !== 200) throw new Error(`the server answered ${answer.status}`);
  const client = /You are (\S+),/.exec(answer.body)?.[1] ?? '';
  return { pod: answer.headers['x-pod'] ?? '', client, text: answer.body.trim() };
}

/** Until the Service answers at all: its rules are in force on that Pod's node. */
export function waitForService(stage: Stage, fromPod: string, ip: string): Promise<Call> {
  return waitFor(`an answer from ${ip}`, 15_000, async () => {
    try {
      return await call(stage, fromPod, ip, 2000);
    } catch {
      return undefined; // Not in force yet: asked again.
    }
  });
}
