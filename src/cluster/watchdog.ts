/**
 * Notices a watch that is dead without saying so. Three cases: the peer is gone (the kernel's keep-alive, see
 * connection.ts, and our question both find out); the server answers nobody (our question finds out); the server is
 * well but this stream hangs somewhere on the way (then it is replaced after a longer silence).
 */
import type { ApiClient } from './apiClient.ts';
import type { Clock } from './clock.ts';

/** The server did not answer the question whether it is alive. */
export class SilentPeer extends Error {
  override readonly name = 'SilentPeer';
}

/** Nothing came for so long that the watch is replaced; not a failure. */
export class WatchRenewal extends Error {
  override readonly name = 'WatchRenewal';
}

export interface WatchdogOptions {
  readonly clock: Clock;
  readonly client: Pick<ApiClient, 'probe' | 'connection'>;
  /** Milliseconds without a byte after which the server is asked. */
  readonly silence: number;
  /** Milliseconds without a byte after which the watch is replaced. */
  readonly renewal: number;
  /** Ends the watch as well. */
  readonly parent: AbortSignal;
}

export class Watchdog {
  private readonly options: WatchdogOptions;
  private readonly controller = new AbortController();
  private timer: NodeJS.Timeout | undefined;
  private heardAt = 0;
  private stopped = false;
  private expectation: { readonly within: number; readonly error: () => Error } | undefined;

  constructor(options: WatchdogOptions) {
    this.options = options;
    if (options.parent.aborted) this.onParent();
    else options.parent.addEventListener('abort', this.onParent, { once: true });
  }

  private readonly onParent = (): void => {
    this.controller.abort(this.options.parent.reason);
  };

  /** Aborted, with the reason, when the watch has to end. */
  get signal(): AbortSignal {
    return this.controller.signal;
  }

  /** Until `expected` is called, a silence of `within` milliseconds ends the watch with this error. */
  expect(within: number, error: () => Error): void {
    this.expectation = { within, error };
  }

  expected(): void {
    this.expectation = undefined;
  }

  /** The server accepted the watch. */
  start(): void {
    this.heardAt = this.options.clock.now();
    this.arm();
  }

  /** Bytes arrived. */
  heard(): void {
    this.heardAt = this.options.clock.now();
  }

  stop(): void {
    this.stopped = true;
    this.options.clock.clearTimeout(this.timer);
    this.options.parent.removeEventListener('abort', this.onParent);
  }

  private arm(): void {
    if (this.stopped) return;
    const { clock, silence, renewal } = this.options;
    const idle = clock.now() - this.heardAt;
    const next = this.expectation?.within ?? (idle < silence ? silence : Math.min(idle + silence, renewal));
    this.timer = clock.setTimeout(() => this.check(), Math.max(1, next - idle));
  }

  private check(): void {
    const { clock, client, silence, renewal } = this.options;
    const idle = clock.now() - this.heardAt;
    if (this.expectation !== undefined && idle >= this.expectation.within) {
      this.controller.abort(this.expectation.error());
    } else if (idle >= renewal) {
      this.controller.abort(new WatchRenewal('nothing came for a long time'));
    } else if (idle >= silence) {
      client.probe(silence / 2).then(
        () => this.arm(),
        (error: unknown) => this.lost(error),
      );
    } else this.arm();
  }

  private lost(error: unknown): void {
    if (this.stopped) return;
    // Other idle connections to this peer are no better.
    this.options.client.connection.renew();
    const text = error instanceof Error ? error.message : String(error);
    this.controller.abort(new SilentPeer(`the watch is silent and ${text}`, { cause: error }));
  }
}
