/** Misbehaviour on demand, for tests: what a real API server does on its bad days. */
import type { ServerResponse } from 'node:http';

export interface AnswerFault {
  /** 429, 500, 503 … */
  readonly code: number;
  /** How many requests get it; then all is well again. */
  readonly times: number;
  readonly retryAfterSeconds?: number;
}

export class Faults {
  /** Requests are cut off without an answer. */
  refuse = false;
  /** Requests get no answer, but the connection stays. */
  stall = false;
  /** Watches stay open and say nothing, as a peer that died silently does. Events meanwhile are lost to them. */
  watchesStalled = false;
  #answer: AnswerFault | undefined;
  /** Bodies to send instead of the next answers to reads. */
  readonly #bodies: string[] = [];
  readonly #watches = new Set<ServerResponse>();

  get watchCount(): number {
    return this.#watches.size;
  }

  /** Registers a watch; returns how to forget it. */
  addWatch(response: ServerResponse): () => void {
    this.#watches.add(response);
    return () => this.#watches.delete(response);
  }

  /** The next requests get this answer. */
  answerWith(fault: AnswerFault | undefined): void {
    this.#answer = fault;
  }

  /** The next list or get is answered with this text, whatever it is. */
  answerBody(text: string): void {
    this.#bodies.push(text);
  }

  nextBody(): string | undefined {
    return this.#bodies.shift();
  }

  nextAnswer(): AnswerFault | undefined {
    const fault = this.#answer;
    if (fault === undefined) return undefined;
    this.#answer = fault.times > 1 ? { ...fault, times: fault.times - 1 } : undefined;
    return fault;
  }

  /**
   * Ends all watches: `clean` as at a timeout, `mid-line` after half an event, `reset` by closing the connection,
   * `malformed` not at all: it writes a line that is no JSON, and goes on.
   */
  cutWatches(how: 'clean' | 'mid-line' | 'reset' | 'malformed'): number {
    const all = [...this.#watches];
    for (const response of all) {
      if (how === 'reset') response.destroy();
      else if (how === 'malformed') response.write('{"type":"MODIFIED","object":{"kind":\n');
      else {
        if (how === 'mid-line') response.write('{"type":"MODIFIED","object":{"kind":"Serv');
        response.end();
      }
    }
    return all.length;
  }

  /** Watches get this line as it is. */
  writeToWatches(line: string): void {
    for (const response of this.#watches) response.write(`${line}\n`);
  }

  clear(): void {
    this.refuse = false;
    this.stall = false;
    this.watchesStalled = false;
    this.#answer = undefined;
    this.#bodies.length = 0;
  }
}
