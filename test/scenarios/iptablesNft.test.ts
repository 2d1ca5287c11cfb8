/** The public scenarios in iptables mode, over nf_tables. */
import { scenarioTests } from './support.ts';

scenarioTests('iptables', 'nft');
