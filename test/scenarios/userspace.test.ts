/** The public scenarios in userspace mode; where it must differ is in src/lab/scenario/modeDifferences.ts. */
import { scenarioTests } from './support.ts';

scenarioTests('userspace', undefined);
