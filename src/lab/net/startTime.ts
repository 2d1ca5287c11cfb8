/** Tells processes apart that had the same id, one after the other. */
import { readFileSync } from 'node:fs';

/**
 * Field 22 of /proc/PID/stat: a process id together with it is never reused. Undefined if there is no such process, or
 * only what is left of one that nobody has waited for.
 */
export function startTime(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return fields[0] === 'Z' ? undefined : fields[19];
  } catch {
    return undefined; // The process is gone, which is what the caller wants to know.
  }
}
