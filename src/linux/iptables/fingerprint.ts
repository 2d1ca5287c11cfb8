/**
 * A cheap answer to "has anybody touched the rules?": a value that changes when they do, read in microseconds.
 *
 * nf_tables counts its commits (NFT_MSG_GETGEN, linux/netfilter/nf_tables.h), for all tables of the network namespace.
 * Legacy iptables tells the number of entries and bytes of each table (IPT_SO_GET_INFO,
 * linux/netfilter_ipv4/ip_tables.h), so a rule replaced by one of the same size, or a chain that has another name, does
 * not show there: the value changes every minute by itself, so that the rules are read again.
 */
import type { Family } from '../../api/objects.ts';
import { SOCK_RAW, closeDescriptor, getSocketOption, openSocket } from '../ffi.ts';
import { NFGENMSG_LENGTH, attributesOf } from '../netlink/message.ts';
import { NETLINK_NETFILTER, NetlinkSocket } from '../netlink/socket.ts';
import type { Backend } from './features.ts';

export interface Fingerprint {
  /** Undefined if it cannot be told. */
  read(): string | undefined;
  /** We have made so many commits: what `read` answers is not to change because of them. */
  committed(commits: number): void;
  /** Whether `now`, read after commits of ours, says that nobody else has made any since `before`. */
  onlyOurs(before: string, now: string): boolean;
  close(): void;
}

/** Commits that this process has made to nf_tables, in both families: they share one generation. */
export interface CommitCount {
  commits: number;
}

const ownCommits: CommitCount = { commits: 0 };

/** Milliseconds for which sizes that are the same are taken for rules that are the same. */
const sizesTrusted = 60_000;

/**
 * @param count only for tests, which work in several network namespaces at once
 * @param now milliseconds, from whenever
 */
export function openFingerprint(
  backend: Backend,
  family: Family,
  count = ownCommits,
  now: () => number = () => performance.now(),
): Fingerprint {
  return backend === 'nft' ? new Generation(count) : new TableSizes(family, now);
}

const NFNL_SUBSYS_NFTABLES = 10;
const NFT_MSG_GETGEN = 16;
const NFTA_GEN_ID = 1;

/** The generation less our own commits: a number that only others change. */
class Generation implements Fingerprint {
  readonly #count: CommitCount;
  #socket: NetlinkSocket | undefined = new NetlinkSocket({ protocol: NETLINK_NETFILTER });

  constructor(count: CommitCount) {
    this.#count = count;
  }

  read(): string | undefined {
    const socket = this.#socket;
    if (socket === undefined) return undefined;
    socket.begin((NFNL_SUBSYS_NFTABLES << 8) | NFT_MSG_GETGEN).nfgenmsg(0, 0, 0);
    let generation: string | undefined;
    try {
      socket.request('read the nf_tables generation', (message) => {
        const reader = attributesOf(message, NFGENMSG_LENGTH);
        while (reader.next())
          if (reader.type === NFTA_GEN_ID) generation = String((reader.u32() - this.#count.commits) >>> 0);
      });
    } catch {
      // No nf_tables or no right to ask: then nobody can tell, and the caller looks at the rules themselves.
      return undefined;
    }
    return generation;
  }

  committed(commits: number): void {
    this.#count.commits += commits;
  }

  onlyOurs(before: string, now: string): boolean {
    return before === now;
  }

  close(): void {
    this.#socket?.close();
    this.#socket = undefined;
  }
}

const AF_INET = 2;
const AF_INET6 = 10;
const IPPROTO_RAW = 255;
const SOL_IP = 0;
const SOL_IPV6 = 41;
const IPT_SO_GET_INFO = 64;
/** struct ipt_getinfo: name[32], valid_hooks, hook_entry[5], underflow[5], num_entries, size. */
const infoLength = 32 + 4 + 20 + 20 + 4 + 4;

class TableSizes implements Fingerprint {
  readonly #level: number;
  readonly #now: () => number;
  readonly #since: number;
  #fd: number;

  constructor(family: Family, now: () => number) {
    this.#now = now;
    this.#since = now();
    this.#level = family === 'IPv6' ? SOL_IPV6 : SOL_IP;
    this.#fd = openSocket(family === 'IPv6' ? AF_INET6 : AF_INET, SOCK_RAW, IPPROTO_RAW);
  }

  read(): string | undefined {
    if (this.#fd < 0) return undefined;
    const sizes: string[] = [];
    for (const table of ['filter', 'nat', 'mangle']) {
      const info = new Uint8Array(infoLength);
      info.set(new TextEncoder().encode(table));
      const errno = getSocketOption(this.#fd, this.#level, IPT_SO_GET_INFO, info);
      sizes.push(errno === 0 ? Buffer.from(info.subarray(32)).toString('hex') : `errno ${errno}`);
    }
    sizes.push(String(Math.floor((this.#now() - this.#since) / sizesTrusted)));
    return sizes.join('/');
  }

  committed(): void {
    // The sizes after our commit are as good as those before it.
  }

  /** Only the kernel knows how large our rules are to it: what is there right after a commit counts as ours. */
  onlyOurs(): boolean {
    return true;
  }

  close(): void {
    if (this.#fd >= 0) closeDescriptor(this.#fd);
    this.#fd = -1;
  }
}
