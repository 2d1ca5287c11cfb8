/** What is said of a Service, or a namespace, of which this node proxies nothing. */
import { meant } from '../config/spelling.ts';
import type { DaemonClient, ServiceFilter } from './client.ts';

/** One sentence; with the name that was probably meant, if there is one. */
export async function nothingFound(
  client: Pick<DaemonClient, 'tables'>,
  { namespace = '', service }: ServiceFilter,
): Promise<string> {
  const services = new Set<string>();
  for (const { routes } of await client.tables())
    for (const { port } of routes.values()) services.add(`${port.namespace}/${port.service}`);
  const known = [...services];
  const name = service === undefined ? namespace : `${namespace}/${service}`;
  const near =
    service === undefined
      ? (known.find((one) => one.endsWith(`/${name}`)) ??
        meant(
          name,
          known.map((one) => one.split('/')[0] ?? ''),
        ))
      : (known.find((one) => one.endsWith(`/${service}`)) ?? meant(name, known));
  const hint = near === undefined ? '' : `; did you mean ${near}?`;
  return service === undefined
    ? `No service port of namespace ${name} is proxied on this node${hint === '' ? '.' : hint}`
    : `No service port of ${name} is proxied on this node: there is no such Service, or it is headless, ExternalName or skipped${hint === '' ? '.' : hint}`;
}
