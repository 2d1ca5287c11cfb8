/** What a process costs, from /proc. */
import { readdirSync, readFileSync } from 'node:fs';

/** CPU time of all threads and of children that have ended, in milliseconds. */
export function cpuMilliseconds(pid: number): number {
  let nanoseconds = 0;
  for (const task of readdirSync(`/proc/${pid}/task`)) {
    try {
      nanoseconds += Number(readFileSync(`/proc/${pid}/task/${task}/schedstat`, 'latin1').split(' ')[0]);
    } catch {
      // The thread has ended.
    }
  }
  const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  // cutime and cstime, in ticks of 10 ms.
  return nanoseconds / 1e6 + (Number(fields[13]) + Number(fields[14])) * 10;
}

/** MiB */
export function memory(pid: number): { readonly resident: number; readonly peak: number } {
  const status = readFileSync(`/proc/${pid}/status`, 'latin1');
  const read = (name: string): number =>
    Number(new RegExp(`^${name}:\\s+(\\d+)`, 'm').exec(status)?.[1] ?? 0) / 1024;
  return { resident: read('VmRSS'), peak: read('VmHWM') };
}
