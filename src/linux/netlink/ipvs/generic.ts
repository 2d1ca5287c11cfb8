/** Generic netlink (linux/genetlink.h): families of messages whose number the kernel gives out by name. */
import { ENOENT, isRefusal } from '../errors.ts';
import { attributesOf, type Message, type MessageWriter } from '../message.ts';
import type { NetlinkSocket } from '../socket.ts';

/** struct genlmsghdr { u8 cmd, version; u16 reserved } */
export const GENL_HEADER_LENGTH = 4;

const GENL_ID_CTRL = 0x10;
const CTRL_CMD_GETFAMILY = 3;
const CTRL_ATTR_FAMILY_ID = 1;
const CTRL_ATTR_FAMILY_NAME = 2;

/** Puts the header that every generic netlink message has before its attributes. */
export function genericHeader(writer: MessageWriter, command: number, version = 1): void {
  writer.raw(new Uint8Array([command, version, 0, 0]));
}

/** The number of a family, to be used as message type; undefined if the kernel has no such family. */
export function familyNumber(socket: NetlinkSocket, name: string): number | undefined {
  const writer = socket.begin(GENL_ID_CTRL);
  genericHeader(writer, CTRL_CMD_GETFAMILY);
  writer.string(CTRL_ATTR_FAMILY_NAME, name);
  let id: number | undefined;
  try {
    socket.request(`generic netlink family ${name}`, (message) => {
      id = readFamilyNumber(message);
    });
  } catch (error) {
    if (isRefusal(error, ENOENT)) return undefined;
    throw error;
  }
  return id;
}

function readFamilyNumber(message: Message): number | undefined {
  const reader = attributesOf(message, GENL_HEADER_LENGTH);
  while (reader.next()) {
    if (reader.type === CTRL_ATTR_FAMILY_ID && reader.size >= 2)
      return reader.bytes[reader.start]! | (reader.bytes[reader.start + 1]! << 8);
  }
  return undefined;
}
