/**
 * What the installed iptables can do, told from its version line, e.g. `iptables v1.8.9 (nf_tables)`.
 */

export type Backend = 'nft' | 'legacy';

export interface Features {
  /** `1.8.9`; empty if unknown, and then every feature is off. */
  readonly version: string;
  /** nft: rules live in nf_tables and a commit touches what it names; legacy: every commit replaces the whole table. */
  readonly backend: Backend;
  /** `-C` exists (1.4.11). */
  readonly check: boolean;
  /** Arguments that make iptables wait for the xtables lock. */
  readonly wait: readonly string[];
  /** The same for iptables-restore. */
  readonly restoreWait: readonly string[];
  /** `MASQUERADE --random-fully` exists (1.6.2). */
  readonly randomFully: boolean;
}

/** Seconds that one command waits for the xtables lock. */
export const lockWaitSeconds = 5;

/** Reads the output of `iptables --version`. */
export function parseVersion(output: string): Features {
  const version = /v([0-9]+(\.[0-9]+)+)/.exec(output)?.[1] ?? '';
  const seconds = ['-w', String(lockWaitSeconds)];
  return {
    version,
    // The word came with 1.8.0; before it there was only what is called legacy now.
    backend: output.includes('nf_tables') ? 'nft' : 'legacy',
    check: atLeast(version, '1.4.11'),
    wait: atLeast(version, '1.4.22') ? seconds : atLeast(version, '1.4.20') ? ['-w'] : [],
    restoreWait: atLeast(version, '1.6.2') ? seconds : [],
    randomFully: atLeast(version, '1.6.2'),
  };
}

/** Compares dotted versions number by number; an empty version is older than all. */
export function atLeast(version: string, wanted: string): boolean {
  if (version === '') return false;
  const have = version.split('.').map(Number);
  const want = wanted.split('.').map(Number);
  for (let i = 0; i < Math.max(have.length, want.length); i++) {
    const difference = (have[i] ?? 0) - (want[i] ?? 0);
    if (difference !== 0) return difference > 0;
  }
  return true;
}
