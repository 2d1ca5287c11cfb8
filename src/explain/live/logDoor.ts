/**
 * Where the kernel writes what rules of legacy iptables say of traced packets: for the time of a watch to us, after it
 * where it went before.
 */
import { spawn } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import type { Family } from '../../api/objects.ts';
import { EPERM, isRefusal } from '../../linux/netlink/errors.ts';
import { watchLog, type LoggedPacket } from '../../linux/netlink/nflog.ts';

const netlinkLogger = 'nfnetlink_log';
/** Traces go to this group (nfnetlink_log's default). */
const traceGroup = 0;

/**
 * Waits for the end of its parent, whichever way it comes, and writes the old value back. The setting is one of the
 * network namespace, and the kernel does not tie it to a process.
 */
const keeper = `
const [file, value] = process.argv.slice(1);
for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(name, () => {});
process.stdin.resume().on('end', () => require('node:fs').writeFileSync(file, value));
`;

/** The logger of the namespace for IPv4 (PF_INET) or IPv6 (PF_INET6). */
function loggerFile(family: Family): string {
  return `/proc/sys/net/netfilter/nf_log/${family === 'IPv6' ? 10 : 2}`;
}

/**
 * Hands over what is logged; the function returned ends it. Throws if the kernel has no such logger, or another
 * program listens already.
 */
export async function openLogDoor(
  family: Family,
  onPacket: (logged: LoggedPacket) => void,
  onLost: (reason: string) => void,
): Promise<() => Promise<void>> {
  let stop: () => void;
  try {
    stop = watchLog(traceGroup, onPacket, onLost);
  } catch (error) {
    if (!isRefusal(error, EPERM)) throw error;
    throw new Error(`another program listens to log group ${traceGroup}`, { cause: error });
  }
  try {
    const putBack = await takeLogger(loggerFile(family));
    return async () => {
      await putBack();
      stop();
    };
  } catch (error) {
    stop();
    throw error;
  }
}

async function takeLogger(file: string): Promise<() => Promise<void>> {
  const before = readFileSync(file, 'utf8').trim();
  if (before === netlinkLogger) return async () => undefined;
  const child = spawn(process.execPath, ['-e', keeper, file, before], {
    stdio: ['pipe', 'ignore', 'ignore'],
    // Not killed along with us by a signal to our group.
    detached: true,
  });
  const ended = new Promise<void>((resolve) => {
    child.once('exit', () => resolve());
    child.once('error', () => resolve());
  });
  await new Promise<void>((resolve, reject) => {
    child.once('spawn', resolve);
    child.once('error', reject);
  });
  writeFileSync(file, netlinkLogger);
  return async () => {
    child.stdin.end();
    await ended;
  };
}
