/** What the daemon of this node wants, as it says over its unix socket: its routes and settings, nothing made up. */
import { decodeFile } from '../config/file.ts';
import { withDefaults } from '../config/settings.ts';
import type { Family } from '../api/objects.ts';
import type { RoutingTable } from '../services/types.ts';
import { DaemonClient, DaemonUnreachable } from '../status/client.ts';
import type { ConfigDocument, ObjectsDocument } from '../status/documents.ts';
import { tableFromDocument } from '../status/routesDocument.ts';
import type { InputArguments } from './arguments.ts';
import type { Inputs } from './inputs.ts';
import type { ApiAccess } from './live.ts';
import { chooseNode, type RuleConfig } from './node.ts';
import type { WantedFamily } from './wanted.ts';

/** What a daemon wants, and where it asks for objects. */
export interface DaemonInputs extends Inputs {
  readonly api: ApiAccess;
}

/** Asks the daemon that the command line means. Undefined inputs: nobody answers, and the refusal says why. */
export async function askDaemon(
  { socketPath, families, modeFlag }: InputArguments,
  warn: (text: string) => void,
): Promise<{ readonly inputs: DaemonInputs | undefined; readonly refusal: string }> {
  try {
    const client = new DaemonClient(socketPath === '' ? {} : { socketPath });
    const inputs = await readDaemon(client, families);
    const { mode } = inputs.wanted.config;
    if (modeFlag !== '' && modeFlag !== mode)
      warn(`--mode ${modeFlag} has no effect: the daemon of this node runs in ${mode} mode\n`);
    return { inputs, refusal: '' };
  } catch (error) {
    if (!(error instanceof DaemonUnreachable)) throw error;
    return { inputs: undefined, refusal: error.message.replace('with --socket)', 'with --socket-path)') };
  }
}

/** Rejects with DaemonUnreachable if nobody answers. @param families default: all that the daemon has */
export async function readDaemon(client: DaemonClient, families?: readonly Family[]): Promise<DaemonInputs> {
  const [answer, said, objects] = await Promise.all([client.routes(), client.config(), client.objects()]);
  const sources = answer.families.map((family) => ({
    table: tableFromDocument(family),
    serviceCIDRs: family.serviceCIDRs,
  }));
  const inputs = inputsFrom(said, objects, sources);
  if (families === undefined) return inputs;
  const chosen = inputs.wanted.families.filter(({ family }) => families.includes(family));
  return { ...inputs, wanted: { ...inputs.wanted, families: chosen } };
}

function inputsFrom(
  said: ConfigDocument,
  objects: ObjectsDocument,
  sources: readonly { readonly table: RoutingTable; readonly serviceCIDRs: readonly string[] }[],
): DaemonInputs {
  const config = configOf(said);
  const nodes = objects.node === null ? [] : [objects.node];
  const ips = said.options.map(({ nodeIP }) => nodeIP);
  const flags = { name: said.node, ips, zone: '', podCIDRs: [] };
  const families = sources.flatMap(({ table, serviceCIDRs }): WantedFamily[] => {
    const options = said.options.find(({ family }) => family === table.family);
    if (options === undefined) return [];
    return [{ family: table.family, options, table, serviceCIDRs, healthChecks: new Map() }];
  });
  return {
    cluster: {
      services: objects.services,
      slices: objects.slices,
      nodes,
      serviceCIDRs: objects.serviceCIDRs,
      sources: new Map(),
      others: [],
      passedOver: [],
      problems: [],
    },
    api: {
      clientConnection: withDefaults(documentOf(said)).clientConnection,
      master: said.flags.find(({ name }) => name === 'master')?.value ?? '',
    },
    wanted: { config, node: chooseNode(nodes, flags, config.bindAddress), families, problems: [] },
  };
}

/** JSON is YAML, too. */
function documentOf({ configuration }: ConfigDocument) {
  return decodeFile(JSON.stringify(configuration)).document;
}

function configOf(said: ConfigDocument): RuleConfig {
  const { mode, localhostNodePorts, serviceCounters } = said;
  const settings = withDefaults(documentOf(said));
  return {
    ...settings,
    mode,
    localhostNodePorts,
    masqueradeBit: mode === 'nftables' ? settings.nftablesMasqueradeBit : settings.iptablesMasqueradeBit,
    // The daemon has checked it.
    detectLocalMode: settings.detectLocalMode as RuleConfig['detectLocalMode'],
    extras: { serviceCounters },
  };
}
