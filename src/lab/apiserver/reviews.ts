/** Questions about oneself: may I (always yes, here), and who am I. */
import type { User } from './auth.ts';
import { isObject, now, type JsonObject } from './objects.ts';
import type { ReviewPath } from './paths.ts';

export function answerReview(name: ReviewPath['name'], body: unknown, user: User): JsonObject {
  const asked: JsonObject = isObject(body) ? body : {};
  const metadata = { creationTimestamp: now() };
  if (name === 'selfsubjectaccessreviews') {
    return { ...asked, metadata, status: { allowed: true, reason: 'the lab allows everything' } };
  }
  const userInfo = { username: user.name, groups: [...user.groups] };
  return { ...asked, metadata, status: { userInfo } };
}
