/** `pointsman lab`: a small cluster in network namespaces, by hand or from scenario files. */
import { runLab } from '../lab/cli.ts';

export function run(argv: string[]): Promise<number> {
  return runLab(argv);
}
