/** Errors as the Kubernetes API reports them: `v1.Status` objects with reason, code and details. */
import type { Json, JsonObject } from './objects.ts';

export interface ResourceName {
  readonly group: string;
  readonly plural: string;
  readonly kind: string;
}

/** One wrong field; `type` words and reasons are those of k8s.io/apimachinery's field package. */
export interface FieldError {
  readonly type: 'Required' | 'Invalid' | 'Duplicate' | 'Forbidden' | 'NotSupported' | 'InternalError';
  readonly field: string;
  readonly value?: unknown;
  readonly detail: string;
}

const fieldErrorText: Record<FieldError['type'], string> = {
  Required: 'Required value',
  Invalid: 'Invalid value',
  Duplicate: 'Duplicate value',
  Forbidden: 'Forbidden',
  NotSupported: 'Unsupported value',
  InternalError: 'Internal error',
};

export class ApiError extends Error {
  readonly code: number;
  readonly reason: string;
  readonly details: JsonObject | undefined;

  constructor(code: number, reason: string, message: string, details?: JsonObject) {
    super(message);
    this.code = code;
    this.reason = reason;
    this.details = details;
  }

  /** The `v1.Status` object that goes to the client. */
  toStatus(): JsonObject {
    return {
      kind: 'Status',
      apiVersion: 'v1',
      metadata: {},
      status: 'Failure',
      message: this.message,
      reason: this.reason,
      ...(this.details === undefined ? {} : { details: this.details }),
      code: this.code,
    };
  }
}

function qualified(resource: ResourceName): string {
  return resource.group === '' ? resource.plural : `${resource.plural}.${resource.group}`;
}

function detailsOf(resource: ResourceName, name: string): JsonObject {
  return {
    ...(name === '' ? {} : { name }),
    ...(resource.group === '' ? {} : { group: resource.group }),
    kind: resource.plural,
  };
}

export function notFound(resource: ResourceName, name: string): ApiError {
  return new ApiError(
    404,
    'NotFound',
    `${qualified(resource)} "${name}" not found`,
    detailsOf(resource, name),
  );
}

export function alreadyExists(resource: ResourceName, name: string): ApiError {
  return new ApiError(
    409,
    'AlreadyExists',
    `${qualified(resource)} "${name}" already exists`,
    detailsOf(resource, name),
  );
}

export function conflict(resource: ResourceName, name: string, why: string): ApiError {
  return new ApiError(
    409,
    'Conflict',
    `Operation cannot be fulfilled on ${qualified(resource)} "${name}": ${why}`,
    detailsOf(resource, name),
  );
}

export const modifiedMeanwhile =
  'the object has been modified; please apply your changes to the latest version and try again';

/** Server-side apply met fields that others own. */
export function applyConflict(conflicts: readonly { manager: string; field: string }[]): ApiError {
  const managers = [...new Set(conflicts.map((one) => one.manager))].sort();
  const lines = managers.map((manager) => {
    const fields = conflicts.filter((one) => one.manager === manager).map((one) => one.field);
    return fields.length === 1
      ? `conflict with ${manager}: ${fields[0]}`
      : `conflicts with ${manager}:\n${fields.map((field) => `- ${field}`).join('\n')}`;
  });
  const count = conflicts.length;
  return new ApiError(
    409,
    'Conflict',
    `Apply failed with ${count} conflict${count === 1 ? '' : 's'}: ${lines.join('\n')}`,
    {
      causes: conflicts.map((one) => ({
        reason: 'FieldManagerConflict',
        message: `conflict with ${one.manager}`,
        field: one.field,
      })),
    },
  );
}

function describeFieldError(error: FieldError): string {
  const text = fieldErrorText[error.type];
  if (error.type === 'Required' || error.type === 'Forbidden' || error.type === 'InternalError') {
    return error.detail === '' ? text : `${text}: ${error.detail}`;
  }
  const value = JSON.stringify(error.value === undefined ? null : error.value);
  return error.detail === '' ? `${text}: ${value}` : `${text}: ${value}: ${error.detail}`;
}

/** 422 with one cause a wrong field. */
export function invalid(resource: ResourceName, name: string, errors: readonly FieldError[]): ApiError {
  const lines = errors.map((error) => `${error.field}: ${describeFieldError(error)}`);
  const text = lines.length === 1 ? (lines[0] ?? '') : `[${lines.join(', ')}]`;
  const kind = resource.group === '' ? resource.kind : `${resource.kind}.${resource.group}`;
  return new ApiError(422, 'Invalid', `${kind} "${name}" is invalid: ${text}`, {
    ...(name === '' ? {} : { name }),
    ...(resource.group === '' ? {} : { group: resource.group }),
    kind: resource.kind,
    causes: errors.map((error): Json => ({
      reason: `FieldValue${error.type}`,
      message: describeFieldError(error),
      field: error.field,
    })),
  });
}

export function badRequest(message: string): ApiError {
  return new ApiError(400, 'BadRequest', message);
}

/** The revision is older than what the server remembers. */
export function expired(message: string): ApiError {
  return new ApiError(410, 'Expired', message);
}

/** The revision is newer than anything this server has seen. */
export function tooLargeResourceVersion(wanted: number, current: number): ApiError {
  return new ApiError(504, 'Timeout', `Too large resource version: ${wanted}, current: ${current}`, {
    causes: [{ reason: 'ResourceVersionTooLarge', message: 'Too large resource version' }],
    retryAfterSeconds: 1,
  });
}

export function methodNotAllowed(): ApiError {
  return new ApiError(
    405,
    'MethodNotAllowed',
    'the server does not allow this method on the requested resource',
    {},
  );
}

export function unsupportedMediaType(accepted: readonly string[]): ApiError {
  return new ApiError(
    415,
    'UnsupportedMediaType',
    `the body of the request was in an unknown format - accepted media types include: ${accepted.join(', ')}`,
  );
}

export function pathNotFound(): ApiError {
  return new ApiError(404, 'NotFound', 'the server could not find the requested resource', {});
}

export function unauthorized(): ApiError {
  return new ApiError(401, 'Unauthorized', 'Unauthorized');
}
