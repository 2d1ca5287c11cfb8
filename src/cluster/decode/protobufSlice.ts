/** discovery/v1 EndpointSlice off the wire. `case` labels are tags: field number * 8 + wire type. */
import type { EndpointSlice, SliceEndpoint, SlicePort } from '../../api/objects.ts';
import { none, slicePort } from './build.ts';
import { append, equals, noMeta, readMeta, readName } from './protobufMeta.ts';
import type { RejectAt } from './protobufMeta.ts';
import type { Wire } from './wire.ts';

export function readSlice(wire: Wire, problem: RejectAt): EndpointSlice {
  let fields = noMeta;
  let addressType = '';
  let ports: readonly SlicePort[] = none;
  let portIndex = 0;
  let endpoints: readonly SliceEndpoint[] = none;
  while (wire.pos < wire.end) {
    const tag = wire.varint();
    switch (tag) {
      case 10:
        fields = readMeta(wire);
        break;
      case 18:
        endpoints = append(endpoints, readEndpoint(wire));
        break;
      case 26: {
        const port = readSlicePort(wire, portIndex++, problem);
        if (port !== undefined) ports = append(ports, port);
        break;
      }
      case 34:
        addressType = wire.interned();
        break;
      default:
        wire.skip(tag);
    }
  }
  return {
    kind: 'EndpointSlice',
    meta: fields.meta,
    serviceName: fields.serviceName,
    addressType,
    ports,
    // Gives back the room that growing has reserved.
    endpoints: endpoints.length > 3 ? endpoints.slice() : endpoints,
    lastChangeTriggerTime: fields.triggerTime,
  };
}

function readSlicePort(wire: Wire, index: number, problem: RejectAt): SlicePort | undefined {
  const outer = wire.enter();
  let name: string | null = null;
  let protocol = '';
  let port: number | null = null;
  while (wire.pos < wire.end) {
    const tag = wire.varint();
    if (tag === 10) name = wire.interned();
    else if (tag === 18) protocol = wire.interned();
    else if (tag === 24) port = wire.varint();
    else wire.skip(tag);
  }
  wire.leave(outer);
  return slicePort(name, protocol, port, (field, message) => problem(`ports[${index}].${field}`, message));
}

function readEndpoint(wire: Wire): SliceEndpoint {
  const outer = wire.enter();
  let address: string | undefined;
  let ready = true;
  let serving = true;
  let terminating = false;
  let nodeName = '';
  let zone = '';
  let zoneHints: readonly string[] = none;
  let nodeHints: readonly string[] = none;
  let pod = '';
  while (wire.pos < wire.end) {
    const tag = wire.varint();
    switch (tag) {
      case 10:
        if (address === undefined) address = wire.string();
        else wire.skip(tag);
        break;
      case 18: {
        const middle = wire.enter();
        while (wire.pos < wire.end) {
          const inner = wire.varint();
          if (inner === 8) ready = wire.varint() !== 0;
          else if (inner === 16) serving = wire.varint() !== 0;
          else if (inner === 24) terminating = wire.varint() !== 0;
          else wire.skip(inner);
        }
        wire.leave(middle);
        break;
      }
      case 34:
        pod = readPod(wire);
        break;
      case 50:
        nodeName = wire.interned();
        break;
      case 58:
        zone = wire.interned();
        break;
      case 66: {
        const middle = wire.enter();
        while (wire.pos < wire.end) {
          const inner = wire.varint();
          if (inner === 10) zoneHints = append(zoneHints, readName(wire));
          else if (inner === 18) nodeHints = append(nodeHints, readName(wire));
          else wire.skip(inner);
        }
        wire.leave(middle);
        break;
      }
      default:
        wire.skip(tag);
    }
  }
  wire.leave(outer);
  return {
    address: address ?? '',
    ready,
    serving,
    terminating,
    nodeName,
    zone,
    zoneHints,
    nodeHints,
    pod,
  };
}

/** Where the text of a Pod's `namespace/name` is put together, so that one flat string comes of it. */
const podText = Buffer.alloc(512);

/** ObjectReference {kind 1, namespace 2, name 3} */
function readPod(wire: Wire): string {
  const outer = wire.enter();
  const { bytes } = wire;
  let isPod = false;
  let namespaceStart = 0;
  let namespaceEnd = 0;
  let nameStart = 0;
  let nameEnd = 0;
  while (wire.pos < wire.end) {
    const tag = wire.varint();
    if (tag === 10) isPod = equals(bytes, wire.span(), wire.pos, 'Pod');
    else if (tag === 18) {
      namespaceStart = wire.span();
      namespaceEnd = wire.pos;
    } else if (tag === 26) {
      nameStart = wire.span();
      nameEnd = wire.pos;
    } else wire.skip(tag);
  }
  wire.leave(outer);
  if (!isPod) return '';
  const namespaceLength = namespaceEnd - namespaceStart;
  const length = namespaceLength + 1 + nameEnd - nameStart;
  if (namespaceLength === 0 || length > podText.length) return bytes.toString('utf8', nameStart, nameEnd);
  bytes.copy(podText, 0, namespaceStart, namespaceEnd);
  podText[namespaceLength] = 0x2f;
  bytes.copy(podText, namespaceLength + 1, nameStart, nameEnd);
  return podText.toString('utf8', 0, length);
}
