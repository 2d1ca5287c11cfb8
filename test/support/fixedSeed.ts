/**
 * Loaded by scripts/test.sh: laws are tried with the same samples everywhere, so that a run on another machine cannot
 * meet a sample that no run has met before. FAST_CHECK_SEED tries others; so does a test file that is run by itself.
 */
import fc from 'fast-check';

fc.configureGlobal({
  ...fc.readConfigureGlobal(),
  seed: Number(process.env['FAST_CHECK_SEED'] ?? 20_261_121),
});
