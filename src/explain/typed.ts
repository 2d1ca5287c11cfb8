/** What people type for sender and target, put into the form that `subject.ts` reads; or a sentence why it is none. */
import { UsageError } from '../config/flags.ts';
import { meant } from '../config/spelling.ts';
import { canonicalIP } from '../services/ip.ts';
import { formatPlace } from './packet.ts';
import type { Question } from './subject.ts';

const schemePorts: Readonly<Record<string, number>> = { http: 80, https: 443 };
const senders = ['outside', 'node', 'localhost'] as const;

/** Throws `UsageError`. */
export function readTyped(question: Question): Question {
  const { to, protocol } = readTarget(question.to, question.protocol);
  return { ...question, from: readSender(question.from), to, protocol };
}

/** URLs, names of DNS, `PORT/tcp`, what the kubelet tells Pods of a Service (`tcp://10.96.0.10:80`). */
function readTarget(typed: string, protocol: string): Pick<Question, 'to' | 'protocol'> {
  const url = /^([a-z]+):\/\/([^/]+)(?:\/.*)?$/i.exec(typed);
  let to = typed;
  if (url !== null) {
    const [, scheme = '', host = ''] = url;
    const hasPort = /:[a-z0-9-]+$/i.test(host);
    if (hasPort && /^(tcp|udp|sctp)$/i.test(scheme)) return readTarget(`${host}/${scheme}`, protocol);
    const port = schemePorts[scheme.toLowerCase()];
    if (port === undefined && !hasPort)
      throw new UsageError(
        `--to: "${typed}": which port is ${scheme}? Write ADDRESS:PORT or NAMESPACE/SERVICE:PORT`,
      );
    to = hasPort ? host : `${host}:${port}`;
  }
  const suffix = /^(.*:[^/]+)\/(tcp|udp|sctp)$/i.exec(to);
  if (suffix !== null) {
    to = suffix[1]!;
    if (protocol === '') return { to: ofDns(to), protocol: suffix[2]! };
    if (protocol.toLowerCase() !== suffix[2]!.toLowerCase())
      throw new UsageError(`--to: "${typed}" says ${suffix[2]}, and --proto says ${protocol}`);
  }
  const address = /^\[?([^\]/]+)\]?[/ ](\d+)$/.exec(to);
  if (address !== null && canonicalIP(address[1]!) !== undefined)
    throw new UsageError(
      `--to: "${typed}": write the port behind a colon: ${formatPlace(address[1]!, Number(address[2]))}`,
    );
  const named = /^\[?([0-9a-fA-F.:]+)\]?:([a-z][a-z0-9-]*)$/.exec(to);
  if (named !== null && canonicalIP(named[1]!) !== undefined)
    throw new UsageError(
      `--to: "${typed}": an address has ports by number only; a port's name is known by its Service: NAMESPACE/SERVICE:${named[2]}`,
    );
  const slashes = /^([a-z0-9-]+)\/([a-z0-9-]+)\/([a-z0-9-]+)$/.exec(to);
  if (slashes !== null && !isKind(slashes[1]!))
    throw new UsageError(
      `--to: "${typed}": the port stands behind a colon: ${slashes[1]}/${slashes[2]}:${slashes[3]}`,
    );
  return { to: ofDns(to), protocol };
}

/** `web.shop.svc.cluster.local:80` is `shop/web:80`. Names of Services and namespaces have no dots. */
function ofDns(text: string): string {
  const match =
    /^([a-z][a-z0-9-]*)\.([a-z0-9-]*[a-z][a-z0-9-]*)(?:\.svc(?:\.[a-z0-9.-]+)?)?\.?(:[^:/]+)?$/.exec(text);
  return match === null ? text : `${match[2]}/${match[1]}${match[3] ?? ''}`;
}

function isKind(word: string): boolean {
  return /^(pods?|po|node|no|nodes|svc|services?|deploy|deployments?)$/i.test(word);
}

function readSender(typed: string): string {
  const word = typed.toLowerCase();
  if (senders.some((one) => one === word)) return word;
  const kind = /^([A-Za-z]+)\/(.*)$/.exec(typed);
  if (kind !== null && /^(pods?|po)$/i.test(kind[1]!)) return `pod/${kind[2]}`;
  if (kind !== null && /^(nodes?|no)$/i.test(kind[1]!)) return `node/${kind[2]}`;
  if (/^(svc|services?)\//i.test(typed))
    throw new UsageError(
      `--from: "${typed}" is a Service, and a Service sends nothing: who dials? pod/NAMESPACE/NAME, an address, node or outside`,
    );
  if (/^(deploy|deployments?|statefulsets?|sts|daemonsets?|ds|replicasets?|rs|jobs?)\/.*\//i.test(typed))
    throw new UsageError(
      `--from: "${typed}": its Pods send, each for itself: name one, pod/NAMESPACE/NAME (the beginning of its name is enough if only one has it)`,
    );
  if (typed.includes('://'))
    throw new UsageError(`--from: "${typed}" is a URL; write the address of the client alone`);
  const withPort = /^\[?([^\]]+?)\]?:(\d+)$/.exec(typed);
  if (withPort !== null && canonicalIP(typed) === undefined && canonicalIP(withPort[1]!) !== undefined)
    throw new UsageError(
      `--from: "${typed}": the client's port has a flag of its own: --from ${withPort[1]} --sport ${withPort[2]}`,
    );
  const network = /^([^/]+)\/\d+$/.exec(typed);
  if (network !== null && canonicalIP(network[1]!) !== undefined)
    throw new UsageError(`--from: "${typed}" is a network; give one address of it`);
  if (/^[\d.]+$/.test(typed) && canonicalIP(typed) === undefined && typed.includes('.'))
    throw new UsageError(`--from: "${typed}" is no IP address`);
  return typed;
}

/** A word for a sender that was probably meant. */
export function nearSender(typed: string): string | undefined {
  return meant(typed, senders);
}
