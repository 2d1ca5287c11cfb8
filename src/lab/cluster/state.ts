/** What a lab in the background leaves for the commands that talk to it: a directory with its state, below /run. */
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { startTime } from '../net/startTime.ts';

/** Of the lab that commands mean if they name none. */
export const defaultLab = 'lab';

export interface LabState {
  readonly pid: number;
  /** What the namespaces' names begin with. */
  readonly prefix: string;
  readonly nodes: readonly string[];
  readonly mode: string;
  readonly podNetwork: string;
  /** Logs and configuration. */
  readonly directory: string;
  readonly kubeconfig: string;
}

/** @param lab small letters, digits and dashes */
function labDirectory(lab: string): string {
  return `/run/pointsman-lab/up-${lab}`;
}

function stateFile(lab: string): string {
  return join(labDirectory(lab), 'state.json');
}

/** What the lab's own process says. */
export function daemonLog(lab: string): string {
  return join(labDirectory(lab), 'lab.log');
}

/** The running lab's state; undefined if there is none. */
export function readState(lab = defaultLab): LabState | undefined {
  const file = stateFile(lab);
  if (!existsSync(file)) return undefined;
  const state = JSON.parse(readFileSync(file, 'utf8')) as LabState;
  return startTime(state.pid) === undefined ? undefined : state;
}

export function clearState(lab: string): void {
  rmSync(labDirectory(lab), { recursive: true, force: true });
}

export function makeDirectory(lab: string): void {
  clearState(lab);
  mkdirSync(labDirectory(lab), { recursive: true, mode: 0o700 });
}

/** Written in one go, because others wait for it. */
export function writeState(lab: string, state: LabState): void {
  const file = stateFile(lab);
  writeFileSync(`${file}.new`, JSON.stringify(state));
  renameSync(`${file}.new`, file);
}
