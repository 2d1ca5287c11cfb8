/**
 * What the kernel says when it refuses a message: the errno in words, its extended acknowledgement
 * (NETLINK_EXT_ACK, since 4.12) and which message of a batch it was.
 */
import { describeErrno } from '../ffi.ts';
import {
  AttributeReader,
  HEADER_LENGTH,
  NLM_F_ACK_TLVS,
  NLM_F_CAPPED,
  get32,
  type Message,
} from './message.ts';

/** enum nlmsgerr_attrs */
const NLMSGERR_ATTR_MSG = 1;
const NLMSGERR_ATTR_OFFS = 2;

/** The content of an NLMSG_ERROR. */
export interface Acknowledgement {
  /** 0 = success */
  readonly errno: number;
  /** The kernel's sentence; empty if it gave none. */
  readonly text: string;
  /** Byte offset of the attribute at fault in the request, header included; undefined if the kernel named none. */
  readonly offset: number | undefined;
}

/** A request the kernel refused. */
export class NetlinkError extends Error {
  readonly errno: number;
  /** e.g. `ENOENT` */
  readonly code: string;
  /** What was asked, e.g. `add rule ip kube-proxy services …`. */
  readonly request: string;
  readonly acknowledgement: Acknowledgement;

  constructor(request: string, acknowledgement: Acknowledgement) {
    const [code, words] = describeErrno(acknowledgement.errno);
    const text = acknowledgement.text === '' ? '' : `; the kernel says: ${acknowledgement.text}`;
    const where =
      acknowledgement.offset === undefined ? '' : ` (at byte ${acknowledgement.offset} of the message)`;
    super(`${request}: ${code}: ${words}${text}${where}`);
    this.name = 'NetlinkError';
    this.errno = acknowledgement.errno;
    this.code = code;
    this.request = request;
    this.acknowledgement = acknowledgement;
  }
}

/** Errnos that callers decide on. */
export const EPERM = 1;
export const ENOENT = 2;
export const EINTR = 4;
export const EAGAIN = 11;
export const EBUSY = 16;
export const EEXIST = 17;
export const EINVAL = 22;
export const ERANGE = 34;
export const ERESTART = 85;
export const EOPNOTSUPP = 95;
export const EADDRNOTAVAIL = 99;
export const ENOBUFS = 105;

/** True for a refusal with one of these errnos. */
export function isRefusal(error: unknown, ...errnos: readonly number[]): error is NetlinkError {
  return error instanceof NetlinkError && errnos.includes(error.errno);
}

/** Decodes an NLMSG_ERROR, or the errno that an NLMSG_DONE carries. */
export function readAcknowledgement(message: Message): Acknowledgement {
  const { bytes, start, end } = message;
  const errno = end - start >= 4 ? -(get32(bytes, start) | 0) : 0;
  if ((message.flags & NLM_F_ACK_TLVS) === 0) return { errno, text: '', offset: undefined };
  // struct nlmsgerr: the error, the request's header and, unless capped, its payload (for NLMSG_DONE: the error alone).
  let at = start + 4;
  if (message.type === 2) {
    const requestLength = at + 4 <= end ? get32(bytes, at) : 0;
    at +=
      (message.flags & NLM_F_CAPPED) !== 0
        ? HEADER_LENGTH
        : (Math.max(requestLength, HEADER_LENGTH) + 3) & ~3;
  }
  let text = '';
  let offset: number | undefined;
  const reader = new AttributeReader(bytes, at, end);
  while (reader.next()) {
    if (reader.type === NLMSGERR_ATTR_MSG) text = reader.string();
    else if (reader.type === NLMSGERR_ATTR_OFFS) offset = reader.hostU32();
  }
  return { errno, text, offset };
}
