/** `pointsman diff`: what a node's proxy wants against what the kernel has. */
import { runDiff } from '../diff/cli.ts';

export function run(argv: string[]): Promise<number> {
  return runDiff(argv);
}
