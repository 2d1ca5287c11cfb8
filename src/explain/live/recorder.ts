/** Makes the kernel trace the packets asked about, for as long as the recorder is open. */
import { EINVAL, EOPNOTSUPP, isRefusal } from '../../linux/netlink/errors.ts';
import { NftSocket } from '../../linux/netlink/nftables/socket.ts';
import { watchTraces } from '../../linux/netlink/nftables/trace.ts';
import { TraceCollector, type KernelTrace } from './kernelTrace.ts';
import { openLogDoor } from './logDoor.ts';
import { markingBatch, markingTable, type MarkedPackets } from './marking.ts';
import { readRuleBook } from './ruleBook.ts';

/**
 * Traces what `marked` says while `work` runs. A kernel that cannot do it is no error: `work` runs without, and the
 * remarks say why.
 */
export async function recordWhile(
  marked: MarkedPackets,
  work: (recorder: Recorder | undefined) => Promise<void>,
): Promise<Recording> {
  let recorder: Recorder;
  try {
    recorder = await Recorder.open(marked);
  } catch (error) {
    await work(undefined);
    const { family } = marked.packet;
    const reason = isRefusal(error, EOPNOTSUPP, EINVAL)
      ? `it has no nftables for ${family}, or is older than Linux 5.12`
      : (error as Error).message;
    return {
      traces: [],
      untold: [],
      remarks: [
        `The kernel did not trace the packets (${reason}): where they went is taken from connection tracking.`,
      ],
    };
  }
  let recording: Recording;
  try {
    await work(recorder);
  } finally {
    recording = await recorder.finish();
  }
  return recording;
}

/** Milliseconds that the last messages may take to come through the event loop. */
const settling = 60;

export interface Recording {
  readonly traces: readonly KernelTrace[];
  /** Base chains that the traces cannot tell of, as predictions name them: `nat PREROUTING`. */
  readonly untold: readonly string[];
  /** What could not be seen, in words. */
  readonly remarks: readonly string[];
}

export class Recorder {
  readonly #nft: NftSocket;
  readonly #collector: TraceCollector;
  readonly #generation: number;
  readonly #remarks: string[];
  readonly #untold: readonly string[];
  readonly #stops: (() => void | Promise<void>)[];

  private constructor(
    nft: NftSocket,
    collector: TraceCollector,
    generation: number,
    remarks: string[],
    untold: readonly string[],
    stops: (() => void | Promise<void>)[],
  ) {
    this.#nft = nft;
    this.#collector = collector;
    this.#generation = generation;
    this.#remarks = remarks;
    this.#untold = untold;
    this.#stops = stops;
  }

  /** Throws if the kernel refuses the table (before 5.12, or not root). */
  static async open(marked: MarkedPackets): Promise<Recorder> {
    const { family } = marked.packet;
    const book = await readRuleBook(family);
    const remarks: string[] = [];
    let untold: string[] = [];
    const stops: (() => void | Promise<void>)[] = [];
    // The table is tied to this socket: closing it, or the end of the process, removes the table.
    const nft = new NftSocket();
    try {
      const own = markingTable(marked.packet, nft.portId);
      const collector = new TraceCollector(book, own.name);
      const onLost = (reason: string): void => {
        remarks.push(`Some of the kernel's messages were lost: ${reason}.`);
      };
      stops.push(watchTraces((event) => collector.trace(event), onLost));
      if (book.legacy.length > 0) {
        try {
          stops.push(await openLogDoor(family, (logged) => collector.log(logged), onLost));
        } catch (error) {
          untold = book.legacy.flatMap(({ table, chains }) =>
            [...chains.keys()].map((chain) => `${table} ${chain}`),
          );
          remarks.push(
            `Rules of legacy iptables are not in the trace: the kernel tells of them in its log only, which could not be read here (${(error as Error).message}). Where they send a connection is taken from connection tracking.`,
          );
        }
      }
      nft.commit(markingBatch(own, marked));
      return new Recorder(nft, collector, nft.generation().id, remarks, untold, stops);
    } catch (error) {
      nft.close();
      for (const stop of stops) await stop();
      throw error;
    }
  }

  /** Packets so far. */
  get count(): number {
    return this.#collector.count;
  }

  /** Ends it, and removes everything from the kernel. */
  async finish(): Promise<Recording> {
    await new Promise((resolve) => setTimeout(resolve, settling));
    if (this.#nft.generation().id !== this.#generation) {
      this.#remarks.push('Somebody changed nftables rules meanwhile: what differs may be that.');
    }
    this.#nft.close();
    for (const stop of this.#stops) await stop();
    return { traces: this.#collector.finish(), untold: this.#untold, remarks: this.#remarks };
  }
}
