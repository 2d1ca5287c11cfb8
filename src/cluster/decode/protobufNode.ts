/** core/v1 Node and networking/v1 ServiceCIDR off the wire. Numbers compared are tags: field number * 8 + wire type. */
import type { Node, ServiceCIDR } from '../../api/objects.ts';
import { none } from './build.ts';
import { append, emptyMeta, noMeta, readMeta, readName } from './protobufMeta.ts';
import type { Wire } from './wire.ts';

export function readNode(wire: Wire): Node {
  let fields = noMeta;
  let addresses: Node['addresses'] = none;
  let podCIDR = '';
  let podCIDRs: readonly string[] = none;
  let taintKeys: readonly string[] = none;
  while (wire.pos < wire.end) {
    const tag = wire.varint();
    if (tag === 10) fields = readMeta(wire);
    else if (tag === 18) {
      const outer = wire.enter();
      while (wire.pos < wire.end) {
        const inner = wire.varint();
        if (inner === 10) podCIDR = wire.string();
        else if (inner === 42) taintKeys = append(taintKeys, readName(wire));
        else if (inner === 58) podCIDRs = append(podCIDRs, wire.string());
        else wire.skip(inner);
      }
      wire.leave(outer);
    } else if (tag === 26) {
      const outer = wire.enter();
      while (wire.pos < wire.end) {
        const inner = wire.varint();
        if (inner === 42) addresses = append(addresses, readNodeAddress(wire));
        else wire.skip(inner);
      }
      wire.leave(outer);
    } else wire.skip(tag);
  }
  return {
    kind: 'Node',
    meta: fields.meta,
    zone: fields.zone,
    addresses,
    podCIDRs: podCIDRs.length === 0 && podCIDR !== '' ? [podCIDR] : podCIDRs,
    taintKeys,
    deleting: fields.deleting,
  };
}

/** NodeAddress {type 1, address 2} */
function readNodeAddress(wire: Wire): { type: string; address: string } {
  const outer = wire.enter();
  let type = '';
  let address = '';
  while (wire.pos < wire.end) {
    const tag = wire.varint();
    if (tag === 10) type = wire.interned();
    else if (tag === 18) address = wire.string();
    else wire.skip(tag);
  }
  wire.leave(outer);
  return { type, address };
}

export function readServiceCIDR(wire: Wire): ServiceCIDR {
  let meta = emptyMeta;
  let cidrs: readonly string[] = none;
  while (wire.pos < wire.end) {
    const tag = wire.varint();
    if (tag === 10) meta = readMeta(wire).meta;
    else if (tag === 18) {
      const outer = wire.enter();
      while (wire.pos < wire.end) {
        const inner = wire.varint();
        if (inner === 10) cidrs = append(cidrs, wire.string());
        else wire.skip(inner);
      }
      wire.leave(outer);
    } else wire.skip(tag);
  }
  return { kind: 'ServiceCIDR', meta, cidrs };
}
