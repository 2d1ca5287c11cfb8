/** The frontends that this proxy serves: an endpoint at the address of one would lead a connection back into it. */
import type { Protocol } from '../../api/objects.ts';
import { formatAddressPort } from '../../services/ip.ts';
import type { Endpoint, Frontend, Route } from '../../services/types.ts';

export class FrontendIndex {
  readonly #count = new Map<string, number>();
  readonly #nodeIP: string;

  /** @param nodeIP the address of this node on which node ports answer */
  constructor(nodeIP: string) {
    this.#nodeIP = nodeIP;
  }

  replace(before: Route | undefined, after: Route | undefined): void {
    if (before?.frontends === after?.frontends) return;
    for (const frontend of after?.frontends ?? []) this.#add(frontend, 1);
    for (const frontend of before?.frontends ?? []) this.#add(frontend, -1);
  }

  /** A connection to the endpoint would come back to us. */
  has(endpoint: Pick<Endpoint, 'ip' | 'port' | 'key'>, protocol: Protocol): boolean {
    if (this.#count.has(`${protocol} ${endpoint.key}`)) return true;
    return endpoint.ip === this.#nodeIP && this.#count.has(`${protocol} ${endpoint.port}`);
  }

  #add({ kind, ip, port, protocol }: Frontend, by: 1 | -1): void {
    const key = kind === 'nodePort' ? `${protocol} ${port}` : `${protocol} ${formatAddressPort(ip, port)}`;
    const count = (this.#count.get(key) ?? 0) + by;
    if (count === 0) this.#count.delete(key);
    else this.#count.set(key, count);
  }
}
