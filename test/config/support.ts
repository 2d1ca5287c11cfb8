/** Configuration files in a folder of their own, and the effective configuration of a command line. */
import assert from 'node:assert/strict';
import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after } from 'node:test';
import { loadConfig } from '../../src/config/load.ts';
import type { ProxyConfig } from '../../src/config/types.ts';
import { makeOwnedDirectory } from '../../src/lab/net/ownedDirectory.ts';

export const folder = makeOwnedDirectory('config');
after(() => rmSync(folder, { recursive: true }));
let files = 0;

/** The path of a file with this body after kind and version. */
export function file(body: string): string {
  files += 1;
  const path = join(folder, `${files}.yaml`);
  writeFileSync(path, `apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n${body}`);
  return path;
}

export async function load(...argv: string[]): Promise<ProxyConfig> {
  const loaded = await loadConfig(argv);
  return loaded.kind === 'config' ? loaded.config : assert.fail(`no configuration but ${loaded.kind}`);
}
