/** Chooses which iptables a run uses, by putting a directory of links first in PATH. */
import { accessSync, constants, mkdirSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';

export type IptablesVariant = 'nft' | 'legacy';

function find(program: string): string {
  for (const directory of [...(process.env['PATH'] ?? '').split(':'), '/usr/sbin', '/sbin']) {
    const path = join(directory, program);
    try {
      accessSync(path, constants.X_OK);
      return path;
    } catch {
      // Not in this directory.
    }
  }
  throw new Error(`${program} is not installed (Debian package iptables)`);
}

/** Makes the links in `directory` and returns the environment to start programs with. */
export function iptablesEnvironment(
  variant: IptablesVariant | undefined,
  directory: string,
): NodeJS.ProcessEnv {
  const path = `${process.env['PATH'] ?? ''}:/usr/sbin:/sbin`;
  if (variant === undefined) return { ...process.env, PATH: path };
  const program = find(`xtables-${variant}-multi`);
  mkdirSync(directory, { recursive: true });
  for (const name of ['iptables', 'ip6tables']) {
    for (const suffix of ['', '-save', '-restore']) symlinkSync(program, join(directory, name + suffix));
  }
  return { ...process.env, PATH: `${directory}:${path}` };
}
