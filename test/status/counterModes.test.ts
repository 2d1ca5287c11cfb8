/** The suite of counters on this kernel; IPVS mode has its turn in the guest. */
import { counterSuite } from './support/counterSuite.ts';

for (const mode of ['iptables', 'nftables', 'userspace'] as const) counterSuite(mode);
