/** Runs inside the namespace of cleanup.test.ts: makes sets and rules, or cleans them up. */
import { cleanup as cleanupIptables } from '../../../src/dataplane/iptables/cleanup.ts';
import { cleanup, filledHere } from '../../../src/dataplane/ipvs/cleanup.ts';
import { setIds } from '../../../src/dataplane/ipvs/names.ts';
import { jumps, printRules, rulesOf } from '../../../src/dataplane/ipvs/rules.ts';
import { Sets } from '../../../src/dataplane/ipvs/sets.ts';
import { settingsOf } from '../../../src/dataplane/ipvs/settings.ts';
import { Iptables } from '../../../src/linux/iptables/iptables.ts';
import { silentLogger } from '../../../src/log/logger.ts';
import { ipv4Options, ipv6Options } from '../iptables/routes.ts';

async function make(): Promise<void> {
  for (const options of [ipv4Options, ipv6Options]) {
    const sets = new Sets(options.family);
    for (const id of setIds) sets.ensure(id);
    sets.close();
    const settings = settingsOf({ ...options, scheduler: '', excludeCIDRs: [] }, true);
    const iptables = await Iptables.open(options.family);
    // Every rule, as if every set were filled.
    await iptables.restore(
      printRules(
        rulesOf(settings, () => true, []),
        jumps,
      ),
    );
  }
}

async function main(what: string | undefined): Promise<void> {
  if (what === 'make') await make();
  else if (what === 'iptables') await cleanupIptables({ log: silentLogger, stays: filledHere });
  else if (what === 'shared')
    // Iptables mode has filled the shared chains in its own way by then.
    await emptied().then(() => cleanup({ log: silentLogger, ipvs: undefined, inForce: 'iptables' }));
  else await cleanup({ log: silentLogger, ipvs: undefined });
}

async function emptied(): Promise<void> {
  for (const family of ['IPv4', 'IPv6'] as const) {
    const iptables = await Iptables.open(family);
    await iptables.restore(
      '*nat\n:KUBE-SERVICES - [0:0]\n:KUBE-POSTROUTING - [0:0]\nCOMMIT\n*filter\n:KUBE-PROXY-FIREWALL - [0:0]\nCOMMIT\n',
    );
  }
}

main(process.argv[2]).catch((error: unknown) => {
  console.error(error);
  process.exitCode = 1;
});
