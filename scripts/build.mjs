// Bundles src/main.ts (and what it loads on demand) into dist/. Types are checked by `npm run typecheck`.
import { renameSync, rmSync } from 'node:fs';
import { build } from 'esbuild';

const outdir = process.env.OUTDIR ?? 'dist';
const fresh = `${outdir}.new-${process.pid}`;
await build({
  entryPoints: ['src/main.ts'],
  outdir: fresh,
  bundle: true,
  splitting: true,
  platform: 'node',
  format: 'esm',
  target: 'node20',
  packages: 'external',
  sourcemap: 'linked',
  logLevel: 'warning',
});
// Swapped in whole, so that a program started meanwhile finds one build or the other.
const old = `${outdir}.old-${process.pid}`;
try {
  renameSync(outdir, old);
} catch (error) {
  if (error.code !== 'ENOENT') throw error;
}
renameSync(fresh, outdir);
rmSync(old, { recursive: true, force: true });
