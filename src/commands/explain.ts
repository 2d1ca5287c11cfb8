/** `pointsman explain`: where a packet goes, and why. */
import { runExplain } from '../explain/cli.ts';

export function run(argv: string[]): Promise<number> {
  return runExplain(argv);
}
