/** `pointsman demo`: two stories of Service networking, played with real packets on this machine. */
import { runDemo } from '../lab/demo/demo.ts';

export function run(): Promise<number> {
  return runDemo();
}
