/** `pointsman demo`: sets up a cluster of two nodes on this machine and plays two stories of Service networking in it. */
import { spawnSync } from 'node:child_process';
import { setTimeout as sleep } from 'node:timers/promises';
import { checkoutScript } from '../cluster/kubectl.ts';
import { LabCluster } from '../cluster/labCluster.ts';
import { sweepNamespaces } from '../net/namespaces.ts';
import { playFlashSale } from './flashSale.ts';
import { playFrontend } from './frontend.ts';
import { DemoFailure } from './stage.ts';

function preparePackages(): boolean {
  const script = checkoutScript('lab-packages.sh');
  return script === undefined || spawnSync(script, { stdio: 'inherit' }).status === 0;
}

function say(line = ''): void {
  process.stdout.write(`${line}\n`);
}

/** A terminal sends Ctrl-C to all that run in it: the end of a child may be noticed before the signal is. */
function signalsHandled(): Promise<void> {
  return sleep(10);
}

/** The lab's namespaces, and the processes in them, go when this process exits. */
function endOnSignals(): void {
  for (const [signal, code] of Object.entries({ SIGINT: 130, SIGTERM: 143, SIGHUP: 129 }))
    process.once(signal, () => {
      process.on('exit', () => say('\nStopped; everything is removed again.'));
      process.exit(code);
    });
}

/** Resolves to the exit code: 0 all held, 1 something did not, 2 the cluster could not be set up. */
export async function runDemo(): Promise<number> {
  if (process.getuid?.() !== 0) {
    process.stderr.write(
      'pointsman demo: makes network namespaces, which only root may do: run it as root\n',
    );
    return 2;
  }
  endOnSignals();
  if (!preparePackages()) {
    await signalsHandled();
    return 2;
  }
  sweepNamespaces();
  const begin = performance.now();
  let cluster: LabCluster | undefined;
  try {
    say('A cluster of two nodes on this machine, each a network namespace with its own');
    say('kernel rules; an API server; and on each node pointsman in iptables mode.');
    cluster = await LabCluster.create({
      nodes: 2,
      attachment: 'route',
      podNetwork: 'routes',
      mode: 'iptables',
      iptables: undefined,
      proxyCommand: undefined,
      onError: (message, error) => void signalsHandled().then(() => say(`  (${message}: ${String(error)})`)),
    });
    say(`Up after ${((performance.now() - begin) / 1000).toFixed(1)} s.`);
    say();
    await playFrontend({ cluster, say });
    await playFlashSale({ cluster, say });
    say(`All of it held. ${((performance.now() - begin) / 1000).toFixed(0)} s; everything is removed again.`);
    return 0;
  } catch (error) {
    await signalsHandled();
    say();
    if (error instanceof DemoFailure) {
      say(`NOT AS IT SHOULD BE: ${error.message}`);
      return 1;
    }
    say(`The demo could not be played: ${error instanceof Error ? error.message : String(error)}`);
    return 2;
  } finally {
    await cluster?.close();
  }
}
