/**
 * nfacct counters (linux/netfilter/nfnetlink_acct.h): named packet counters in the kernel that iptables rules count
 * in with `-m nfacct --nfacct-name NAME`. A rule that names a counter that does not exist fails its whole restore.
 */
import { ENOENT, isRefusal } from './errors.ts';
import { NFGENMSG_LENGTH, NLM_F_CREATE, attributesOf } from './message.ts';
import { NETLINK_NETFILTER, NetlinkSocket } from './socket.ts';

const NFNL_SUBSYS_ACCT = 7;
const NFNL_MSG_ACCT_NEW = (NFNL_SUBSYS_ACCT << 8) | 0;
const NFNL_MSG_ACCT_GET = (NFNL_SUBSYS_ACCT << 8) | 1;
const NFNL_MSG_ACCT_DEL = (NFNL_SUBSYS_ACCT << 8) | 3;
const NFACCT_NAME = 1;
const NFACCT_PKTS = 2;
const NFACCT_BYTES = 3;
const AF_NETLINK = 16;
/** NFACCT_NAME_MAX counts the terminating zero. */
const nameMax = 31;

export interface AccountingCounter {
  readonly name: string;
  readonly packets: bigint;
  readonly bytes: bigint;
}

/** One socket to the kernel's counters; close it when done. */
export class AccountingCounters {
  readonly #socket = new NetlinkSocket({ protocol: NETLINK_NETFILTER });

  /** True if the kernel has nfacct (and lets us): a GET of some name succeeds or finds nothing. */
  probe(): boolean {
    try {
      this.read('pointsman_probe');
      return true;
    } catch {
      // Any other refusal (EINVAL without the module, EPERM without rights) means: not to be had here.
      return false;
    }
  }

  /** The counter, or undefined if there is none of that name. */
  read(name: string): AccountingCounter | undefined {
    this.#begin(NFNL_MSG_ACCT_GET, 0, name);
    let packets = 0n;
    let bytes = 0n;
    try {
      this.#socket.request(`nfacct get ${name}`, (message) => {
        const reader = attributesOf(message, NFGENMSG_LENGTH);
        while (reader.next()) {
          if (reader.type === NFACCT_PKTS) packets = reader.u64();
          else if (reader.type === NFACCT_BYTES) bytes = reader.u64();
        }
      });
    } catch (error) {
      if (isRefusal(error, ENOENT)) return undefined;
      throw error;
    }
    return { name, packets, bytes };
  }

  /** Makes the counter if it is missing; an existing one keeps its counts. Throws NetlinkError if that fails. */
  ensure(name: string): void {
    if (this.read(name) !== undefined) return;
    this.#begin(NFNL_MSG_ACCT_NEW, NLM_F_CREATE, name);
    this.#socket.request(`nfacct add ${name}`);
  }

  /** Removes the counter; false if there is none. Throws NetlinkError EBUSY while a rule counts in it. */
  remove(name: string): boolean {
    this.#begin(NFNL_MSG_ACCT_DEL, 0, name);
    try {
      this.#socket.request(`nfacct del ${name}`);
      return true;
    } catch (error) {
      if (isRefusal(error, ENOENT)) return false;
      throw error;
    }
  }

  close(): void {
    this.#socket.close();
  }

  #begin(type: number, flags: number, name: string): void {
    if (name === '' || name.length > nameMax) {
      throw new RangeError(`nfacct counter "${name}": a name has 1 to ${nameMax} characters`);
    }
    const writer = this.#socket.begin(type, flags);
    writer.nfgenmsg(AF_NETLINK, 0, 0);
    writer.string(NFACCT_NAME, name);
  }
}
