/** What the kernel of this network namespace holds, read for a comparison; nothing is changed. */
import type { Family } from '../api/objects.ts';
import type { Mode } from '../dataplane/dataplane.ts';
import { listLocalAddresses } from '../linux/addresses.ts';
import { mayAdministerNetwork } from '../linux/capabilities.ts';
import { Iptables } from '../linux/iptables/iptables.ts';
import { saveReader, type SavedTable } from '../linux/iptables/save.ts';
import type { TableName } from '../linux/netlink/nftables/objects.ts';
import { NftSocket } from '../linux/netlink/nftables/socket.ts';
import type { TableContents } from '../linux/netlink/nftables/print.ts';
import { conntrackBeLiberal } from '../linux/sysctl.ts';
import type { ForeignTable } from './neighbours.ts';

export interface KernelState {
  /** Undefined where there is no iptables to ask. */
  readonly iptables: readonly SavedTable[] | undefined;
  readonly randomFully: boolean;
  readonly tcpBeLiberal: boolean;
  /** Table kube-proxy of the family; nftables mode only. */
  readonly nftables: TableContents | undefined;
  readonly foreign: readonly ForeignTable[];
  readonly localAddresses: readonly string[];
  /** What could not be read, in sentences. */
  readonly notes: readonly string[];
}

/** Tables that iptables-nft keeps its rules in: iptables-save has printed them. */
const compatible = new Set(['filter', 'nat', 'mangle', 'raw', 'security']);

/** Rejects with a sentence where what the mode is about cannot be read. */
export async function readKernel(family: Family, mode: Mode): Promise<KernelState> {
  if (!mayAdministerNetwork())
    throw new Error(
      'only root may read the rules of the kernel: use sudo; without it, give saved rules (--saved)',
    );
  const notes: string[] = [];
  const iptables = await readIptables(family, mode, notes);
  const nft = readNftables(family, mode, notes, iptables.tables !== undefined);
  return {
    iptables: iptables.tables,
    randomFully: iptables.randomFully,
    tcpBeLiberal: conntrackBeLiberal(),
    ...nft,
    localAddresses: listLocalAddresses().map(({ address }) => address),
    notes,
  };
}

async function readIptables(
  family: Family,
  mode: Mode,
  notes: string[],
): Promise<{ tables: SavedTable[] | undefined; randomFully: boolean }> {
  const program = await Iptables.open(family);
  const reader = saveReader();
  try {
    for (const table of ['filter', 'nat', 'mangle'] as const)
      await program.save(table, (line) => reader.line(line));
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    if (mode !== 'nftables')
      throw new Error(`the iptables rules cannot be read: ${reason}`, { cause: error });
    notes.push(`rules of iptables were not looked at: ${reason}`);
    return { tables: undefined, randomFully: true };
  }
  return { tables: reader.tables, randomFully: program.features.randomFully };
}

function readNftables(
  family: Family,
  mode: Mode,
  notes: string[],
  hasIptables: boolean,
): Pick<KernelState, 'nftables' | 'foreign'> {
  const own: TableName = { family: family === 'IPv6' ? 'ip6' : 'ip', name: 'kube-proxy' };
  let nft: NftSocket | undefined;
  try {
    nft = new NftSocket();
    const nftables = mode === 'nftables' ? nft.readTable(own) : undefined;
    const foreign: ForeignTable[] = [];
    for (const table of nft.listTables()) {
      if (!['ip', 'ip6', 'inet'].includes(table.family)) continue;
      if (hasIptables && table.family !== 'inet' && compatible.has(table.name)) continue;
      if (mode === 'nftables' && table.name === own.name) continue;
      const { family: tableFamily, name } = table;
      foreign.push({ family: tableFamily, name, chains: nft.listChains(table), rules: nft.listRules(table) });
    }
    return { nftables, foreign };
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    if (mode === 'nftables') throw new Error(`nf_tables cannot be read: ${reason}`, { cause: error });
    notes.push(`tables of nf_tables were not looked at: ${reason}`);
    return { nftables: undefined, foreign: [] };
  } finally {
    nft?.close();
  }
}
