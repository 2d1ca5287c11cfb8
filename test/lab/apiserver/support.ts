/** A running API server for tests, a plain HTTP client for it, and a real kubectl. */
import { execFile, spawn, type ChildProcess } from 'node:child_process';
import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { ApiServer } from '../../../src/lab/apiserver/server.ts';
import { makeOwnedDirectory } from '../../../src/lab/net/ownedDirectory.ts';

// The shape of what comes back is what the tests are about: they look at it field by field.
// eslint-disable-next-line typescript/no-explicit-any
export type Loose = any;

export interface HttpClient {
  call(
    method: string,
    path: string,
    body?: unknown,
    headers?: Record<string, string>,
  ): Promise<{ status: number; headers: Headers; body: Loose }>;
  watch(path: string, headers?: Record<string, string>): Promise<Watch>;
}

export interface Watch {
  /** The next line, parsed; undefined at the end of the stream. */
  next(): Promise<Loose>;
  close(): void;
}

export function httpClient(server: ApiServer): HttpClient {
  const authorization = `Bearer ${server.token}`;
  return {
    call: async (method, path, body, headers = {}) => {
      const response = await fetch(server.url + path, {
        method,
        headers: { authorization, 'content-type': 'application/json', ...headers },
        ...(body === undefined ? {} : { body: typeof body === 'string' ? body : JSON.stringify(body) }),
      });
      const text = await response.text();
      const isJson = response.headers.get('content-type')?.includes('json') === true;
      return {
        status: response.status,
        headers: response.headers,
        body: isJson ? (JSON.parse(text) as unknown) : text,
      };
    },
    watch: async (path, headers = {}) => {
      const abort = new AbortController();
      const response = await fetch(server.url + path, {
        headers: { authorization, ...headers },
        signal: abort.signal,
      });
      const lines = readLines(response);
      return {
        next: async () => {
          const { value, done } = await lines.next();
          return done === true ? undefined : (JSON.parse(value) as unknown);
        },
        close: () => abort.abort(),
      };
    },
  };
}

async function* readLines(response: Response): AsyncGenerator<string> {
  let rest = '';
  const decoder = new TextDecoder();
  for await (const chunk of response.body as unknown as AsyncIterable<Uint8Array>) {
    rest += decoder.decode(chunk, { stream: true });
    const lines = rest.split('\n');
    rest = lines.pop() ?? '';
    yield* lines;
  }
  if (rest !== '') yield rest;
}

export interface Kubectl {
  /** Standard output; throws with standard error if it fails. */
  run(args: readonly string[], input?: string): Promise<string>;
  /** Standard error of a command that must fail. */
  fails(args: readonly string[], input?: string): Promise<string>;
  start(args: readonly string[]): ChildProcess;
  remove(): void;
}

function execute(
  program: string,
  args: readonly string[],
  env: NodeJS.ProcessEnv,
  input: string,
): Promise<{ code: number; out: string; err: string }> {
  return new Promise((resolve) => {
    const child = execFile(
      program,
      [...args],
      { env, timeout: 300_000, maxBuffer: 64 << 20 },
      (error, out, err) => {
        resolve({ code: error === null ? 0 : 1, out, err });
      },
    );
    child.stdin?.end(input);
  });
}

/** Path of a kubectl, fetched if need be. Throws if it cannot be had. */
export async function findKubectl(which: 'new' | 'old'): Promise<string> {
  const { code, out, err } = await execute('bash', ['scripts/kubectl.sh', which], process.env, '');
  if (code !== 0) throw new Error(`scripts/kubectl.sh ${which}: ${err}`);
  return out.trim();
}

export function makeKubectl(program: string, kubeconfig: string): Kubectl {
  const home = makeOwnedDirectory('kubectl');
  writeFileSync(join(home, 'config'), kubeconfig, { mode: 0o600 });
  const env = { PATH: process.env['PATH'], HOME: home, KUBECONFIG: join(home, 'config') };
  return {
    run: async (args, input = '') => {
      const { code, out, err } = await execute(program, args, env, input);
      if (code !== 0) throw new Error(`kubectl ${args.join(' ')}: ${err}`);
      return out;
    },
    fails: async (args, input = '') => {
      const { code, out, err } = await execute(program, args, env, input);
      if (code === 0) throw new Error(`kubectl ${args.join(' ')} should have failed, but printed ${out}`);
      return err;
    },
    start: (args) => spawn(program, args, { env, stdio: ['ignore', 'pipe', 'pipe'] }),
    remove: () => rmSync(home, { recursive: true, force: true }),
  };
}
