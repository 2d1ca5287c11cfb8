/**
 * Kubernetes protobuf to compact objects, without an intermediate form: only the wanted fields are read, everything
 * else (managedFields above all) is stepped over. Field numbers: `generated.proto` of k8s.io/api and apimachinery
 * (see api/protobuf/schema.ts, where they stand in full).
 */
import type { ApiObject, Kind } from '../../api/objects.ts';
import type { ObjectIdentity } from './json.ts';
import { MalformedObject } from './problem.ts';
import type { ReportProblem } from './problem.ts';
import { emptyMeta, readMeta } from './protobufMeta.ts';
import type { RejectAt } from './protobufMeta.ts';
import { readNode, readServiceCIDR } from './protobufNode.ts';
import { readService } from './protobufService.ts';
import { readSlice } from './protobufSlice.ts';
import type { Wire } from './wire.ts';

/** Decodes the message under the cursor; undefined (reported) if the object cannot be used. */
export function decodeProtobufObject(kind: Kind, wire: Wire, report: ReportProblem): ApiObject | undefined {
  const { bytes, pos, end } = wire;
  const entryProblems: { field: string; message: string }[] = [];
  const problem = (field: string, message: string): void => {
    entryProblems.push({ field, message: `${message}; the entry is skipped` });
  };
  let object: ApiObject | undefined;
  try {
    object = decode(kind, wire, problem);
    if (object.meta.name === '') throw new MalformedObject('metadata.name', 'no name');
  } catch (error) {
    if (!(error instanceof MalformedObject)) throw error;
    object = undefined;
    entryProblems.push({ field: error.field, message: `${error.message}; the object is skipped` });
  }
  if (entryProblems.length > 0) {
    wire.reset(bytes, pos, end);
    const { key } = identifyProtobuf(wire);
    for (const { field, message } of entryProblems) report({ kind, object: key, field, message });
  }
  wire.reset(bytes, end, end);
  return object;
}

/** Reads name, namespace and version of the object under the cursor; what is unreadable stays empty. */
export function identifyProtobuf(wire: Wire): ObjectIdentity {
  let meta = emptyMeta;
  try {
    while (wire.pos < wire.end) {
      const tag = wire.varint();
      if (tag === 10) {
        meta = readMeta(wire).meta;
        break;
      }
      wire.skip(tag);
    }
  } catch (error) {
    // What could be read before the damage is what there is to report.
    if (!(error instanceof MalformedObject)) throw error;
  }
  return {
    key: meta.name !== '' && meta.namespace !== '' ? `${meta.namespace}/${meta.name}` : meta.name,
    resourceVersion: meta.resourceVersion,
  };
}

function decode(kind: Kind, wire: Wire, problem: RejectAt): ApiObject {
  switch (kind) {
    case 'Service':
      return readService(wire, problem);
    case 'EndpointSlice':
      return readSlice(wire, problem);
    case 'Node':
      return readNode(wire);
    case 'ServiceCIDR':
      return readServiceCIDR(wire);
  }
}
