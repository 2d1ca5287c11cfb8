/** `pointsman COMMAND …`; flags without a command mean `run`, so that it can stand where kube-proxy stood. */
import { commands } from './commands/index.ts';
import { meant } from './config/spelling.ts';
import { createLog } from './log/log.ts';
import { versionLine } from './version.ts';
import { programName } from './programName.ts';

async function main(argv: string[]): Promise<number> {
  const [first, ...rest] = argv[0] === 'help' && argv[1] !== undefined ? [argv[1], '--help'] : argv;
  if (first === undefined || first === 'help' || first === '--help' || first === '-h') {
    process.stdout.write(overview());
    return 0;
  }
  const flagsOnly = first.startsWith('-');
  const name = flagsOnly ? 'run' : first;
  const command = commands.find((candidate) => candidate.name === name);
  if (command === undefined) {
    const near = meant(
      name,
      commands.filter(({ hidden }) => hidden !== true).map((one) => one.name),
    );
    const hint = near === undefined ? '' : `; did you mean ${near}?`;
    process.stderr.write(`Error: unknown command "${first}"${hint}\n\n${overview()}`);
    return 1;
  }
  const { run } = await command.load();
  return run(flagsOnly ? argv : rest);
}

function overview(): string {
  const shown = commands.filter(({ hidden }) => hidden !== true);
  const width = Math.max(...shown.map(({ name }) => name.length));
  const list = shown.map(({ name, summary }) => `  ${name.padEnd(width)}  ${summary}\n`).join('');
  return (
    `pointsman: a service proxy for Kubernetes nodes. ${versionLine()}\n\n` +
    `Usage: ${programName} COMMAND …, or ${programName} [flags] for ${programName} run [flags]\n\n${list}\n` +
    `${programName} COMMAND --help says more about a command.\n`
  );
}

/** A defect, not a condition anybody planned for: said once, then the end. Whatever restarts us starts afresh. */
function endAfterCrash(message: string, err: unknown): void {
  const stack = err instanceof Error ? err.stack : undefined;
  createLog().error(message, { err, ...(stack !== undefined && { stack }) });
  process.exit(1);
}

/** The kernel drops a signal's default action for the first process of a container, so there we end ourselves. */
function endOnSignalsAsInit(): void {
  if (process.pid !== 1) return;
  const codes = { SIGHUP: 129, SIGINT: 130, SIGTERM: 143 } as const;
  for (const [signal, code] of Object.entries(codes)) process.on(signal, () => process.exit(code));
}

/** Whoever reads our output has seen enough (`… | head`): the end, as SIGPIPE brings it to other programs. */
function endWithoutReader(): void {
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code !== 'EPIPE') throw error;
    process.exit(141);
  });
}

/** A pipe takes 64 KiB at a time, and what it has not taken is lost with the process. */
async function delivered(): Promise<void> {
  for (const stream of [process.stdout, process.stderr])
    await new Promise<void>((resolve) => {
      stream.write('', () => resolve());
    });
}

process.on('uncaughtException', (error) => endAfterCrash('Uncaught exception', error));
process.on('unhandledRejection', (reason) => endAfterCrash('Unhandled rejection', reason));
endOnSignalsAsInit();
endWithoutReader();
const exitCode = await main(process.argv.slice(2));
await delivered();
// Not only the exit code: a command that has failed may have left sockets or timers behind.
process.exit(exitCode);
