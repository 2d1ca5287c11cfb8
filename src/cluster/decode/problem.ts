import type { Kind } from '../../api/objects.ts';

/** Why an object, or one entry of it, was left out. */
export interface ObjectProblem {
  readonly kind: Kind;
  /** `namespace/name`, or as much of it as could be read; empty if nothing could. */
  readonly object: string;
  /** Path of the field, as `spec.ports[0].port`; empty if it is the object as a whole. */
  readonly field: string;
  /** What is wrong and what that costs. */
  readonly message: string;
}

export type ReportProblem = (problem: ObjectProblem) => void;

/** Thrown by decoders inside one object; costs that object. */
export class MalformedObject extends Error {
  override readonly name = 'MalformedObject';
  readonly field: string;

  constructor(field: string, message: string) {
    super(message);
    this.field = field;
  }
}
