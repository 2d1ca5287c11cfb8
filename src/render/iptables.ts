/** iptables mode: the document that iptables-restore loads. */
import { wholeDocument } from '../dataplane/iptables/document.ts';
import { settingsOf, type Settings } from '../dataplane/iptables/settings.ts';
import { nodePortTail } from '../dataplane/iptables/staticRules.ts';
import type { WantedFamily, Wanted } from './wanted.ts';

/** What the daemon asks the machine, and a rendering cannot. */
export interface IptablesAssumptions {
  /** `MASQUERADE --random-fully` exists (iptables 1.6.2 and later). */
  readonly randomFully?: boolean;
  /** nfacct counters exist; rules name them then. */
  readonly counters?: boolean;
  /** The kernel's nf_conntrack_tcp_be_liberal; default: what the configuration sets. */
  readonly tcpBeLiberal?: boolean;
}

export function iptablesSettings(
  { config }: Pick<Wanted, 'config'>,
  { options }: WantedFamily,
  assumptions: IptablesAssumptions = {},
): Settings {
  const { randomFully = true, counters = false, tcpBeLiberal = config.conntrack.tcpBeLiberal } = assumptions;
  return settingsOf(
    { ...options, localhostNodePorts: config.localhostNodePorts },
    { tcpBeLiberal, randomFully, countInvalid: counters, countLocalhost: counters },
  );
}

export function renderIptables(
  wanted: Pick<Wanted, 'config' | 'node'>,
  family: WantedFamily,
  assumptions: IptablesAssumptions = {},
  localAddresses: readonly string[] = wanted.node.localAddresses,
): string {
  const settings = iptablesSettings(wanted, family, assumptions);
  const { rules } = nodePortTail(settings, localAddresses);
  return wholeDocument([...family.table.routes.values()], settings, rules, { start: true });
}
