/** What status and top share: exit codes, the socket's flag, and which Services to show. */
import { Option, type Command } from 'commander';
import { DaemonUnreachable, type ServiceFilter } from './client.ts';

export const exitOK = 0;
/** A wrong command line, or something unexpected. */
export const exitError = 1;
/** The daemon answers, and is not healthy. */
export const exitUnhealthy = 2;
/** No daemon answers. */
export const exitNoDaemon = 3;
/** Nothing is of that namespace and name. */
export const exitNothingFound = 4;

export const exitCodesHelp =
  '\nExit codes: 0 healthy, 1 error, 2 the daemon is not healthy, 3 no daemon answers, 4 no such Service\n';

export function socketOption(): Option {
  return new Option('--socket, --socket-path <path>', "the daemon's socket, as its --socket-path says").env(
    'POINTSMAN_SOCKET',
  );
}

/** `NAMESPACE`, `NAMESPACE/NAME`; with `-n` also `NAME`. Throws an Error that says what is wrong. */
export function parseFilter(what: string | undefined, namespace: string | undefined): ServiceFilter {
  if (what === undefined) return namespace === undefined ? {} : { namespace };
  const [first = '', second, ...more] = what.split('/');
  const name = /^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$/;
  if (more.length > 0 || !name.test(first) || (second !== undefined && !name.test(second)))
    throw new Error(`"${what}" is not a Service; write NAMESPACE/NAME, or NAMESPACE for all of it`);
  if (second === undefined)
    return namespace === undefined ? { namespace: first } : { namespace, service: first };
  if (namespace !== undefined && namespace !== first)
    throw new Error(`"${what}" is in namespace ${first}, but --namespace says ${namespace}`);
  return { namespace: first, service: second };
}

export function isFiltered({ namespace = '', service = '' }: ServiceFilter): boolean {
  return namespace !== '' || service !== '';
}

/** Runs a command line: usage errors and failures become messages and exit codes. */
export async function runCommand(
  command: Command,
  argv: readonly string[],
  exit: () => number,
): Promise<number> {
  command.exitOverride().configureOutput({ writeErr: (text) => void process.stderr.write(text) });
  try {
    await command.parseAsync(argv, { from: 'user' });
    return exit();
  } catch (error) {
    const { code } = error as { readonly code?: unknown };
    if (code === 'commander.helpDisplayed') return exitOK;
    if (typeof code === 'string' && code.startsWith('commander.')) return exitError;
    process.stderr.write(`Error: ${error instanceof Error ? error.message : String(error)}\n`);
    return error instanceof DaemonUnreachable ? exitNoDaemon : exitError;
  }
}
