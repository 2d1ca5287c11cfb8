/** `pointsman demo`: two stories of Service networking, played with real packets on this machine. */
import { runDemo } from '../lab/demo/demo.ts';
import { programName } from '../programName.ts';

const help = `Usage: ${programName} demo

Plays two stories of Service networking with real packets: a front end that calls an API, and a flash sale. It makes a cluster
of two nodes on this machine, in network namespaces, and removes it again. Takes about 20 seconds; needs root.

Exit status: 0 all of it held, 1 something did not, 2 it could not be played.
`;

export function run(argv: readonly string[]): Promise<number> {
  const [word] = argv;
  if (word === undefined) return runDemo();
  if (word === '--help' || word === '-h') {
    process.stdout.write(help);
    return Promise.resolve(0);
  }
  process.stderr.write(
    `Error: what is "${word}"? The demo takes nothing\n${programName} demo --help says more.\n`,
  );
  return Promise.resolve(2);
}
