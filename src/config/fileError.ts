/** Why a file cannot be read or written, for somebody who named it. */

/** `no such file or directory`, without the name of the system call; any other error in its own words. */
export function fileReason(error: unknown): string {
  const { message } = error as Error;
  return /^E[A-Z0-9]+: ([^,]+), \w+/.exec(message)?.[1] ?? message;
}

/** Does `act` with a file; what goes wrong is said with the file's name. @param what `--dump rules.txt: cannot be read` */
export function withFile<T>(what: string, act: () => T): T {
  try {
    return act();
  } catch (error) {
    throw new Error(`${what}: ${fileReason(error)}`, { cause: error });
  }
}
