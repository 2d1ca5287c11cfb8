/** Looks at nf_tables and at the proxy's metrics from inside the node's network namespace, as a process of its own. */
import { NFNL_SUBSYS_NFTABLES, messageTypes } from '../../src/linux/netlink/nftables/batch.ts';
import { NftSocket } from '../../src/linux/netlink/nftables/socket.ts';
import type { Message } from '../../src/linux/netlink/message.ts';
import { NETLINK_NETFILTER, NetlinkSocket } from '../../src/linux/netlink/socket.ts';
import { answerRequests, now } from './channel.ts';

const nft = new NftSocket();
const generationPoll = 5;

interface Transaction {
  /** Milliseconds. */
  readonly at: number;
  /** Rules, elements, chains added or removed in IPv4 tables. */
  readonly messages: number;
}

/** While waiting for the start: when did the generation change last? One small request each 5 ms. */
let generation = nft.generation().id;
let lastChange = 0;
let polling: NodeJS.Timeout | undefined;

function poll(): void {
  const { id } = nft.generation();
  if (id === generation) return;
  generation = id;
  lastChange = now();
}

/** While changes are measured: each transaction, from the kernel's own events. */
let events: NetlinkSocket | undefined;
let transactions: Transaction[] = [];
let messages = 0;
let lost = false;
let waiter: (() => void) | undefined;

const NFPROTO_IPV4 = 2;
const filterTable = Buffer.from('filter\0');

function arrival(): Promise<void> {
  return new Promise((resolve) => {
    waiter = resolve;
  });
}

function sleep(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

/** Of an IPv4 table that says where connections go; all messages begin with the name of their table. */
function counts({ bytes, start }: Message): boolean {
  return (
    bytes[start] === NFPROTO_IPV4 &&
    filterTable.compare(bytes, start + 8, start + 8 + filterTable.length) !== 0
  );
}

function onEvent(message: Message): void {
  if (message.type >>> 8 !== NFNL_SUBSYS_NFTABLES) return;
  if ((message.type & 0xff) !== messageTypes.newGeneration) {
    if (counts(message)) messages++;
    return;
  }
  const transaction = { at: now(), messages };
  messages = 0;
  if (transaction.messages === 0) return;
  transactions.push(transaction);
  waiter?.();
  waiter = undefined;
}

/** The value of the first sample of each family, or 0. */
async function readMetric(name: string): Promise<number[]> {
  const response = await fetch('http://127.0.0.1:10249/metrics');
  const text = await response.text();
  return text
    .split('\n')
    .filter((line) => line.startsWith(`${name}{`) || line.startsWith(`${name} `))
    .map((line) => Number(line.slice(line.lastIndexOf(' ') + 1)));
}

answerRequests({
  /** Resolves when the proxy says that every family has been synced: the time of the last transaction before. */
  started: async (request) => {
    const families = Number(request['families']);
    const deadline = now() + Number(request['timeout']);
    lastChange = 0;
    generation = nft.generation().id;
    polling = setInterval(poll, generationPoll);
    try {
      for (;;) {
        if (now() > deadline) throw new Error('the proxy has not synced in time');
        await new Promise((resolve) => setTimeout(resolve, 100));
        let synced: number[];
        try {
          synced = await readMetric('kubeproxy_sync_proxy_rules_last_timestamp_seconds');
        } catch {
          continue; // Its metrics server does not listen yet.
        }
        if (synced.filter((seconds) => seconds > 0).length < families) continue;
        poll();
        return { lastChange, seen: now() };
      }
    } finally {
      clearInterval(polling);
    }
  },
  subscribe: () => {
    events?.close();
    messages = 0;
    transactions = [];
    lost = false;
    events = new NetlinkSocket({ protocol: NETLINK_NETFILTER, groups: 1 << 6, receiveBuffer: 64 << 20 });
    events.subscribe(onEvent, () => {
      lost = true;
    });
  },
  /**
   * Waits for a change to be in force: the time of the last transaction before `settle` milliseconds of silence, or
   * null if none comes in time.
   */
  next: async (request) => {
    const deadline = now() + Number(request['timeout']);
    const settle = Number(request['settle']);
    while (transactions.length === 0) {
      if (now() > deadline) return null;
      await Promise.race([arrival(), sleep(1000)]);
    }
    let seen = 0;
    while (seen < transactions.length) {
      seen = transactions.length;
      await sleep(settle);
    }
    const last = transactions.at(-1);
    transactions = [];
    return last;
  },
  forget: () => {
    transactions = [];
  },
  unsubscribe: () => {
    events?.close();
    events = undefined;
    return { lost, messages: transactions.reduce((sum, each) => sum + each.messages, 0) };
  },
  /** Everything in IPv4 tables, counted. */
  count: () => {
    const count = { chains: 0, rules: 0, elements: 0 };
    for (const table of nft.listTables('ip')) {
      count.chains += nft.listChains(table).length;
      count.rules += nft.listRules(table).length;
      for (const set of nft.listSets(table)) count.elements += nft.listElements(table, set.name).length;
    }
    return count;
  },
});
process.send?.({ id: 0 });
