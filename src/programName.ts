/** How this program is called, for usage lines and hints. */

/** What the launcher says it was called as: `./pointsman` in a checkout, `pointsman` where PATH finds it. */
export function calledAs(env: NodeJS.ProcessEnv): string {
  const name = env['POINTSMAN_CALLED_AS'] ?? '';
  // A name of more than one word, or with control characters, could not be typed as it stands.
  return /^[^\s\p{C}]+$/u.test(name) ? name : 'pointsman';
}

export const programName = calledAs(process.env);
