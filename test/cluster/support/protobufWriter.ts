/** An independent little protobuf encoder: field numbers are written at the place of use, from the published .proto files. */
export type Part = Buffer;

function varint(value: number | bigint): Buffer {
  let rest = BigInt.asUintN(64, BigInt(value));
  const bytes: number[] = [];
  while (rest > 127n) {
    bytes.push(Number(rest & 127n) | 128);
    rest >>= 7n;
  }
  bytes.push(Number(rest));
  return Buffer.from(bytes);
}

export function int(field: number, value: number): Part {
  return Buffer.concat([varint(field << 3), varint(value)]);
}

export function bytes(field: number, value: Buffer | string): Part {
  const data = typeof value === 'string' ? Buffer.from(value, 'utf8') : value;
  return Buffer.concat([varint((field << 3) | 2), varint(data.length), data]);
}

export function message(field: number, ...parts: Part[]): Part {
  return bytes(field, Buffer.concat(parts));
}

export function fixed64(field: number): Part {
  return Buffer.concat([varint((field << 3) | 1), Buffer.alloc(8, 7)]);
}

export function fixed32(field: number): Part {
  return Buffer.concat([varint((field << 3) | 5), Buffer.alloc(4, 7)]);
}

/** map<string, string> */
export function map(field: number, entries: Readonly<Record<string, string>>): Part {
  return Buffer.concat(
    Object.entries(entries).map(([key, value]) => message(field, bytes(1, key), bytes(2, value))),
  );
}

export function envelope(apiVersion: string, kind: string, raw: Buffer): Buffer {
  return Buffer.concat([
    Buffer.from('k8s\0'),
    message(1, bytes(1, apiVersion), bytes(2, kind)),
    bytes(2, raw),
    bytes(3, ''),
    bytes(4, ''),
  ]);
}
