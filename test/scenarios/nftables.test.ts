/** The public scenarios in nftables mode. */
import { scenarioTests } from './support.ts';

scenarioTests('nftables', undefined);
