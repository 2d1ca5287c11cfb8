/** The lab's whole API server, over TLS with a bearer token, in the lab's own process. */
import { startApiServer } from '../apiserver/server.ts';
import { apiAddresses } from '../net/layout.ts';
import type { LabApi } from '../scenario/labApi.ts';
import { serviceBlocks } from '../scenario/world.ts';

export async function startFullApi(options: { readonly controllers: boolean }): Promise<LabApi> {
  const server = await startApiServer({
    hosts: apiAddresses,
    serviceCidrs: serviceBlocks,
    ...(options.controllers ? { controllers: {}, advertise: { addresses: apiAddresses, port: 6443 } } : {}),
  });
  const url = new URL(server.url);
  return {
    access: { url: server.url, ca: server.caPem, token: server.token },
    port: Number(url.port),
    scheme: url.protocol.replace(':', ''),
    close: () => server.close(),
  };
}
