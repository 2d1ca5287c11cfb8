/**
 * Directories below the system's temporary one whose names tell whose they are (`pointsman-PURPOSE-PID-START-…`), so that
 * what a killed process left there is removed by the next one that needs such a directory.
 */
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { startTime } from './startTime.ts';

const ownerPattern = /^pointsman-[a-z]+(?:-[a-z]+)*-(\d+)-(\d+)-\w+$/;

/** Makes a directory that only its user may look into. @param purpose small letters and dashes */
export function makeOwnedDirectory(purpose: string, parent = tmpdir()): string {
  sweepOwnedDirectories(parent);
  return mkdtempSync(join(parent, `pointsman-${purpose}-${process.pid}-${startTime(process.pid)}-`));
}

/** Removes the directories of processes that no longer live; returns their names. */
export function sweepOwnedDirectories(parent = tmpdir()): string[] {
  const removed: string[] = [];
  for (const name of readdirSync(parent)) {
    const [, pid, started] = ownerPattern.exec(name) ?? [];
    if (pid === undefined || startTime(Number(pid)) === started) continue;
    try {
      rmSync(join(parent, name), { recursive: true, force: true });
      removed.push(name);
    } catch {
      // Another user's, who has to remove it.
    }
  }
  return removed;
}
