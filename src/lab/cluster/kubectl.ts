/** A real kubectl for the lab: `$KUBECTL`, or what this checkout fetches, or the one on PATH. */
import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The checkout this program runs from, be it from source or from its bundle; undefined if installed without scripts. */
export function checkoutScript(name: string): string | undefined {
  let directory = dirname(fileURLToPath(import.meta.url));
  for (let i = 0; i < 6; i++) {
    const script = join(directory, 'scripts', name);
    if (existsSync(script)) return script;
    directory = dirname(directory);
  }
  return undefined;
}

export function findKubectl(): string {
  const own = process.env['KUBECTL'];
  if (own !== undefined && own !== '') return own;
  const script = checkoutScript('kubectl.sh');
  if (script === undefined) return 'kubectl';
  return execFileSync(script, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] }).trim();
}
