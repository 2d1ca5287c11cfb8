/** Whether the kernel can do all that nftables mode needs: asked by a transaction that is checked and not made. */
import { Batch } from '../../linux/netlink/nftables/batch.ts';
import { rule, table } from '../../linux/netlink/nftables/objects.ts';
import { CommitError, NftSocket } from '../../linux/netlink/nftables/socket.ts';
import { EPERM } from '../../linux/netlink/errors.ts';
import { release } from 'node:os';
import type { Family } from '../../api/objects.ts';
import { makeLayout, tableName, type ChainWithRules, type Layout, type NftablesOptions } from './layout.ts';
import { buildServiceChain, recordingChains } from './serviceChains.ts';

/**
 * Whether the kernel has nf_tables for the family at all. What it lacks beyond that `probe` says, in words, when the
 * mode is set up: a node is not to fall back to one family because of a missing module.
 */
export function canUseNftables(family: Family): boolean {
  const nft = new NftSocket();
  try {
    const name = table(family === 'IPv6' ? 'ip6' : 'ip', probeTable);
    nft.commit(new Batch().add(name), { checkOnly: true });
    return true;
  } catch (error) {
    if (error instanceof CommitError) return false;
    throw error;
  } finally {
    nft.close();
  }
}

const probeTable = 'pointsman-probe';

/** One chain of each kind. */
const kinds = [
  'pick-8',
  'node-port-pick-1',
  'local-pick-1',
  'sticky-pick-8',
  'external-pick-8',
  'local-sticky-pick-1',
  'external-local-pick-8-1',
  'sticky-time-10800',
  ...recordingChains,
];

/**
 * Throws a sentence that names what the kernel refuses.
 */
export function probe(nft: NftSocket, options: NftablesOptions): void {
  const layout = makeLayout(options);
  const batch = new Batch();
  const probed = { ...layout.table, name: probeTable };
  batch.add(probed);
  for (const set of layout.sets.values()) batch.add({ ...set, table: probed });
  const add = ({ chain, rules }: ChainWithRules): void => {
    batch.add({ ...chain, table: probed });
    for (const one of rules) batch.add(rule(probed, one.chain, [one.expressions], one.comment));
  };
  for (const chain of layout.chains) add(chain);
  for (const name of kinds) add(buildServiceChain(layout, name));
  for (const chain of layout.baseChains) add(chain);
  try {
    nft.commit(batch, { checkOnly: true });
  } catch (error) {
    throw new Error(explain(layout, error), { cause: error });
  }
}

function explain(layout: Layout, error: unknown): string {
  const where = `nftables mode cannot work for ${layout.family === 'ip6' ? 'IPv6' : 'IPv4'}`;
  if (!(error instanceof CommitError))
    return `${where}: ${error instanceof Error ? error.message : String(error)}`;
  if (error.errno === EPERM)
    return `${where}: permission to change nftables is missing; give the process CAP_NET_ADMIN`;
  const refused = error.message.replaceAll(probeTable, tableName);
  return `${where}: kernel ${release()} refuses "${refused}"; it takes Linux 5.13 or later with nf_tables, nft_ct, nft_nat, nft_masq, nft_reject, nft_fib, nft_numgen`;
}
