/** The API server of a run, whichever kind it is, and the kubeconfig that leads to it. */
import type { ApiAccess } from './apiClient.ts';
import { PlainApi } from './plainApi.ts';

/** The whole one over TLS, or the small plain one that takes anything. */
export type ApiKind = 'full' | 'plain';

export interface LabApi {
  /** From this process. */
  readonly access: ApiAccess;
  /** Port on 127.0.0.1 */
  readonly port: number;
  /** `http` or `https` */
  readonly scheme: string;
  close(): Promise<void>;
}

/** A kubeconfig (JSON, which is YAML) for the API server at `address:port`. */
export function kubeconfig(api: LabApi, address: string, user: string): string {
  const { ca, token } = api.access;
  return JSON.stringify(
    {
      apiVersion: 'v1',
      kind: 'Config',
      'current-context': 'lab',
      contexts: [{ name: 'lab', context: { cluster: 'lab', user } }],
      clusters: [
        {
          name: 'lab',
          cluster: {
            server: `${api.scheme}://${address}`,
            ...(ca === '' ? {} : { 'certificate-authority-data': Buffer.from(ca).toString('base64') }),
          },
        },
      ],
      users: [{ name: user, user: { token } }],
    },
    null,
    2,
  );
}

export async function startPlainApi(): Promise<LabApi> {
  const api = new PlainApi();
  const port = await api.start();
  return {
    access: { url: `http://127.0.0.1:${port}`, ca: '', token: 'lab' },
    port,
    scheme: 'http',
    close: () => {
      api.close();
      return Promise.resolve();
    },
  };
}

export async function startApi(kind: ApiKind): Promise<LabApi> {
  if (kind === 'plain') return startPlainApi();
  const { startFullApi } = await import('../cluster/fullApi.ts');
  return startFullApi({ controllers: false });
}
