/** What the registry asks of each kind of object, besides what holds for all. */
import type { Allocators } from '../allocators.ts';
import type { KubeObject } from '../objects.ts';
import type { FieldError } from '../status.ts';
import type { Store } from '../store.ts';

export interface StrategyContext {
  readonly store: Store;
  readonly allocators: Allocators;
}

export interface Strategy {
  /** Fills in what is absent, as reading the object from the API shows it. */
  readonly defaults?: (object: KubeObject) => void;
  /** Clears what a client may not set, before validation. */
  readonly prepareCreate?: (object: KubeObject, context: StrategyContext) => void;
  readonly prepareUpdate?: (object: KubeObject, old: KubeObject, context: StrategyContext) => void;
  readonly validate?: (object: KubeObject, old: KubeObject | undefined) => FieldError[];
  /** Takes addresses and ports, after validation. */
  readonly allocate?: (
    object: KubeObject,
    old: KubeObject | undefined,
    context: StrategyContext,
  ) => FieldError[];
  /** `metadata.name` must be a DNS-1035 label (Services), a DNS label (Namespaces) or, by default, a DNS subdomain. */
  readonly nameFormat?: 'dns1035' | 'dns1123label' | 'any';
  /** A new object's `status` is what the client says (Nodes, Endpoints …), not dropped. */
  readonly keepStatusOnCreate?: boolean;
}
