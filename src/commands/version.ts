import { kubernetesVersion, pointsmanVersion } from '../version.ts';

export function run(): Promise<number> {
  process.stdout.write(`pointsman v${pointsmanVersion}, compatible with Kubernetes ${kubernetesVersion}\n`);
  return Promise.resolve(0);
}
