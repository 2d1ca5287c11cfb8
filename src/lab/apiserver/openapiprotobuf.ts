/**
 * The OpenAPI v2 document in the protobuf form (`openapi.v2.Document` of google/gnostic) that kubectl before 1.27
 * insists on. Only the parts that our documents use.
 */
import { isObject, type Json, type JsonObject } from './objects.ts';

function varint(value: number): Buffer {
  const bytes: number[] = [];
  let rest = value;
  while (rest > 127) {
    bytes.push((rest & 127) | 128);
    rest = Math.floor(rest / 128);
  }
  bytes.push(rest);
  return Buffer.from(bytes);
}

/** A length-delimited field. */
function field(number: number, content: Buffer | string): Buffer {
  const bytes = typeof content === 'string' ? Buffer.from(content) : content;
  return Buffer.concat([varint(number * 8 + 2), varint(bytes.length), bytes]);
}

function textField(number: number, value: Json | undefined): Buffer[] {
  return typeof value === 'string' ? [field(number, value)] : [];
}

/** NamedAny { name = 1, Any value = 2 { yaml = 2 } }; JSON is YAML. */
function extension(name: string, value: Json | undefined): Buffer {
  return Buffer.concat([field(1, name), field(2, field(2, JSON.stringify(value)))]);
}

function namedSchemas(definitions: JsonObject): Buffer {
  return Buffer.concat(
    Object.entries(definitions).map(([name, schema]) =>
      field(1, Buffer.concat([field(1, name), field(2, encodeSchema(schema as JsonObject))])),
    ),
  );
}

function encodeSchema(schema: JsonObject): Buffer {
  const parts: Buffer[] = [
    ...textField(1, schema['$ref']),
    ...textField(2, schema['format']),
    ...textField(4, schema['description']),
  ];
  for (const name of (schema['required'] as string[] | undefined) ?? []) parts.push(field(19, name));
  const { additionalProperties, items, properties } = schema;
  if (isObject(additionalProperties)) parts.push(field(21, field(1, encodeSchema(additionalProperties))));
  if (typeof schema['type'] === 'string') parts.push(field(22, field(1, schema['type'])));
  if (isObject(items)) parts.push(field(23, field(1, encodeSchema(items))));
  if (isObject(properties)) parts.push(field(25, namedSchemas(properties)));
  for (const [key, value] of Object.entries(schema)) {
    if (key.startsWith('x-')) parts.push(field(31, extension(key, value)));
  }
  return Buffer.concat(parts);
}

/** Of the operations only `patch`: older kubectl looks there whether a kind supports dry runs. */
function encodePatches(paths: JsonObject): Buffer {
  return Buffer.concat(
    Object.entries(paths).flatMap(([path, item]) => {
      const patch = (item as JsonObject)['patch'];
      if (!isObject(patch)) return [];
      const kind = 'x-kubernetes-group-version-kind';
      const parameters = (patch['parameters'] as JsonObject[]).map((one) => {
        const query = Buffer.concat([...textField(2, one['in']), ...textField(4, one['name'])]);
        // ParametersItem.parameter → Parameter.non_body_parameter → NonBodyParameter.query_parameter_sub_schema
        return field(8, field(1, field(2, field(3, query))));
      });
      const operation = Buffer.concat([
        ...textField(5, patch['operationId']),
        ...parameters,
        field(13, extension(kind, patch[kind])),
      ]);
      return [field(2, Buffer.concat([field(1, path), field(2, field(8, operation))]))];
    }),
  );
}

export function encodeOpenApiV2(document: JsonObject): Buffer {
  const info = document['info'] as JsonObject;
  return Buffer.concat([
    field(1, document['swagger'] as string),
    field(2, Buffer.concat([...textField(1, info['title']), ...textField(2, info['version'])])),
    field(8, encodePatches(document['paths'] as JsonObject)),
    field(9, namedSchemas(document['definitions'] as JsonObject)),
  ]);
}
