/** `pointsman lab …`: reads the command line and calls what it names. Exit codes: 0 well, 1 not as wanted, 2 could not be done. */
import { Command, CommanderError } from 'commander';
import { clusterCommands } from './cluster/commands.ts';
import { runCommand } from './scenario/runCommand.ts';
import { programName } from '../programName.ts';

export async function runLab(argv: readonly string[]): Promise<number> {
  let code = 0;
  const setExit = (value: number): void => {
    code = value;
  };
  const program = new Command(`${programName} lab`)
    .description('a small cluster in network namespaces on this machine')
    .exitOverride();
  program.enablePositionalOptions();
  program.addCommand(runCommand(setExit).exitOverride());
  for (const command of clusterCommands(setExit)) {
    program.addCommand(command.exitOverride(), { hidden: command.name() === 'daemon' });
  }
  try {
    await program.parseAsync([...argv], { from: 'user' });
    return code;
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
    process.stderr.write(`pointsman lab: ${error instanceof Error ? error.message : String(error)}\n`);
    for (
      let cause = error instanceof Error ? error.cause : undefined;
      cause instanceof Error;
      cause = cause.cause
    ) {
      if (!String(error).includes(cause.message)) process.stderr.write(`  because: ${cause.message}\n`);
    }
    return 2;
  }
}
