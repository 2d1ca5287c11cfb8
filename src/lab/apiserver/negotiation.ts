/** What the client wants to read: plain objects, Tables, metadata alone; JSON or protobuf. */

export type Shape = 'object' | 'Table' | 'PartialObjectMetadata';

export interface Wanted {
  readonly shape: Shape;
  readonly protobuf: boolean;
}

export interface AcceptEntry {
  readonly type: string;
  readonly parameters: ReadonlyMap<string, string>;
}

/** The entries of an Accept header, in the client's order (q values are not weighed: Kubernetes clients send none). */
export function parseAccept(header: string | undefined): AcceptEntry[] {
  return (header ?? '*/*').split(',').map((part) => {
    const [type = '', ...parameters] = part.split(';').map((one) => one.trim());
    const pairs = parameters.map((one): [string, string] => {
      const [key = '', value = ''] = one.split('=');
      return [key, value];
    });
    return { type: type.toLowerCase(), parameters: new Map(pairs) };
  });
}

const json = new Set(['application/json', 'application/*', '*/*', '']);
export const protobufType = 'application/vnd.kubernetes.protobuf';

/** The first form that the server has. Objects that have no protobuf encoding go out as JSON to those who take either. */
export function negotiate(header: string | undefined, protobufPossible: boolean): Wanted | undefined {
  if (header === undefined) return { shape: 'object', protobuf: false };
  let fallback: Wanted | undefined;
  for (const { type, parameters } of parseAccept(header)) {
    const as = parameters.get('as');
    if (as !== undefined && parameters.get('g') !== 'meta.k8s.io') continue;
    if (type === protobufType) {
      if (as === undefined && protobufPossible) return { shape: 'object', protobuf: true };
      // A client that takes nothing but protobuf is answered in JSON: it says so in the content type.
      if (as === undefined) fallback ??= { shape: 'object', protobuf: false };
      continue;
    }
    if (type === 'application/yaml') fallback ??= { shape: 'object', protobuf: false };
    if (!json.has(type)) continue;
    if (as === 'Table') return { shape: 'Table', protobuf: false };
    if (as === 'PartialObjectMetadata' || as === 'PartialObjectMetadataList') {
      return { shape: 'PartialObjectMetadata', protobuf: false };
    }
    if (as === undefined) return { shape: 'object', protobuf: false };
  }
  return fallback;
}
