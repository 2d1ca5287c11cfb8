/** What a change of mode has to keep, as steps for tests. */
import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  difference,
  serviceIP6,
  setups,
  Stream,
  SwitchNode,
  type Program,
  type Setup,
  type SetupName,
} from './switchNode.ts';

/** What a change of mode cannot keep. */
export interface Excuse {
  readonly from: readonly SetupName[];
  readonly to: readonly SetupName[];
  /** New connections may fail for this reason; without one, none does. */
  readonly gap?: string;
  /** No more than so many fail; default any number. */
  readonly atMost?: number;
  /** A held connection may end for this reason; without one, it lives. */
  readonly ends?: string;
}

const userspace: readonly SetupName[] = ['userspace', 'userspace-without-nat'];
const kernelModes: readonly SetupName[] = ['iptables-nft', 'iptables-legacy', 'nftables', 'ipvs'];

/** The stream has four clients with one connection each at a time. */
const inFlight = 4;

export const excuses: readonly Excuse[] = [
  {
    from: userspace,
    to: [...userspace, ...kernelModes],
    gap: 'nobody accepts connections from the end of the old process until the new rules are in force',
    ends: 'the old process was one end of the connection',
  },
  {
    from: kernelModes,
    to: ['userspace-without-nat'],
    gap: 'connections begun in the instant before the old rules go, see below',
    atMost: inFlight,
    ends: 'when the last rule goes that translates or tracks, the kernel does neither any more, for no connection',
  },
  {
    from: ['ipvs'],
    to: ['iptables-nft', 'iptables-legacy', 'nftables', 'userspace'],
    gap: 'connections begun in the instant before the virtual servers go end with them',
    atMost: inFlight,
    ends: 'IPVS drops what comes for a virtual server that is gone; what comes again is a new packet for the new rules',
  },
];

/** A fresh start, and what `pointsman run --cleanup` leaves of it after SIGKILL. */
export interface FreshRun {
  /** Before the start, after it, and after the clean-up, if there was one. */
  readonly before: string;
  readonly fresh: string;
  readonly cleaned: string;
  readonly code: number | null;
  readonly log: string;
}

/** Fresh runs by setup, each made once, when it is first needed. */
export class FreshRuns {
  readonly #runs = new Map<SetupName, Promise<FreshRun>>();
  readonly #program: Program;
  readonly #cleans: readonly SetupName[];

  /** `cleans`: which are cleaned up at the end. */
  constructor(program: Program, cleans: readonly SetupName[]) {
    this.#program = program;
    this.#cleans = cleans;
  }

  get(name: SetupName): Promise<FreshRun> {
    let run = this.#runs.get(name);
    if (run === undefined) {
      run = this.#make(name);
      this.#runs.set(name, run);
    }
    return run;
  }

  /** The first start on a node, as `begin`, becomes the fresh run: where a start takes long. */
  async begin(node: SwitchNode, name: SetupName): Promise<void> {
    const before = await node.snapshot();
    const fresh = await startFresh(node, name);
    this.#runs.set(name, Promise.resolve({ before, fresh, cleaned: '', code: null, log: node.log }));
  }

  async #make(name: SetupName): Promise<FreshRun> {
    const setup = setups[name];
    const node = new SwitchNode(this.#program);
    try {
      const before = await node.snapshot();
      const fresh = await startFresh(node, name);
      await node.stop('SIGKILL');
      if (!this.#cleans.includes(name)) return { before, fresh, cleaned: '', code: null, log: node.log };
      const code = await node.cleanup(setup);
      return { before, fresh, cleaned: await node.snapshot(), code, log: node.log };
    } finally {
      await node.close();
    }
  }
}

/** What is in the kernel when a first start has done all it does. */
async function startFresh(node: SwitchNode, name: SetupName): Promise<string> {
  const setup: Setup = setups[name];
  node.start(setup);
  let last = '';
  await node.becomes((now) => {
    const settled = now === last && setup.programmed.test(now);
    last = now;
    return settled ? undefined : now;
  });
  // Clean-up and what else follows the first sync is done when nothing changes any more.
  for (let before = ''; before !== last;) {
    before = last;
    await sleep(1500);
    last = await node.snapshot();
  }
  return last;
}

/** Starts the program for the first time, and waits until all is as after a fresh start. */
export async function begin(node: SwitchNode, name: SetupName, runs: FreshRuns): Promise<void> {
  const { fresh } = await runs.get(name);
  node.start(setups[name]);
  await node.becomes((now) => difference(now, fresh));
}

/** Ends the program and starts it in another mode, under traffic; what is promised holds. */
export async function change(
  node: SwitchNode,
  from: SetupName,
  to: SetupName,
  signal: 'SIGTERM' | 'SIGKILL',
  runs: FreshRuns,
): Promise<void> {
  const { fresh } = await runs.get(to);
  const what = `${from} to ${to} by ${signal}`;
  const places = [node.client, node.node];
  const held = places.flatMap((place) => [node.connect(place), node.connect(place, serviceIP6)]);
  for (const one of held)
    assert.match(await one.line(), /^hello /, `${what}: before the change\n${node.log}`);
  const stream = new Stream(node);
  await sleep(50);
  await node.stop(signal);
  node.start(setups[to]);
  try {
    await node.becomes((now) => difference(now, fresh));
    // A few more of each client.
    const few = stream.count + 10;
    for (let i = 0; i < 600 && stream.count < few; i++) await sleep(100);
  } finally {
    await stream.stop();
  }
  const found = excuses.find((one) => one.from.includes(from) && one.to.includes(to));
  assert.ok(stream.count > 10);
  const failed = [...stream.failures.values()].reduce((sum, n) => sum + n, 0);
  const most = found?.gap === undefined ? 0 : (found.atMost ?? Infinity);
  const list = JSON.stringify([...stream.failures]);
  assert.ok(
    failed <= most,
    `${what}: ${failed} of ${stream.count} new connections failed: ${list}\n${node.log}`,
  );
  for (const one of held) {
    if (found?.ends === undefined)
      assert.equal(await one.echo('still here'), 'still here', `${what}: held connection\n${node.log}`);
    one.close();
  }
  for (const place of places) {
    for (const ip of [undefined, serviceIP6]) {
      const last = node.connect(place, ip);
      assert.match(await last.line(), /^hello /, `${what}: after the change`);
      last.close();
    }
  }
}
