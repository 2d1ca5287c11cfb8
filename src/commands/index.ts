/** Every command of the program. Each is loaded when it is called, so that none pays for another. */

export interface Command {
  readonly name: string;
  /** One line for the list of commands. */
  readonly summary: string;
  /** Not in the list: for other programs, such as benchmarks. */
  readonly hidden?: true;
  load(): Promise<CommandModule>;
}

export interface CommandModule {
  /** Takes what follows the command's name; resolves to the exit code. */
  readonly run: (argv: string[]) => Promise<number>;
}

export const commands: readonly Command[] = [
  {
    name: 'run',
    summary: 'run the service proxy on this node, as kube-proxy does',
    load: () => import('./run.ts'),
  },
  {
    name: 'explain',
    summary: 'say where a packet goes, through which rules, and why',
    load: () => import('./explain.ts'),
  },
  {
    name: 'status',
    summary: 'what the proxy of this node does: health, Services, endpoints, problems, the last changes',
    load: () => import('./status.ts'),
  },
  {
    name: 'top',
    summary: 'new connections per second by Service and endpoint, as they come',
    load: () => import('./top.ts'),
  },
  {
    name: 'demo',
    summary: 'watch it at work: a cluster on this machine, real traffic, the rules that move it (needs root)',
    load: () => import('./demo.ts'),
  },
  {
    name: 'render',
    summary: 'print the rules that a node makes of manifests or a cluster; check them; compare two versions',
    load: () => import('./render.ts'),
  },
  {
    name: 'diff',
    summary: 'compare what a node wants with what its kernel has, and name who else has rules there',
    load: () => import('./diff.ts'),
  },
  {
    name: 'lab',
    summary: 'a small cluster on this machine: to try things, and to play scenario files',
    load: () => import('./lab.ts'),
  },
  {
    name: 'lab-apiserver',
    summary: "the lab's API server by itself",
    hidden: true,
    load: () => import('../lab/apiserver/main.ts'),
  },
  { name: 'version', summary: 'print the version', load: () => import('./version.ts') },
];
