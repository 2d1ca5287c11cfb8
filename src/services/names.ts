/** Which names may go into routes, and from there into comments, chain hashes and logs. */

const LABEL = /^[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?$/;
const SUBDOMAIN = /^[a-z0-9](?:[-a-z0-9.]{0,251}[a-z0-9])?$/;
const PRINTABLE = /^[A-Za-z0-9._/:-]*$/;

/** RFC 1123 label: namespaces, port names. */
export function isLabel(name: string): boolean {
  return LABEL.test(name);
}

/** RFC 1123 subdomain, as object names are. */
export function isObjectName(name: string): boolean {
  return SUBDOMAIN.test(name);
}

/** Only characters of names, labels and addresses: harmless in a comment and on a terminal. */
export function isPlain(text: string): boolean {
  return PRINTABLE.test(text);
}

/** 1..65535 */
export function isPort(port: number): boolean {
  return Number.isInteger(port) && port >= 1 && port <= 65535;
}
