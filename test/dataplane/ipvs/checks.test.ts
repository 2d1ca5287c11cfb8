/** Kernel settings and time-outs of the mode, on a file tree and an IPVS of the test's own; runs on any kernel. */
import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, it } from 'node:test';
import { applySysctls, applyTimeouts, restoreHint } from '../../../src/dataplane/ipvs/checks.ts';
import { makeOwnedDirectory } from '../../../src/lab/net/ownedDirectory.ts';
import type { Ipvs } from '../../../src/linux/netlink/ipvs/ipvs.ts';
import type { Timeouts } from '../../../src/linux/netlink/ipvs/objects.ts';
import { silentLogger, type Logger } from '../../../src/log/logger.ts';

const names = [
  'net/ipv4/vs/conntrack',
  'net/ipv4/vs/conn_reuse_mode',
  'net/ipv4/vs/expire_nodest_conn',
  'net/ipv4/vs/expire_quiescent_template',
  'net/ipv4/ip_forward',
  'net/ipv4/conf/all/arp_ignore',
  'net/ipv4/conf/all/arp_announce',
] as const;

describe('sysctls', () => {
  /** Values after a start, of settings that were all 9 before. */
  function after(family: 'IPv4' | 'IPv6', strictARP: boolean, kernel: string, log = silentLogger): string {
    const root = makeOwnedDirectory('sysctl');
    try {
      for (const name of names) {
        const file = join(root, 'proc/sys', name);
        mkdirSync(dirname(file), { recursive: true });
        writeFileSync(file, '9\n');
      }
      applySysctls(family, strictARP, kernel, { log, root });
      return names.map((name) => readFileSync(join(root, 'proc/sys', name), 'utf8').trim()).join(' ');
    } finally {
      rmSync(root, { recursive: true });
    }
  }

  it('by kernel, family and strictARP', () => {
    assert.equal(after('IPv4', false, '6.1.0'), '1 9 1 1 1 9 9');
    assert.equal(after('IPv4', false, '5.9.0'), '1 9 1 1 1 9 9');
    assert.equal(after('IPv4', false, '5.8.18'), '1 0 1 1 1 9 9');
    assert.equal(after('IPv4', false, '4.1.0'), '1 0 1 1 1 9 9');
    assert.equal(after('IPv4', true, '6.1.0'), '1 9 1 1 1 1 2');
    assert.equal(after('IPv6', true, '6.1.0'), '1 9 1 1 9 1 2');
  });

  it('a kernel before 4.1 gets an error line, and is not refused', () => {
    const said: string[] = [];
    const log: Logger = { ...silentLogger, error: (text) => void said.push(text) };
    assert.equal(after('IPv4', false, '4.0.9', log), '1 9 1 1 1 9 9');
    assert.equal(said.length, 1);
  });

  it('a setting that cannot be written ends the start', () => {
    assert.throws(
      () => applySysctls('IPv4', false, '6.1.0', { log: silentLogger, root: '/nonexistent' }),
      /net\/ipv4\/vs\/conntrack/,
    );
  });
});

describe('time-outs', () => {
  function sent(tcpTimeout: number, tcpFinTimeout: number, udpTimeout: number): Timeouts | undefined {
    let timeouts: Timeouts | undefined;
    const ipvs = { setTimeouts: (given: Timeouts) => void (timeouts = given) } as Ipvs;
    applyTimeouts(ipvs, { tcpTimeout, tcpFinTimeout, udpTimeout }, silentLogger);
    return timeouts;
  }

  it('all three in whole seconds, 0 to keep; none at all if none is set', () => {
    assert.equal(sent(0, 0, 0), undefined);
    assert.deepEqual(sent(900_000, 0, 0), { tcp: 900, tcpFin: 0, udp: 0 });
    assert.deepEqual(sent(0, 500, 1999), { tcp: 0, tcpFin: 0, udp: 1 });
  });

  it('a failure is logged, and no more', () => {
    const said: string[] = [];
    const log: Logger = { ...silentLogger, error: (text) => void said.push(text) };
    const ipvs = {
      setTimeouts: (): void => {
        throw new Error('no');
      },
    } as unknown as Ipvs;
    applyTimeouts(ipvs, { tcpTimeout: 1000, tcpFinTimeout: 0, udpTimeout: 0 }, log);
    assert.equal(said.length, 1);
  });
});

it('what iptables says about missing rights and missing modules leads to the right advice', () => {
  assert.match(restoreHint("iptables-restore v1.8.9 (legacy): Can't open socket to ipset."), /CAP_NET_RAW/);
  assert.match(restoreHint('iptables-restore: line 7 failed'), /xt_set.*linux-image-amd64/);
});
