/**
 * nftables rules in the form that is interpreted: what `nft -j` prints and what the kernel says over netlink both
 * become this. Numbers and addresses are bigints (an address by its value), interface names are strings.
 */
export type Value = bigint | string;

/** The key of a catch-all element. */
export const anything = { any: true } as const;

/** One part of a key: a value, or everything from `first` to `last`. */
export type KeyPart =
  Value | { readonly first: bigint; readonly last: bigint } | { readonly prefix: string } | typeof anything;

/** What rules look at. Names are those of nft: `ip saddr`, `th dport`, `meta mark`, `ct state`, `fib daddr type`. */
export type Expr =
  | { readonly kind: 'value'; readonly value: KeyPart }
  | { readonly kind: 'field'; readonly name: string }
  | { readonly kind: 'random'; readonly modulus: number; readonly offset: number }
  | { readonly kind: 'concat'; readonly parts: readonly Expr[] }
  | { readonly kind: 'map'; readonly key: Expr; readonly set: SetRef }
  | { readonly kind: 'part'; readonly of: Expr; readonly index: number }
  | { readonly kind: 'bits'; readonly operator: '&' | '|' | '^'; readonly left: Expr; readonly right: Expr }
  | { readonly kind: 'unknown'; readonly text: string };

/** A set of the table, or one that stands in the rule. */
export type SetRef = { readonly name: string } | { readonly inline: NftSet };

export type NftVerdict =
  | { readonly kind: 'accept' | 'drop' | 'continue' | 'return' }
  | { readonly kind: 'jump' | 'goto'; readonly chain: string }
  | { readonly kind: 'unknown'; readonly text: string };

export interface NftElement {
  readonly key: readonly KeyPart[];
  readonly value?: readonly Value[];
  readonly verdict?: NftVerdict;
  readonly comment: string;
  /** In nft syntax. */
  readonly text: string;
}

export interface NftSet {
  readonly name: string;
  readonly elements: readonly NftElement[];
  /** Filled by packets: what it holds is a matter of the moment. */
  readonly dynamic: boolean;
}

export type NftStatement =
  | {
      readonly kind: 'match';
      readonly left: Expr;
      readonly operator: '==' | '!=' | '<' | '<=' | '>' | '>=' | 'in';
      readonly right: Expr | SetRef;
    }
  | { readonly kind: 'vmap'; readonly key: Expr; readonly set: SetRef }
  | { readonly kind: 'verdict'; readonly verdict: NftVerdict }
  | { readonly kind: 'set'; readonly field: string; readonly value: Expr }
  | { readonly kind: 'dnat' | 'snat'; readonly address: Expr | undefined; readonly port: Expr | undefined }
  | { readonly kind: 'redirect'; readonly port: Expr | undefined }
  | { readonly kind: 'masquerade' }
  | { readonly kind: 'reject'; readonly with: string }
  | { readonly kind: 'remember'; readonly set: string }
  | { readonly kind: 'notrack' }
  /** Changes nothing that is followed here: counter, log. */
  | { readonly kind: 'nothing' }
  /** May end the rule; whether, is not known (limit, quota). */
  | { readonly kind: 'maybe'; readonly question: string; readonly usual: boolean }
  | { readonly kind: 'unknown'; readonly text: string };

export interface NftRule {
  readonly statements: readonly NftStatement[];
  /** In nft syntax. */
  readonly text: string;
  readonly comment: string;
}

export interface NftChain {
  readonly name: string;
  readonly rules: readonly NftRule[];
  readonly hook?: {
    readonly type: string;
    readonly hook: string;
    readonly priority: number;
    readonly policy: string;
  };
}

export interface NftTable {
  /** `ip`, `ip6`, `inet` */
  readonly family: string;
  readonly name: string;
  readonly chains: ReadonlyMap<string, NftChain>;
  readonly sets: ReadonlyMap<string, NftSet>;
}

/** Bits of `ct state` and `ct status` (nf_conntrack_common.h). */
export const stateBits = { invalid: 1n, established: 2n, related: 4n, new: 8n, untracked: 64n } as const;
export const statusBits = {
  expected: 1n,
  'seen-reply': 2n,
  assured: 4n,
  confirmed: 8n,
  snat: 16n,
  dnat: 32n,
  dying: 512n,
} as const;
export const addressTypes = {
  unspec: 0n,
  unicast: 1n,
  local: 2n,
  broadcast: 3n,
  anycast: 4n,
  multicast: 5n,
  blackhole: 6n,
  unreachable: 7n,
  prohibit: 8n,
} as const;
export const protocols = { icmp: 1n, tcp: 6n, udp: 17n, icmpv6: 58n, 'ipv6-icmp': 58n, sctp: 132n } as const;
