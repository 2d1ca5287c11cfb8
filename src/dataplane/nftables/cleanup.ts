/** Removes the tables of nftables mode (ours and kube-proxy's have the same names) over netlink: no `nft` needed. */
import { ENOENT, EOPNOTSUPP, EPERM, NetlinkError, readAcknowledgement } from '../../linux/netlink/errors.ts';
import { NLMSG_ERROR, NLM_F_ACK, NLM_F_REQUEST } from '../../linux/netlink/message.ts';
import { NETLINK_NETFILTER, NetlinkSocket } from '../../linux/netlink/socket.ts';

/** linux/netfilter/nfnetlink.h, nf_tables.h */
const NFNL_MSG_BATCH_BEGIN = 0x10;
const NFNL_MSG_BATCH_END = 0x11;
const NFNL_SUBSYS_NFTABLES = 10;
const NFT_MSG_DELTABLE = (NFNL_SUBSYS_NFTABLES << 8) | 2;
const NFTA_TABLE_NAME = 1;
const EAFNOSUPPORT = 97;
const EPROTONOSUPPORT = 93;

const tables = [
  { family: 'ip', number: 2 },
  { family: 'ip6', number: 10 },
] as const;

const tableName = 'kube-proxy';

/**
 * Deletes `table ip kube-proxy` and `table ip6 kube-proxy` with all that is in them.
 * @returns the tables that were there
 * @throws NetlinkError if the kernel refuses, other than because there is no such table, no nf_tables or no permission
 */
export function removeTables(): string[] {
  const removed: string[] = [];
  const socket = new NetlinkSocket({ protocol: NETLINK_NETFILTER });
  try {
    for (const { family, number } of tables) {
      const table = `table ${family} ${tableName}`;
      if (removeTable(socket, number, `delete ${table}`)) removed.push(table);
    }
  } finally {
    socket.close();
  }
  return removed;
}

/** One transaction: begin, delete, end. nf_tables has acknowledged or refused it before `send` returns. */
function removeTable(socket: NetlinkSocket, family: number, what: string): boolean {
  const { writer } = socket;
  const sequence = socket.nextSequence();
  writer.reset();
  const begin = writer.beginMessage(NFNL_MSG_BATCH_BEGIN, NLM_F_REQUEST, sequence);
  writer.nfgenmsg(0, 0, NFNL_SUBSYS_NFTABLES);
  writer.endMessage(begin);
  const remove = writer.beginMessage(NFT_MSG_DELTABLE, NLM_F_REQUEST | NLM_F_ACK, sequence);
  writer.nfgenmsg(family, 0, 0);
  writer.string(NFTA_TABLE_NAME, tableName);
  writer.endMessage(remove);
  const end = writer.beginMessage(NFNL_MSG_BATCH_END, NLM_F_REQUEST, sequence);
  writer.nfgenmsg(0, 0, NFNL_SUBSYS_NFTABLES);
  writer.endMessage(end);
  socket.sendBytes(writer.bytes, writer.length, what);
  let refusal: NetlinkError | undefined;
  socket.drain(what, (message) => {
    if (message.type !== NLMSG_ERROR || message.sequence !== sequence) return;
    const acknowledgement = readAcknowledgement(message);
    if (acknowledgement.errno !== 0) refusal ??= new NetlinkError(what, acknowledgement);
  });
  if (refusal === undefined) return true;
  const excused = [ENOENT, EOPNOTSUPP, EPERM, EAFNOSUPPORT, EPROTONOSUPPORT];
  if (excused.includes(refusal.errno)) return false;
  throw refusal;
}
