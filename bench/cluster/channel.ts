/** Requests and answers between the benchmark and the processes it starts, over Node's IPC. */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';

export interface Answer {
  readonly id: number;
  readonly value?: unknown;
  readonly error?: string;
}

/** CLOCK_MONOTONIC in milliseconds: the same in all processes of the machine. */
export function now(): number {
  return Number(process.hrtime.bigint()) / 1e6;
}

/** In a child: answers each request `{ id, verb, … }` with what the handler of its verb returns. */
export function answerRequests(
  handlers: Readonly<Record<string, (request: Readonly<Record<string, unknown>>) => unknown>>,
): void {
  process.on('message', (request: Readonly<Record<string, unknown>>) => {
    const id = Number(request['id']);
    const handler = handlers[String(request['verb'])];
    Promise.resolve()
      .then(() => {
        if (handler === undefined) throw new Error(`no such verb: ${String(request['verb'])}`);
        return handler(request);
      })
      .then(
        (value) => process.send?.({ id, value }),
        (error: unknown) => process.send?.({ id, error: String(error) }),
      );
  });
  process.on('disconnect', () => process.exit(0));
}

/** A process started by the benchmark, with a channel to it. */
export class Peer {
  readonly child: ChildProcess;
  readonly ended: Promise<unknown>;
  /** The process has said that it is ready (request 0). */
  readonly ready: Promise<void>;
  private readonly waiting = new Map<
    number,
    { resolve: (value: never) => void; reject: (e: Error) => void }
  >();
  private count = 0;
  private output = '';

  /** `argv`: must become a Node program in the very process (exec all the way). */
  constructor(argv: readonly string[], env: NodeJS.ProcessEnv = process.env) {
    const [program = '', ...rest] = argv;
    this.child = spawn(program, rest, { stdio: ['ignore', 'pipe', 'pipe', 'ipc'], env });
    this.ready = new Promise((resolve, reject) => this.waiting.set(0, { resolve, reject }));
    // Whoever waits for it hears of a failure; a program of somebody else's never says it.
    this.ready.catch(() => undefined);
    const keep = (text: string): void => {
      this.output = (this.output + text).slice(-20_000);
    };
    this.child.stdout?.setEncoding('utf8').on('data', keep);
    this.child.stderr?.setEncoding('utf8').on('data', keep);
    this.child.on('message', (answer: Answer) => {
      const waiter = this.waiting.get(answer.id);
      this.waiting.delete(answer.id);
      if (answer.error !== undefined) waiter?.reject(new Error(answer.error));
      else waiter?.resolve(answer.value as never);
    });
    this.ended = once(this.child, 'exit').then(() => {
      const error = new Error(`${argv.join(' ')} ended:\n${this.output}`);
      for (const { reject } of this.waiting.values()) reject(error);
      this.waiting.clear();
    });
  }

  get pid(): number {
    return this.child.pid ?? 0;
  }

  get lastWords(): string {
    return this.output;
  }

  ask<T>(verb: string, fields: Readonly<Record<string, unknown>> = {}): Promise<T> {
    const id = ++this.count;
    return new Promise<T>((resolve, reject) => {
      this.waiting.set(id, { resolve, reject });
      this.child.send({ ...fields, id, verb }, (error) => {
        if (error !== null) reject(error);
      });
    });
  }

  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    if (this.child.exitCode !== null || this.child.signalCode !== null) return;
    this.child.kill(signal);
    await this.ended;
  }
}
