import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { JsonObject } from '../../../src/lab/apiserver/objects.ts';
import { openApiV2Document, openApiV3 } from '../../../src/lab/apiserver/openapi.ts';
import { resources } from '../../../src/lab/apiserver/resources.ts';
import { checkAgainstSchema, schemaOf, type SchemaFindings } from '../../../src/lab/apiserver/schema.ts';

function findings(value: unknown, name = 'io.k8s.api.core.v1.Service'): SchemaFindings {
  const found: SchemaFindings = { wrongTypes: [], unknownFields: [] };
  checkAgainstSchema(value, schemaOf(name), '', found);
  return found;
}

test('unknown fields are found, however deep', () => {
  const value = { kind: 'Service', spec: { ports: [{ port: 80 }, { prot: 1 }], selectr: {} }, colour: 'red' };
  assert.deepEqual(findings(value).unknownFields, ['spec.ports[1].prot', 'spec.selectr', 'colour']);
});

test('wrong types are found', () => {
  const value = {
    metadata: 'x',
    spec: { ports: [{ port: '80', targetPort: 'http' }], selector: { a: 1 }, externalIPs: {} },
  };
  assert.deepEqual(findings(value).wrongTypes, [
    'metadata: must be an object',
    'spec.ports[0].port: must be of type int32',
    'spec.selector.a: must be of type string',
    'spec.externalIPs: must be a list',
  ]);
});

test('free-form fields take anything, null is absence', () => {
  const pod = {
    spec: { containers: [{ name: 'c', livenessProbe: { exec: { command: ['x'] } } }], affinity: null },
  };
  assert.deepEqual(findings(pod, 'io.k8s.api.core.v1.Pod'), { wrongTypes: [], unknownFields: [] });
});

/** All `$ref` values in a document. */
function references(value: unknown, found = new Set<string>()): Set<string> {
  if (typeof value !== 'object' || value === null) return found;
  for (const [key, item] of Object.entries(value)) {
    if (key === '$ref') found.add(item as string);
    else references(item, found);
  }
  return found;
}

test('every reference in the OpenAPI documents leads somewhere, and every kind is there', () => {
  const v2 = openApiV2Document();
  for (const reference of references(v2)) {
    assert.ok((v2['definitions'] as JsonObject)[reference.replace('#/definitions/', '')], reference);
  }
  for (const resource of resources) {
    const path = resource.group === '' ? 'api/v1' : `apis/${resource.apiVersion}`;
    const v3 = JSON.parse(openApiV3(path) ?? '{}') as { components: { schemas: Record<string, JsonObject> } };
    for (const reference of references(v3)) {
      assert.ok(v3.components.schemas[reference.replace('#/components/schemas/', '')], reference);
    }
    assert.deepEqual(v3.components.schemas[resource.schema.name]?.['x-kubernetes-group-version-kind'], [
      { group: resource.group, kind: resource.kind, version: 'v1' },
    ]);
  }
});
