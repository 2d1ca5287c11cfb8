/**
 * Feature gates. kube-proxy links in the gates of all Kubernetes components; only those that change what a service
 * proxy does are listed here, with their state in 1.36. An unknown gate is a warning, not an error, so that a file made
 * for any other version starts us.
 */
export interface FeatureGate {
  readonly stage: 'ALPHA' | 'BETA' | '' | 'DEPRECATED';
  readonly default: boolean;
  /** GA and locked: can only be set to its default. */
  readonly locked?: true;
}

export const featureGates: Readonly<Record<string, FeatureGate>> = {
  AllAlpha: { stage: 'ALPHA', default: false },
  AllBeta: { stage: 'BETA', default: false },
  AllowServiceExternalIPs: { stage: 'DEPRECATED', default: true },
  ComponentFlagz: { stage: 'BETA', default: true },
  ComponentStatusz: { stage: 'BETA', default: true },
  ContextualLogging: { stage: 'BETA', default: true },
  LoggingAlphaOptions: { stage: 'ALPHA', default: false },
  LoggingBetaOptions: { stage: 'BETA', default: true },
  MultiCIDRServiceAllocator: { stage: '', default: true, locked: true },
  NFTablesProxyMode: { stage: '', default: true, locked: true },
  NativeHistograms: { stage: 'ALPHA', default: false },
  PreferSameTrafficDistribution: { stage: '', default: true, locked: true },
  ServiceTrafficDistribution: { stage: '', default: true, locked: true },
  TopologyAwareHints: { stage: '', default: true, locked: true },
  WatchListClient: { stage: 'BETA', default: true },
};

/** The effective value of a gate; unknown gates are off. AllAlpha and AllBeta reach the gates not set by name. */
export function featureEnabled(configured: Readonly<Record<string, boolean>>, name: string): boolean {
  const own = configured[name];
  if (own !== undefined) return own;
  const gate = featureGates[name];
  if (gate === undefined) return false;
  const all =
    gate.stage === 'ALPHA'
      ? configured['AllAlpha']
      : gate.stage === 'BETA'
        ? configured['AllBeta']
        : undefined;
  return all ?? gate.default;
}

export interface GateFindings {
  readonly errors: readonly { readonly gate: string; readonly value: boolean; readonly text: string }[];
  readonly warnings: readonly string[];
}

export function checkFeatureGates(configured: Readonly<Record<string, boolean>>): GateFindings {
  const errors: { gate: string; value: boolean; text: string }[] = [];
  const warnings: string[] = [];
  for (const [name, value] of Object.entries(configured)) {
    const gate = featureGates[name];
    if (gate === undefined) {
      warnings.push(`unrecognized feature gate: ${name} (it is ignored)`);
    } else if (gate.locked && value !== gate.default) {
      const text = `cannot set feature gate ${name} to ${value}, feature is locked to ${gate.default}`;
      errors.push({ gate: name, value, text });
    } else if (gate.stage === '') {
      warnings.push(`Setting GA feature gate ${name}=${value}. It will be removed in a future release.`);
    } else if (gate.stage === 'DEPRECATED') {
      warnings.push(
        `Setting deprecated feature gate ${name}=${value}. It will be removed in a future release.`,
      );
    }
  }
  return { errors, warnings };
}
