/** HTTP_PROXY, HTTPS_PROXY and NO_PROXY, read as Go's net/http reads them. */
import { BlockList, isIP } from 'node:net';

/** The proxy for this server; empty if it is to be reached directly. */
export function proxyFromEnvironment(server: string, env: NodeJS.ProcessEnv): string {
  const url = new URL(server);
  const name = url.protocol === 'https:' ? 'HTTPS_PROXY' : 'HTTP_PROXY';
  const proxy = env[name] ?? env[name.toLowerCase()] ?? '';
  if (proxy === '') return '';
  const host = url.hostname.replace(/^\[|\]$/g, '').toLowerCase();
  const port = url.port === '' ? (url.protocol === 'https:' ? '443' : '80') : url.port;
  if (host === 'localhost' || host === '::1' || host.startsWith('127.')) return '';
  const exceptions = (env['NO_PROXY'] ?? env['no_proxy'] ?? '').split(',');
  if (exceptions.some((exception) => matches(exception.trim().toLowerCase(), host, port))) return '';
  return proxy.includes('://') ? proxy : `http://${proxy}`;
}

/** One word of NO_PROXY: `*`, an address, a CIDR, a domain (its subdomains too), each with an optional port. */
function matches(exception: string, host: string, port: string): boolean {
  if (exception === '') return false;
  if (exception === '*') return true;
  const [network, bits] = exception.split('/', 2);
  if (network !== undefined && bits !== undefined) return isIP(host) !== 0 && inNetwork(host, network, bits);
  const withPort = /^\[?([^\]]*?)\]?:(\d+)$/.exec(exception);
  const wanted = withPort !== null && isIP(exception) === 0 ? (withPort[1] ?? '') : exception;
  if (withPort !== null && isIP(exception) === 0 && withPort[2] !== port) return false;
  if (isIP(host) !== 0 || isIP(wanted) !== 0) return host === wanted;
  const domain = wanted.replace(/^\*?\./, '');
  return host.endsWith(`.${domain}`) || (host === domain && wanted === domain);
}

function inNetwork(host: string, network: string, bits: string): boolean {
  const family = isIP(network);
  const prefix = Number(bits);
  if (family === 0 || family !== isIP(host) || !Number.isInteger(prefix)) return false;
  if (prefix < 0 || prefix > (family === 4 ? 32 : 128)) return false;
  const list = new BlockList();
  list.addSubnet(network, prefix, family === 4 ? 'ipv4' : 'ipv6');
  return list.check(host, family === 4 ? 'ipv4' : 'ipv6');
}
