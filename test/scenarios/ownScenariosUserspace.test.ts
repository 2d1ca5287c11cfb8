/** Scenarios of our own: what the public ones leave out, judged by expectations. In userspace mode. */
import { ownScenarioTests } from './support.ts';

ownScenarioTests('userspace');
