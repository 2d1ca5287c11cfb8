/** Scenarios of our own: what the public ones leave out, judged by expectations. In iptables mode. */
import { ownScenarioTests } from './support.ts';

ownScenarioTests('iptables');
