/** What is known of this node's own Node object, and the waits at start-up that need it. */
import type { Node } from '../api/objects.ts';
import type { Logger } from '../log/logger.ts';
import { nodeIPs } from '../services/nodeAddresses.ts';

/** Milliseconds. */
export interface NodeWaits {
  /** For the node to have addresses; then the start goes on without. */
  readonly addresses: number;
  /** For the node to have Pod CIDRs, where they are needed; then the start fails. */
  readonly podCIDRs: number;
}

export const defaultWaits: NodeWaits = { addresses: 30_000, podCIDRs: 300_000 };

type Changed = (node: Node, before: Node | undefined) => void;

export class NodeState {
  readonly name: string;
  /** As last seen; kept when the Node is deleted. */
  node: Node | undefined;
  private isSynced = false;
  private waiters: (() => void)[] = [];
  private changed: Changed | undefined;
  private readonly log: Logger;

  constructor(name: string, log: Logger) {
    this.name = name;
    this.log = log;
  }

  /** The Node was added or changed. */
  set(node: Node): void {
    const before = this.node;
    this.node = node;
    this.wake();
    this.changed?.(node, before);
  }

  deleted(): void {
    this.log.error('Node is being deleted; what was last known of it is kept', { node: this.name });
  }

  /** The first list is complete. */
  setSynced(): void {
    this.isSynced = true;
    this.wake();
  }

  /** From now on told of every change; at once of the node that is known already. */
  onChange(changed: Changed): void {
    this.changed = changed;
    if (this.node !== undefined) changed(this.node, undefined);
  }

  /**
   * Waits until what a start needs is known: the first list for as long as it takes, addresses for a while, Pod CIDRs
   * (where `needPodCIDRs`) for a longer while. Throws if those do not come.
   */
  async wait(needPodCIDRs: boolean, waits: NodeWaits = defaultWaits): Promise<Node | undefined> {
    await this.until(() => this.isSynced, Infinity);
    const known = (): boolean => this.node !== undefined && nodeIPs(this.node).length > 0;
    if (!(await this.until(known, waits.addresses)))
      this.log.error('Timed out waiting for the node to have addresses; going on without', {
        node: this.name,
      });
    if (!needPodCIDRs) return this.node;
    if (await this.until(() => (this.node?.podCIDRs.length ?? 0) > 0, waits.podCIDRs)) return this.node;
    throw new Error(
      this.node === undefined
        ? `timeout waiting for node "${this.name}" to exist`
        : `timeout waiting for PodCIDR allocation on node "${this.name}"`,
    );
  }

  /** True as soon as the condition holds, false if it does not within the time. */
  private until(condition: () => boolean, milliseconds: number): Promise<boolean> {
    if (condition()) return Promise.resolve(true);
    return new Promise((resolve) => {
      let timer: NodeJS.Timeout | undefined;
      const end = (result: boolean): void => {
        clearTimeout(timer);
        this.waiters = this.waiters.filter((waiter) => waiter !== check);
        resolve(result);
      };
      const check = (): void => {
        if (condition()) end(true);
      };
      if (Number.isFinite(milliseconds)) timer = setTimeout(() => end(false), milliseconds);
      this.waiters.push(check);
    });
  }

  private wake(): void {
    for (const waiter of this.waiters) waiter();
  }
}

/** Whether two lists of Pod CIDRs are the same. */
export function samePodCIDRs(a: readonly string[], b: readonly string[]): boolean {
  return a.length === b.length && a.every((cidr, i) => cidr === b[i]);
}
