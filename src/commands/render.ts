/** `pointsman render`: the rules that a node's proxy would make, without a kernel. */
import { runRender } from '../render/cli.ts';

export function run(argv: string[]): Promise<number> {
  return runRender(argv);
}
