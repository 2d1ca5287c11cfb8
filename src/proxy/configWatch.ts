/**
 * Notices that the configuration file was written or renamed; being removed or changing its attributes does not
 * count, as in kube-proxy (so a ConfigMap volume's update, which swaps a symlink, does not either).
 */
import { closeSync, fstatSync, openSync, watch, type BigIntStats } from 'node:fs';

export interface ConfigWatch {
  stop(): void;
}

/** Calls back once. Throws if the file cannot be watched. */
export function watchConfigFile(path: string, changed: () => void): ConfigWatch {
  // The open descriptor keeps the inode: its removal then shows as a change of attributes and not as a rename.
  const descriptor = openSync(path, 'r');
  let before = fstatSync(descriptor, { bigint: true });
  const watcher = watch(path, (event) => {
    const now = fstatSync(descriptor, { bigint: true });
    const counts = event === 'rename' || wasWritten(before, now);
    before = now;
    if (!counts) return;
    stop();
    changed();
  });
  let stopped = false;
  function stop(): void {
    if (stopped) return;
    stopped = true;
    watcher.close();
    closeSync(descriptor);
  }
  return { stop };
}

/** A write sets the modification time; setting the times by hand (touch) also sets the access time to the same value. */
function wasWritten(before: BigIntStats, now: BigIntStats): boolean {
  if (now.size !== before.size) return true;
  return now.mtimeNs !== before.mtimeNs && now.mtimeNs !== now.atimeNs;
}
