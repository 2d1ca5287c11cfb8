/** Patches by media type. */
import fastJsonPatch from 'fast-json-patch';
import { clone, isObject, type KubeObject } from './objects.ts';
import type { Schema } from './schema.ts';
import { ApiError, badRequest, unsupportedMediaType } from './status.ts';
import { mergePatch, strategicMergePatch } from './strategicmerge.ts';

export const patchMediaTypes = [
  'application/json-patch+json',
  'application/merge-patch+json',
  'application/strategic-merge-patch+json',
  'application/apply-patch+yaml',
] as const;

/** The object after the patch; the original is not changed. Throws 400, 415, 422. */
export function patchedObject(
  object: KubeObject,
  mediaType: string,
  patch: unknown,
  schema: Schema | undefined,
): unknown {
  switch (mediaType) {
    case 'application/json-patch+json': {
      if (!Array.isArray(patch)) throw badRequest('error decoding patch: expected a list of operations');
      try {
        const operations = patch as Parameters<typeof fastJsonPatch.applyPatch>[1];
        return fastJsonPatch.applyPatch(clone(object), [...operations], true, true).newDocument;
      } catch (error) {
        const why = error instanceof Error ? (error.message.split('\n')[0] ?? '') : String(error);
        throw new ApiError(
          422,
          'Invalid',
          `the server rejected our request due to an error in our request: ${why}`,
        );
      }
    }
    case 'application/merge-patch+json':
      if (!isObject(patch)) throw badRequest('error decoding patch: expected an object');
      return mergePatch(clone(object), patch);
    case 'application/strategic-merge-patch+json':
      if (!isObject(patch)) throw badRequest('error decoding patch: expected an object');
      return strategicMergePatch(clone(object), patch, schema ?? { type: 'any' });
    default:
      throw unsupportedMediaType(patchMediaTypes);
  }
}
