/** The public scenarios in iptables mode, over legacy iptables. */
import { scenarioTests } from './support.ts';

scenarioTests('iptables', 'legacy');
