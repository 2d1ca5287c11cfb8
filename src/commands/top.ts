/** `pointsman top`: new connections as they come. */
import { runTop } from '../status/topCommand.ts';

export function run(argv: string[]): Promise<number> {
  return runTop(argv);
}
