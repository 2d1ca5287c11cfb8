/** The suite of counters in IPVS mode. */
import { counterSuite } from './support/counterSuite.ts';

counterSuite('ipvs');
