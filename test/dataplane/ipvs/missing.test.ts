/** What the mode says when a kernel module is missing: modules are really taken from the guest's kernel. */
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { cleanup } from '../../../src/dataplane/ipvs/cleanup.ts';
import type { DataplaneOptions } from '../../../src/dataplane/dataplane.ts';
import type { ProxyConfig } from '../../../src/config/types.ts';
import { ipvsMode } from '../../../src/proxy/modes/ipvs.ts';
import { loadModules, openIpvs, restoreHint } from '../../../src/dataplane/ipvs/checks.ts';
import { silentLogger } from '../../../src/log/logger.ts';
import { makeRoute } from '../iptables/routes.ts';
import { Driver, sh, whyNoIpvs } from './guest.ts';

const skip = whyNoIpvs();
const timeout = 400_000;
const debian = /on Debian .* linux-image-amd64/;

describe('IPVS mode without its modules', { skip, timeout }, () => {
  // As on a machine whose kernel package has no modules: nothing loads by itself or by modprobe.
  before(() => void sh('mv /lib/modules /lib/modules.away'));
  after(async () => {
    sh('mv /lib/modules.away /lib/modules; modprobe -a -q $(cat /run/vm/modules) || true');
    await cleanup({ log: silentLogger });
  });

  /** What a start and a first sync say. */
  async function complaint(scheduler = ''): Promise<string> {
    await loadModules(silentLogger);
    const driver = new Driver('IPv4', { scheduler });
    try {
      await driver.dataplane.start();
      await driver.to([makeRoute({ name: 'a/b', clusterIP: '10.96.0.1', port: 80 })], true);
      return '';
    } catch (error) {
      return error instanceof Error ? error.message : String(error);
    } finally {
      await driver.dataplane.stop();
    }
  }

  it('the scheduler', async () => {
    sh('rmmod ip_vs_lc');
    const text = await complaint('lc');
    assert.match(text, /no IPVS scheduler "lc": load module ip_vs_lc \("modprobe ip_vs_lc"/);
    assert.match(text, debian);
    // With --init-only, too, which ends before that.
    const config = { ipvs: { scheduler: 'lc' } } as ProxyConfig;
    const options = { family: 'IPv4' } as DataplaneOptions;
    await assert.rejects(
      () => ipvsMode.prepare({ config, options, log: silentLogger }),
      /no IPVS scheduler "lc"/,
    );
  });

  it('a kind of set', async () => {
    sh('rmmod ip_set_hash_ipportnet');
    const text = await complaint();
    assert.match(text, /no sets of type hash:ip,port,net.* load module ip_set_hash_ipportnet/);
    assert.match(text, debian);
  });

  it('dummy devices', async () => {
    // Without the set type the start would end earlier.
    sh('insmod $(find -L /lib/modules.away -name "ip_set_hash_ipportnet.ko*")');
    sh('rmmod dummy');
    const text = await complaint();
    assert.match(text, /cannot make dummy devices.*load module dummy \("modprobe dummy"/);
    assert.match(text, debian);
  });

  it('a match that the rules need', async () => {
    sh('insmod $(find -L /lib/modules.away -name "dummy.ko*")');
    sh('rmmod xt_set');
    const text = await complaint();
    assert.match(text, /needs the iptables matches set, ipvs,.*load the module/s);
    assert.match(text, debian);
  });

  it('the right to ask for sets', () => {
    sh('insmod $(find -L /lib/modules.away -name "xt_set.ko*"); ipset create some hash:ip');
    const said = sh(
      'setpriv --bounding-set=-net_raw iptables -A INPUT -m set --match-set some dst 2>&1 || true',
    );
    assert.match(restoreHint(said), /CAP_NET_RAW/);
    sh('ipset destroy some');
  });

  it('IPVS itself', async () => {
    sh('rmmod xt_ipvs $(lsmod | grep -o "^ip_vs_[a-z]*") ip_vs');
    assert.match(
      await complaint(),
      /the kernel has no IPVS: load module ip_vs \("modprobe ip_vs".*nftables mode/,
    );
    assert.throws(() => openIpvs(), debian);
  });
});
