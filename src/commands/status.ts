/** `pointsman status`: what the proxy of this node does. */
import { runStatus } from '../status/statusCommand.ts';

export function run(argv: string[]): Promise<number> {
  return runStatus(argv);
}
