import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { chmodSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import type { AddressInfo, Socket } from 'node:net';
import { createServer as createHttpServer } from 'node:http';
import type { IncomingMessage } from 'node:http';
import type { TLSSocket } from 'node:tls';
import { join } from 'node:path';
import { after, afterEach, before, describe, test } from 'node:test';
import { stringify } from 'yaml';
import { ApiClient } from '../../src/cluster/apiClient.ts';
import { loadConnection } from '../../src/cluster/connection.ts';
import type { Connection, ConnectionOptions } from '../../src/cluster/connection.ts';
import type { ConnectionObservation } from '../../src/cluster/observation.ts';
import { proxyFromEnvironment } from '../../src/cluster/proxyEnvironment.ts';
import { makeOwnedDirectory } from '../../src/lab/net/ownedDirectory.ts';
import { TestAuthority } from './support/certificates.ts';
import { FakeApiServer } from './support/fakeApiServer.ts';
import { RecordingLogger } from './support/harness.ts';

let folder: string;
let authority: TestAuthority;
const open: { close(): Promise<unknown> }[] = [];

before(() => {
  folder = makeOwnedDirectory('connection');
  authority = new TestAuthority();
});
after(() => {
  rmSync(folder, { recursive: true, force: true });
  authority.remove();
});
afterEach(async () => {
  for (const thing of open.splice(0).reverse()) await thing.close();
});

interface Parts {
  readonly cluster: Record<string, unknown>;
  readonly user?: Record<string, unknown>;
}

function write(name: string, content: string): string {
  const path = join(folder, name);
  writeFileSync(path, content);
  return path;
}

function kubeconfig({ cluster, user = {} }: Parts): string {
  const config = {
    apiVersion: 'v1',
    kind: 'Config',
    'current-context': 'here',
    clusters: [{ name: 'c', cluster }],
    users: [{ name: 'u', user }],
    contexts: [{ name: 'here', context: { cluster: 'c', user: 'u' } }],
  };
  return write('kubeconfig.yaml', stringify(config));
}

function base64(text: string): string {
  return Buffer.from(text).toString('base64');
}

async function load(options: Partial<ConnectionOptions>): Promise<Connection> {
  const connection = await loadConnection({ kubeconfig: '', master: '', env: {}, ...options });
  open.push(connection);
  return connection;
}

async function ask(connection: Connection): Promise<unknown> {
  return await new ApiClient({ connection, qps: -1, contentType: 'application/json' }).get('/version');
}

/** A server that answers 401 unless this says yes; hears what was sent. */
async function serve(
  accepts: (request: IncomingMessage) => boolean,
  tls?: ConstructorParameters<typeof FakeApiServer>[0],
): Promise<FakeApiServer> {
  const server = new FakeApiServer(tls);
  open.push(server);
  server.intercept = (request, response) => {
    if (accepts(request)) return false;
    server.status(response, 401, 'Unauthorized');
    return true;
  };
  await server.listen();
  return server;
}

describe('kubeconfig', () => {
  test('token, basic and impersonation become headers', async () => {
    let seen: IncomingMessage['headers'] = {};
    const server = await serve((request) => {
      seen = request.headers;
      return true;
    });
    const cluster = { server: server.url };
    await ask(await load({ kubeconfig: kubeconfig({ cluster, user: { token: 'abc', as: 'somebody' } }) }));
    assert.equal(seen.authorization, 'Bearer abc');
    assert.equal(seen['impersonate-user'], 'somebody');
    await ask(await load({ kubeconfig: kubeconfig({ cluster, user: { username: 'me', password: 'pä' } }) }));
    assert.equal(seen.authorization, `Basic ${base64('me:pä')}`);
    assert.equal(seen['impersonate-user'], undefined);
  });

  test('a rotated token file is read again: after a while, and at once after a 401', async () => {
    let wanted = 'Bearer first';
    const server = await serve((request) => request.headers.authorization === wanted);
    const tokenFile = write('token', 'first\n');
    const path = kubeconfig({
      cluster: { server: server.url },
      user: { tokenFile: 'token', token: 'ignored' },
    });
    const connection = await load({ kubeconfig: path });
    await ask(connection);
    wanted = 'Bearer second';
    writeFileSync(tokenFile, 'second');
    await ask(connection);
    assert.equal(server.requests.length, 3, 'one 401, then the new token');
    const rereading = await load({ kubeconfig: path, timings: { reread: 0 } });
    wanted = 'Bearer third';
    writeFileSync(tokenFile, 'third');
    await ask(rereading);
    assert.equal(server.requests.length, 4, 'no 401 in between');
  });

  test('an unreadable token file later on keeps the last token', async () => {
    const server = await serve((request) => request.headers.authorization === 'Bearer once');
    const tokenFile = write('vanishing', 'once');
    const log = new RecordingLogger();
    const path = kubeconfig({ cluster: { server: server.url }, user: { tokenFile } });
    const connection = await load({ kubeconfig: path, log, timings: { reread: 0 } });
    rmSync(tokenFile);
    await ask(connection);
    assert.ok(log.lines.some((line) => line.startsWith('E Credentials cannot be read again')));
  });

  test('what is wrong is said with file and field', async () => {
    const cluster = { server: 'https://127.0.0.1:1' };
    const cases: [() => string, RegExp][] = [
      [() => join(folder, 'missing.yaml'), /missing\.yaml: cannot be read: ENOENT/],
      [() => write('k', 'a: [b'), /kubeconfig .*k: not valid YAML/],
      [() => write('k', 'current-context: x\n'), /current-context names "x", which is not in contexts\[\]/],
      [() => write('k', 'clusters: [{name: a, cluster: {}}]\n'), /current-context is not set/],
      [() => write('k', 'clusters: {}\ncurrent-context: x'), /clusters must be a list/],
      [
        () => write('k', 'current-context: x\ncontexts: [{name: x, context: {cluster: gone}}]\n'),
        /contexts\[0\]\.context\.cluster names "gone", which is not in clusters\[\]/,
      ],
      [() => kubeconfig({ cluster: {} }), /the current cluster has no server/],
      [() => kubeconfig({ cluster: { server: 'ftp://x' } }), /"ftp:\/\/x" must begin with https/],
      [
        () => kubeconfig({ cluster: { ...cluster, 'certificate-authority': 'no-such-ca' } }),
        /clusters\[0\]\.cluster\.certificate-authority ".*no-such-ca" cannot be read/,
      ],
      [
        () => kubeconfig({ cluster: { ...cluster, 'certificate-authority-data': base64('hello') } }),
        /certificate-authority-data is not base64 of PEM text/,
      ],
      [
        () =>
          kubeconfig({
            cluster: { ...cluster, 'certificate-authority': 'x', 'insecure-skip-tls-verify': true },
          }),
        /insecure-skip-tls-verify cannot be true where a certificate authority is given/,
      ],
      [() => kubeconfig({ cluster, user: { 'client-certificate': 'x' } }), /users\[0\]\.user needs both/],
      [() => kubeconfig({ cluster, user: { token: 5 } }), /users\[0\]\.user\.token must be text/],
      [() => kubeconfig({ cluster, user: { tokenFile: 'nope' } }), /tokenFile ".*nope" cannot be read/],
      [() => kubeconfig({ cluster, user: { 'auth-provider': {} } }), /auth-provider is no longer supported/],
      [() => kubeconfig({ cluster, user: { exec: { command: 'x' } } }), /users\[0\]\.user\.exec\.apiVersion/],
    ];
    for (const [path, wanted] of cases) await assert.rejects(load({ kubeconfig: path() }), wanted);
  });

  test('master goes before the server of the kubeconfig, and alone brings no credentials', async () => {
    let authorization: string | undefined;
    const server = await serve((request) => {
      ({ authorization } = request.headers);
      return true;
    });
    const path = kubeconfig({ cluster: { server: 'http://192.0.2.1' }, user: { token: 'abc' } });
    await ask(await load({ kubeconfig: path, master: server.url }));
    assert.equal(authorization, 'Bearer abc');
    await ask(await load({ master: server.url.replace('http://', '') }));
    assert.equal(authorization, undefined);
  });

  test('a path in front of the API is kept', async () => {
    const server = await serve(() => true);
    server.intercept = (_request, response, url) => {
      server.json(response, 200, { path: url.pathname });
      return true;
    };
    const connection = await load({
      kubeconfig: kubeconfig({ cluster: { server: `${server.url}/k8s/clusters/c1/` } }),
    });
    assert.deepEqual(await ask(connection), { path: '/k8s/clusters/c1/version' });
  });
});

/** Without what is observed of every connection. */
function ofPlugin(observed: readonly ConnectionObservation[]): ConnectionObservation[] {
  return observed.filter(({ kind }) => !kind.startsWith('transport'));
}

describe('what is observed of connections', () => {
  test('looking up a name, making connections and using them again; of an address nothing is looked up', async () => {
    const server = await serve(() => true);
    for (const [url, names] of [
      [server.url.replace('127.0.0.1', 'localhost'), ['localhost']],
      [server.url.replace('localhost', '127.0.0.1'), []],
    ] as const) {
      const observed: ConnectionObservation[] = [];
      const connection = await load({ master: url, observe: (one) => observed.push(one) });
      await ask(connection);
      await ask(connection);
      assert.deepEqual(
        [...new Set(observed.flatMap((one) => (one.kind === 'resolved' ? [one.host] : [])))],
        names,
      );
      assert.deepEqual(
        observed.filter(({ kind }) => kind.startsWith('transport')),
        [
          { kind: 'transport', result: 'miss' },
          { kind: 'transports', kept: 1 },
          { kind: 'transport', result: 'hit' },
        ],
      );
      await connection.close();
      assert.deepEqual(observed.at(-1), { kind: 'transports', kept: 0 });
    }
  });

  test('the authority, read again: unchanged, updated, unusable, gone', async () => {
    const ca = write('reloaded.pem', authority.ca);
    const observed: ConnectionObservation[] = [];
    const connection = await load({
      kubeconfig: kubeconfig({
        cluster: { server: 'https://192.0.2.1', 'certificate-authority': ca },
        user: { token: 't' },
      }),
      timings: { reread: 0 },
      observe: (one) => observed.push(one),
    });
    await connection.headers();
    for (const text of [`${authority.ca}\n`, '', 'no certificate']) {
      write('reloaded.pem', text);
      await connection.headers();
    }
    rmSync(ca);
    await connection.headers();
    assert.deepEqual(
      observed.flatMap((one) => (one.kind === 'authority' ? [`${one.result} ${one.reason}`] : [])),
      [
        'success unchanged',
        'success updated',
        'failure empty',
        'failure ca_parse_error',
        'failure read_error',
      ],
    );
  });
});

describe('in-cluster', () => {
  const account = '/var/run/secrets/kubernetes.io/serviceaccount';
  const env = { KUBERNETES_SERVICE_HOST: 'fd00::1', KUBERNETES_SERVICE_PORT: '443' };
  const files = (content: Record<string, string>) => (path: string) => {
    const text = content[path];
    if (text === undefined) throw new Error(`ENOENT: ${path}`);
    return text;
  };

  test('server from the environment, token and CA from the service account', async () => {
    const readFile = files({ [`${account}/token`]: 'T\n', [`${account}/ca.crt`]: authority.ca });
    const connection = await load({ env, readFile });
    assert.equal(connection.access.server, 'https://[fd00::1]');
    assert.deepEqual(await connection.headers(), { authorization: 'Bearer T' });
  });

  test('no environment or no token is an error; no CA is only logged', async () => {
    await assert.rejects(load({}), /KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT must be set/);
    await assert.rejects(load({ env, readFile: files({}) }), /token .* cannot be read/);
    const log = new RecordingLogger();
    await load({ env, log, readFile: files({ [`${account}/token`]: 'T' }) });
    assert.ok(log.lines.some((line) => line.startsWith('E The cluster CA cannot be read')));
  });

  test('an empty kubeconfig falls back to it', async () => {
    const path = write('empty.yaml', 'apiVersion: v1\nkind: Config\n');
    const readFile = files({ [`${account}/token`]: 'T', [path]: 'apiVersion: v1\nkind: Config\n' });
    const connection = await load({ kubeconfig: path, env, readFile });
    assert.equal(connection.access.origin, 'in-cluster');
    await assert.rejects(load({ kubeconfig: path }), /holds no cluster, and in-cluster configuration/);
  });
});

describe('TLS', () => {
  test('client certificates, inline and from files that are renewed', async () => {
    const server = authority.issue('server', 'IP:127.0.0.1');
    const names: string[] = [];
    const fake = await serve(
      (request) => {
        names.push(String((request.socket as TLSSocket).getPeerCertificate().subject.CN));
        return true;
      },
      { tls: { ...server, ca: authority.ca, requestCert: true, rejectUnauthorized: true } },
    );
    const cluster = { server: fake.url, 'certificate-authority-data': base64(authority.ca) };
    const one = authority.issue('one', '');
    const inline = { 'client-certificate-data': base64(one.cert), 'client-key-data': base64(one.key) };
    await ask(await load({ kubeconfig: kubeconfig({ cluster, user: inline }) }));
    write('client.crt', one.cert);
    write('client.key', one.key);
    const user = { 'client-certificate': 'client.crt', 'client-key': 'client.key' };
    const connection = await load({ kubeconfig: kubeconfig({ cluster, user }), timings: { reread: 0 } });
    await ask(connection);
    const two = authority.issue('two', '');
    write('client.crt', two.cert);
    write('client.key', two.key);
    await ask(connection);
    assert.deepEqual(names, ['one', 'one', 'two']);
  });

  test('a server that is not trusted is refused, with what to look at', async () => {
    const fake = await serve(() => true, { tls: authority.issue('server', 'IP:127.0.0.1') });
    const path = kubeconfig({ cluster: { server: fake.url } });
    await assert.rejects(
      ask(await load({ kubeconfig: path })),
      /certificate is not signed by a trusted authority .*check the certificate authority of .*kubeconfig\.yaml/,
    );
    const insecure = kubeconfig({ cluster: { server: fake.url, 'insecure-skip-tls-verify': true } });
    assert.deepEqual(await ask(await load({ kubeconfig: insecure })), { gitVersion: 'v1.36.2' });
  });

  test('tls-server-name is the name that is checked', async () => {
    const fake = await serve(() => true, { tls: authority.issue('server', 'DNS:kubernetes.example') });
    const cluster = { server: fake.url, 'certificate-authority-data': base64(authority.ca) };
    await assert.rejects(
      ask(await load({ kubeconfig: kubeconfig({ cluster }) })),
      /certificate is for other names/,
    );
    const named = { ...cluster, 'tls-server-name': 'kubernetes.example' };
    assert.deepEqual(await ask(await load({ kubeconfig: kubeconfig({ cluster: named }) })), {
      gitVersion: 'v1.36.2',
    });
  });
});

describe('exec plugins', () => {
  const apiVersion = 'client.authentication.k8s.io/v1';

  /** A plugin that counts its runs in a file and prints what `status` says. */
  function plugin(status: string): string {
    const path = write('plugin.sh', `#!/bin/sh\necho run >> ${join(folder, 'runs')}\n${status}\n`);
    chmodSync(path, 0o755);
    write('runs', '');
    return path;
  }

  function runs(): number {
    return readFileSync(join(folder, 'runs'), 'utf8').split('\n').length - 1;
  }

  function credential(status: Record<string, string>): string {
    return `echo '${JSON.stringify({ apiVersion, kind: 'ExecCredential', status })}'`;
  }

  test('the token is used until it expires, and got anew after a 401', async () => {
    plugin(
      `printf '{"apiVersion":"${apiVersion}","kind":"ExecCredential","status":{"token":"T-%s"}}' "$(wc -l < ${join(folder, 'runs')})"`,
    );
    let wanted = 'Bearer T-1';
    const server = await serve((request) => request.headers.authorization === wanted);
    const exec = { apiVersion, command: './plugin.sh' };
    const connection = await load({
      kubeconfig: kubeconfig({ cluster: { server: server.url }, user: { exec } }),
      env: process.env,
    });
    await ask(connection);
    await ask(connection);
    assert.equal(runs(), 1);
    wanted = 'Bearer T-2';
    await ask(connection);
    assert.equal(runs(), 2);
  });

  test('an expired credential is got anew before it is used', async () => {
    plugin(credential({ token: 'short', expirationTimestamp: '2020-01-01T00:00:00Z' }));
    const server = await serve(() => true);
    const exec = { apiVersion, command: join(folder, 'plugin.sh') };
    const connection = await load({
      kubeconfig: kubeconfig({ cluster: { server: server.url }, user: { exec } }),
      env: process.env,
    });
    await ask(connection);
    assert.equal(runs(), 2);
  });

  test('arguments, environment and cluster are passed on; nothing goes through a shell', async () => {
    plugin(
      `printf '%s|%s|%s|%s' "$#" "$1" "$EXTRA" "$KUBERNETES_EXEC_INFO" > ${join(folder, 'seen')}; ${credential({ token: 't' })}`,
    );
    const exec = {
      apiVersion,
      command: './plugin.sh',
      args: ['$(touch nothing); a b'],
      env: [{ name: 'EXTRA', value: 'yes' }],
      provideClusterInfo: true,
    };
    await load({
      kubeconfig: kubeconfig({ cluster: { server: 'https://192.0.2.7' }, user: { exec } }),
      env: process.env,
    });
    const [count, argument, extra, info] = readFileSync(join(folder, 'seen'), 'utf8').split('|');
    assert.deepEqual([count, argument, extra], ['1', '$(touch nothing); a b', 'yes']);
    assert.deepEqual(JSON.parse(info ?? ''), {
      apiVersion,
      kind: 'ExecCredential',
      spec: { interactive: false, cluster: { server: 'https://192.0.2.7' } },
    });
  });

  test('a plugin may give a client certificate', async () => {
    const names: string[] = [];
    const fake = await serve(
      (request) => {
        names.push(String((request.socket as TLSSocket).getPeerCertificate().subject.CN));
        return true;
      },
      {
        tls: {
          ...authority.issue('server', 'IP:127.0.0.1'),
          ca: authority.ca,
          requestCert: true,
          rejectUnauthorized: true,
        },
      },
    );
    const { cert, key } = authority.issue('by-plugin', '');
    write(
      'credential.json',
      JSON.stringify({
        apiVersion,
        kind: 'ExecCredential',
        status: { clientCertificateData: cert, clientKeyData: key },
      }),
    );
    plugin(`cat ${join(folder, 'credential.json')}`);
    const cluster = { server: fake.url, 'certificate-authority-data': base64(authority.ca) };
    const exec = { apiVersion, command: './plugin.sh' };
    const observed: ConnectionObservation[] = [];
    await ask(
      await load({
        kubeconfig: kubeconfig({ cluster, user: { exec } }),
        env: process.env,
        observe: (observation) => observed.push(observation),
      }),
    );
    assert.deepEqual(names, ['by-plugin']);
    const expires = Date.parse(new X509Certificate(cert).validTo);
    assert.deepEqual(ofPlugin(observed), [
      { kind: 'called', status: 'no_error', exitCode: 0 },
      { kind: 'certificate', expires, replacedAge: undefined },
    ]);
  });

  test('what goes wrong is said with the field and the words of the plugin', async () => {
    const cluster = { server: 'https://192.0.2.7' };
    const observed: ConnectionObservation[] = [];
    const trial = async (exec: Record<string, unknown>): Promise<unknown> =>
      await load({
        kubeconfig: kubeconfig({ cluster, user: { exec: { apiVersion, ...exec } } }),
        env: process.env,
        observe: (observation) => observed.push(observation),
      });
    await assert.rejects(
      trial({ command: 'no-such-plugin-anywhere', installHint: 'Get it from the cellar.' }),
      /users\[0\]\.user\.exec\.command "no-such-plugin-anywhere" is not installed\nGet it from the cellar\./,
    );
    plugin('echo "login first" >&2; exit 3');
    await assert.rejects(trial({ command: './plugin.sh' }), /plugin\.sh" failed: login first/);
    assert.deepEqual(ofPlugin(observed), [
      { kind: 'called', status: 'plugin_not_found_error', exitCode: 1 },
      { kind: 'called', status: 'plugin_execution_error', exitCode: 3 },
    ]);
    plugin('echo hello');
    await assert.rejects(trial({ command: './plugin.sh' }), /printed no JSON/);
    plugin(credential({}));
    await assert.rejects(trial({ command: './plugin.sh' }), /neither a token nor a client certificate/);
  });
});

describe('proxies', () => {
  test('proxy-url: requests go through the tunnel of a proxy', async () => {
    const server = await serve(() => true, { tls: authority.issue('server', 'IP:127.0.0.1') });
    const targets: string[] = [];
    const proxy = createHttpServer();
    const tunnels = new Set<Socket>();
    proxy.on('connect', (request: IncomingMessage, client: Socket) => {
      targets.push(request.url ?? '');
      const { port } = new URL(`http://${request.url}`);
      const upstream = connect(Number(port), '127.0.0.1', () => client.write('HTTP/1.1 200 OK\r\n\r\n'));
      tunnels.add(client).add(upstream);
      upstream.on('error', () => client.destroy()).pipe(client);
      client.on('error', () => upstream.destroy()).pipe(upstream);
    });
    await new Promise<void>((resolve) => proxy.listen(0, '127.0.0.1', resolve));
    open.push({
      close: () =>
        new Promise((resolve) => {
          for (const socket of tunnels) socket.destroy();
          proxy.close(resolve);
        }),
    });
    const cluster = {
      server: server.url,
      'certificate-authority-data': base64(authority.ca),
      'proxy-url': `http://127.0.0.1:${(proxy.address() as AddressInfo).port}`,
    };
    assert.deepEqual(await ask(await load({ kubeconfig: kubeconfig({ cluster }) })), {
      gitVersion: 'v1.36.2',
    });
    assert.deepEqual(targets, [new URL(server.url).host]);
  });

  test('the environment is read as Go reads it', () => {
    const env = { HTTPS_PROXY: 'proxy:3128', NO_PROXY: '10.0.0.0/8, .corp, exact.example,[fd00::9]:6443' };
    const cases: [string, string][] = [
      ['https://api.example:6443', 'http://proxy:3128'],
      ['http://api.example', ''],
      ['https://10.1.2.3', ''],
      ['https://11.1.2.3', 'http://proxy:3128'],
      ['https://api.corp', ''],
      ['https://exact.example', ''],
      ['https://sub.exact.example', ''],
      ['https://notexact.example', 'http://proxy:3128'],
      ['https://[fd00::9]:6443', ''],
      ['https://[fd00::9]:7443', 'http://proxy:3128'],
      ['https://localhost:6443', ''],
      ['https://127.0.0.1', ''],
    ];
    for (const [url, wanted] of cases) assert.equal(proxyFromEnvironment(url, env), wanted, url);
    assert.equal(proxyFromEnvironment('https://x', { HTTPS_PROXY: 'p:1', NO_PROXY: '*' }), '');
  });
});

test('a peer that accepts and says nothing runs into the time-out', async () => {
  const mute = createServer((socket) => open.push({ close: async () => socket.destroy() }));
  await new Promise<void>((resolve) => mute.listen(0, '127.0.0.1', resolve));
  open.push({ close: () => new Promise((resolve) => mute.close(resolve)) });
  const connection = await load({ master: `http://127.0.0.1:${(mute.address() as AddressInfo).port}` });
  const client = new ApiClient({ connection, timings: { headers: 100 } });
  await assert.rejects(client.get('/version'), /the server does not answer \(timed out\)/);
});
