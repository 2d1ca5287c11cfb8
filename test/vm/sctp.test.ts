/** A Service over SCTP, which few kernels that tests run on have; in iptables mode. */
import { fileURLToPath } from 'node:url';
import { guestScenarioTests } from './scenarios.ts';

guestScenarioTests('iptables', [fileURLToPath(new URL('data/sctp.yaml', import.meta.url))]);
