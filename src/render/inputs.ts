/** From the command line to the cluster's objects, the node and the wanted routes. */
import { formatProblem, readManifests } from '../cluster/manifests.ts';
import { UsageError } from '../config/flags.ts';
import type { Logger } from '../log/logger.ts';
import type { InputArguments } from './arguments.ts';
import { clusterOf, type ClusterObjects } from './cluster.ts';
import { chooseNode } from './node.ts';
import { wantedOf, type Wanted } from './wanted.ts';

export interface Inputs {
  readonly cluster: ClusterObjects;
  readonly wanted: Wanted;
}

export interface InputOptions {
  /** Report all that is wrong with manifests. Default false. */
  readonly strict?: boolean;
  /** Takes a line for each thing that cannot be read. Default: they are kept in the cluster's `problems` only. */
  readonly err?: (text: string) => void;
  /** Only the live cluster writes log lines. */
  readonly log: Logger;
  /** Read together with the paths of the command line. */
  readonly morePaths?: readonly string[];
}

/** Throws `UsageError` where no objects are named, else a sentence about what cannot be had. */
export async function readInputs(given: InputArguments, options: InputOptions): Promise<Inputs> {
  const paths = [...given.paths, ...(options.morePaths ?? [])];
  let cluster: ClusterObjects;
  if (paths.length > 0) cluster = clusterOf(readManifests(paths, { strict: options.strict === true }));
  else if (given.live) {
    // The room of the API client is loaded only where it is needed.
    const { readLiveCluster } = await import('./live.ts');
    cluster = await readLiveCluster(given.api, given.node.name, options.log);
  } else throw new UsageError('no objects: name manifests with -f, or a cluster with --kubeconfig');
  if (options.err !== undefined) sayProblems(cluster, options.err);
  return { cluster, wanted: wantedFrom(cluster, given) };
}

/**
 * A line for each thing that cannot be read. Throws a sentence where nothing at all could be: the rules of an empty
 * cluster would be an answer to another question.
 */
export function sayProblems(cluster: ClusterObjects, err: (text: string) => void): void {
  const { problems, services, slices, nodes, serviceCIDRs, others, passedOver } = cluster;
  for (const problem of problems) err(`${formatProblem(problem)}\n`);
  const read = [services, slices, nodes, serviceCIDRs, others, passedOver].some(({ length }) => length > 0);
  if (problems.length > 0 && !read) throw new Error('none of the objects named could be read');
}

export function wantedFrom(cluster: ClusterObjects, given: InputArguments): Wanted {
  const { config, families } = given;
  const node = chooseNode(cluster.nodes, given.node, config.bindAddress);
  return wantedOf(cluster, { config, node, ...(families !== undefined && { families }) });
}
