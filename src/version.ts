import manifest from '../package.json' with { type: 'json' };

/** Our own version, without a `v`. */
export const pointsmanVersion: string = manifest.version;

/** The Kubernetes release whose kube-proxy we stand in for. */
export const kubernetesVersion = 'v1.36.2';

/** One line for `--version`: begins as kube-proxy's does, so that what parses that keeps working. */
export function versionLine(reported: string = kubernetesVersion): string {
  return `Kubernetes ${reported} (pointsman v${pointsmanVersion})`;
}

/** For `--version=raw`: the fields of Kubernetes' version.Info, and ours. */
export function versionStructure(reported: string = kubernetesVersion): string {
  const [major = '', minor = ''] = reported.replace(/^v/, '').split('.');
  const fields = [
    ['Major', major],
    ['Minor', minor],
    ['GitVersion', reported],
    ['Pointsman', `v${pointsmanVersion}`],
    ['NodeVersion', process.version],
    ['Compiler', 'v8'],
    ['Platform', `${process.platform}/${process.arch}`],
  ];
  return `version.Info{${fields.map(([name, value]) => `${name}:${JSON.stringify(value)}`).join(', ')}}`;
}

/** `--version=v1.36.2-mine` may extend the version, not change its major.minor.patch. Throws a sentence otherwise. */
export function checkReportedVersion(wanted: string): string {
  const match = /^(v\d+\.\d+\.\d+)([-+][0-9A-Za-z.+-]+)?$/.exec(wanted);
  if (match?.[1] !== kubernetesVersion) {
    throw new Error(
      `version "${wanted}" must begin with ${kubernetesVersion}, as in ${kubernetesVersion}-mine`,
    );
  }
  return wanted;
}
