/** What `--check` finds, with its place in a file. */
import type { EndpointSlice, Node, Service } from '../api/objects.ts';
import type { ManifestObject, ManifestProblem } from '../cluster/manifests.ts';
import type { ClusterObjects } from './cluster.ts';

/**
 * error: the API server would refuse it, or it cannot be read; warning: a node ignores it, or traffic will not go where
 * somebody meant it to; note: nothing is wrong, but nothing comes of it either.
 */
export type Severity = 'error' | 'warning' | 'note';

export interface Finding {
  readonly severity: Severity;
  /** Stable: `no_endpoints`, `unknown_field`, … */
  readonly reason: string;
  /** Empty for objects of a live cluster. */
  readonly file: string;
  /** From 1; 0 = not known. */
  readonly line: number;
  readonly column: number;
  /** e.g. `Service shop/checkout` */
  readonly object: string;
  /** e.g. `spec.ports[0].nodePort`; may be empty. */
  readonly field: string;
  readonly message: string;
}

/** `file:line:column: severity: object field: message` */
export function printFinding({ severity, file, line, column, object, field, message }: Finding): string {
  const where = file === '' ? '' : line === 0 ? `${file}: ` : `${file}:${line}:${column}: `;
  const what = [object, field].filter((text) => text !== '').join(' ');
  return `${where}${severity}: ${what === '' ? '' : `${what}: `}${message}`;
}

type Checked = Service | EndpointSlice | Node;

/** Collects findings, each placed where its object was written down. */
export class Findings {
  readonly list: Finding[] = [];
  readonly #cluster: ClusterObjects;

  constructor(cluster: ClusterObjects) {
    this.#cluster = cluster;
  }

  problem({ file, line, column, object, field, message }: ManifestProblem): void {
    const reason = message.startsWith('unknown field') ? 'unknown_field' : 'invalid_manifest';
    this.list.push({ severity: 'error', reason, file, line, column, object, field, message });
  }

  about(severity: Severity, object: Checked, field: string, reason: string, message: string): void {
    this.at(severity, this.#cluster.sources.get(object), nameOf(object), field, reason, message);
  }

  at(
    severity: Severity,
    source: ManifestObject | undefined,
    object: string,
    field: string,
    reason: string,
    message: string,
  ): void {
    const { line, column } = source?.position(field) ?? { line: 0, column: 0 };
    this.list.push({ severity, reason, file: source?.file ?? '', line, column, object, field, message });
  }

  /** By place; what has none comes last. */
  sorted(): Finding[] {
    return this.list.toSorted(
      (a, b) =>
        compare(a.file === '' ? '\u{10ffff}' : a.file, b.file === '' ? '\u{10ffff}' : b.file) ||
        a.line - b.line ||
        a.column - b.column ||
        compare(a.message, b.message),
    );
  }
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

export function nameOf({ kind, meta }: Checked): string {
  return meta.namespace === '' ? `${kind} ${meta.name}` : `${kind} ${meta.namespace}/${meta.name}`;
}
