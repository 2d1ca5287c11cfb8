/**
 * `/statusz` and `/flagz` (KEP-4827, KEP-4828): what runs here and how it was started, for people; as JSON or YAML for
 * those who ask for it by its group and version.
 */
export interface StatusFacts {
  /** Milliseconds since the epoch. */
  readonly startTime: number;
  readonly now: number;
  /** Our own version, e.g. `0.1.0`. */
  readonly version: string;
  /** Kubernetes version we are compatible with, e.g. `v1.36.2`. */
  readonly kubernetesVersion: string;
  /** First segments of the paths that are served. */
  readonly paths: readonly string[];
}

export interface FlagValue {
  readonly name: string;
  readonly value: string;
}

export type ZPageKind = 'Statusz' | 'Flagz';

/** What an Accept header asks for. */
export type ZPageFormat =
  | { readonly kind: 'text' }
  | { readonly kind: 'json' | 'yaml'; readonly version: string; readonly deprecated: boolean }
  | { readonly kind: 'notAcceptable' };

const component = 'kube-proxy';
const warning =
  'Warning: This endpoint is not meant to be machine parseable, has no formatting compatibility guarantees and is for debugging purposes only.';

/** The field is the format's; what runs here is not Go. */
const goVersion = `none (Node.js ${process.version})`;

const structuredForms: Readonly<Record<string, 'json' | 'yaml'>> = {
  'application/json': 'json',
  'application/yaml': 'yaml',
};

/** Text unless the structured form is asked for by name (`application/json;v=v1beta1;g=config.k8s.io;as=Statusz`). */
export function negotiate(accept: string | undefined, kind: ZPageKind): ZPageFormat {
  if (accept === undefined || accept.trim() === '') return { kind: 'text' };
  for (const range of accept.split(',')) {
    const [type = '', ...parameters] = range.split(';').map((part) => part.trim());
    const lower = type.toLowerCase();
    if (lower === 'text/plain' || lower === '*/*' || lower === 'text/*') return { kind: 'text' };
    const structured = structuredForms[lower];
    if (structured === undefined) continue;
    const values = new Map(
      parameters.map((parameter) => parameter.split('=', 2) as [string, string | undefined]),
    );
    const version = values.get('v');
    if (values.get('g') !== 'config.k8s.io' || values.get('as') !== kind) continue;
    if (version === 'v1beta1' || version === 'v1alpha1')
      return { kind: structured, version, deprecated: version === 'v1alpha1' };
  }
  return { kind: 'notAcceptable' };
}

export function statuszText(facts: StatusFacts): string {
  const lines = [
    `Started: ${formatUnixDate(facts.startTime)}`,
    `Up: ${formatUptime(facts.now - facts.startTime)}`,
    `Go version: ${goVersion}`,
    `Pointsman version: ${facts.version}`,
    `Binary version: ${facts.kubernetesVersion.replace(/^v/, '')}`,
    `Emulation version: ${minorVersion(facts.kubernetesVersion)}`,
    `Paths: ${facts.paths.join(' ')}`,
  ];
  return `\n${component} statusz\n${warning}\n\n${lines.join('\n')}\n`;
}

/** The structured form, config.k8s.io Statusz. */
export function statuszObject(facts: StatusFacts, version: string): object {
  return {
    kind: 'Statusz',
    apiVersion: `config.k8s.io/${version}`,
    metadata: { name: component },
    startTime: new Date(facts.startTime).toISOString().replace(/\.\d+Z$/, 'Z'),
    uptimeSeconds: Math.floor((facts.now - facts.startTime) / 1000),
    goVersion,
    binaryVersion: facts.kubernetesVersion.replace(/^v/, ''),
    emulationVersion: minorVersion(facts.kubernetesVersion),
    paths: facts.paths,
  };
}

export function flagzText(flags: readonly FlagValue[]): string {
  const lines = flags.map((flag) => `${flag.name}=${flag.value}`).toSorted();
  return `\n${component} flagz\n${warning}\n\n${lines.join('\n')}\n`;
}

/** The structured form, config.k8s.io Flagz. */
export function flagzObject(flags: readonly FlagValue[], version: string): object {
  return {
    kind: 'Flagz',
    apiVersion: `config.k8s.io/${version}`,
    metadata: { name: component },
    flags: Object.fromEntries(flags.map((flag) => [flag.name, flag.value])),
  };
}

/** `Wed Oct  2 21:03:43 UTC 2024`, the form of Go's time.UnixDate and of `date -u`. @param time milliseconds */
export function formatUnixDate(time: number): string {
  const [day, date = '', month, year, clock] = new Date(time).toUTCString().replace(',', '').split(' ');
  return `${day} ${month} ${date.replace(/^0/, ' ')} ${clock} UTC ${year}`;
}

/** `3 hr 07 min 09 sec` */
export function formatUptime(milliseconds: number): string {
  const seconds = Math.max(0, Math.floor(milliseconds / 1000));
  const two = (value: number): string => String(value).padStart(2, '0');
  return `${Math.floor(seconds / 3600)} hr ${two(Math.floor(seconds / 60) % 60)} min ${two(seconds % 60)} sec`;
}

/** `v1.36.2` to `1.36` */
function minorVersion(version: string): string {
  return /^v?(\d+\.\d+)/.exec(version)?.[1] ?? version;
}
