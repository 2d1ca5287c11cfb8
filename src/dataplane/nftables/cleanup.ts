/** Removes the tables of nftables mode (ours and kube-proxy's have the same names) over netlink: no `nft` needed. */
import { ENOENT, EOPNOTSUPP, EPERM, isRefusal } from '../../linux/netlink/errors.ts';
import { Batch } from '../../linux/netlink/nftables/batch.ts';
import { table } from '../../linux/netlink/nftables/objects.ts';
import { NftSocket } from '../../linux/netlink/nftables/socket.ts';
import { tableName } from './layout.ts';

const EAFNOSUPPORT = 97;
const EPROTONOSUPPORT = 93;

/**
 * Deletes `table ip kube-proxy` and `table ip6 kube-proxy` with all that is in them.
 * @returns the tables that were there
 * @throws NetlinkError if the kernel refuses, other than because there is no such table, no nf_tables or no permission
 */
export function removeTables(): string[] {
  const removed: string[] = [];
  const nft = new NftSocket();
  try {
    for (const family of ['ip', 'ip6'] as const) {
      try {
        nft.commit(new Batch().delete(table(family, tableName)));
        removed.push(`table ${family} ${tableName}`);
      } catch (error) {
        if (!isRefusal(error, ENOENT, EOPNOTSUPP, EPERM, EAFNOSUPPORT, EPROTONOSUPPORT)) throw error;
      }
    }
  } finally {
    nft.close();
  }
  return removed;
}
