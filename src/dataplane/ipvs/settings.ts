/** What translation needs to know beyond routes: one value, fixed while the mode runs. */
import type { Family } from '../../api/objects.ts';
import type { CIDR } from '../../services/ip.ts';
import { parseCIDR } from '../../services/ip.ts';
import type { DataplaneOptions } from '../dataplane.ts';
import { podMatches } from '../podMatch.ts';

export interface IpvsOptions extends DataplaneOptions {
  /** Empty = rr. */
  readonly scheduler: string;
  /** Virtual servers in these are never deleted. CIDRs of both families; checked before. */
  readonly excludeCIDRs: readonly string[];
}

export interface Settings {
  readonly family: Family;
  /** The masquerade mark: `0x4000`. */
  readonly mark: string;
  readonly masqueradeAll: boolean;
  /** Matches that say "from a Pod" and "not from a Pod"; undefined where that cannot be told. */
  readonly fromPod: { readonly is: string; readonly isNot: string } | undefined;
  readonly nodeIP: string;
  readonly nodePortAddresses: readonly string[];
  readonly scheduler: string;
  /** Of this family. */
  readonly excluded: readonly CIDR[];
  readonly randomFully: boolean;
}

export function schedulerOf({ scheduler }: Pick<IpvsOptions, 'scheduler'>): string {
  return scheduler === '' ? 'rr' : scheduler;
}

/** Throws if the local detector cannot be a rule. */
export function settingsOf(options: IpvsOptions, randomFully: boolean): Settings {
  return {
    family: options.family,
    mark: `0x${(2 ** options.masqueradeBit).toString(16)}`,
    masqueradeAll: options.masqueradeAll,
    fromPod: options.localDetector === undefined ? undefined : podMatches(options.localDetector),
    nodeIP: options.nodeIP,
    nodePortAddresses: options.nodePortAddresses,
    scheduler: schedulerOf(options),
    excluded: options.excludeCIDRs
      .flatMap((text) => parseCIDR(text) ?? [])
      .filter((cidr) => cidr.family === options.family),
    randomFully,
  };
}
