/** The guest: each engine boots, runs a command over this machine's files, and leaves nothing behind. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, readlinkSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { makeOwnedDirectory } from '../../src/lab/net/ownedDirectory.ts';
import { runInVm, type VmEngine } from '../../src/lab/vm/vm.ts';

const checkout = fileURLToPath(new URL('../..', import.meta.url));
const directory = makeOwnedDirectory('vm-test');
after(() => rmSync(directory, { recursive: true, force: true }));

/** Processes of this machine in which a guest runs. */
function guests(): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .filter((pid) => {
      try {
        return /linux\.uml|qemu-system-x86|virtiofsd/.test(readlinkSync(`/proc/${pid}/exe`));
      } catch {
        return false; // It ended, or is a kernel thread.
      }
    })
    .map(Number);
}

/** Those of them that were started with this word in their environment. */
function ownGuests(mark: string): number[] {
  return guests().filter((pid) => {
    try {
      return readFileSync(`/proc/${pid}/environ`, 'latin1').includes(mark);
    } catch {
      return false; // It ended meanwhile.
    }
  });
}

async function waitUntil(what: string, done: () => boolean, seconds: number): Promise<void> {
  for (const deadline = Date.now() + seconds * 1000; !done(); await sleep(100)) {
    assert.ok(Date.now() < deadline, `${what}: not within ${seconds} s`);
  }
}

const everything = `
set -e
test "$(id -u)" = 0
ip link add kube-ipvs0 type dummy
ipset create set hash:ip,port,net
iptables -t nat -A POSTROUTING -m set --match-set set dst,dst,src -j MASQUERADE --random-fully
test -e /proc/sys/net/ipv4/vs/conntrack
grep -q 'IP Virtual Server' /proc/net/ip_vs
echo "kernel $(uname -r) engine $POINTSMAN_VM word $WORD"
echo gone > "$0/gone"
echo kept > "$0/kept/file"
node -e 'console.error("node " + process.version)'
exit 7
`;

function expectCommand(engine: VmEngine, memory: number): () => Promise<void> {
  return async () => {
    const kept = join(directory, 'kept');
    mkdirSync(kept, { recursive: true });
    const { code, output, said } = await runInVm(['sh', '-c', everything, directory], {
      engine,
      memory,
      timeout: 600,
      writable: [kept],
      env: { ...process.env, WORD: 'a "b" $c\nd' },
    });
    assert.equal(code, 7, output + said);
    assert.match(output, new RegExp(`kernel \\d+\\.\\d+\\S* engine ${engine} word a "b" \\$c\\nd\\n`));
    assert.match(output, new RegExp(`node ${process.version}`));
    assert.equal(existsSync(join(directory, 'gone')), false, 'what the guest writes is gone');
    assert.equal(readFileSync(join(kept, 'file'), 'utf8'), 'kept\n');
    rmSync(kept, { recursive: true });
  };
}

test('user-mode Linux boots and has all that IPVS mode needs', expectCommand('uml', 512));

test('QEMU boots the cloud kernel, which has it too', expectCommand('tcg', 512));

test('a command that takes too long: 124, and nothing stays', async () => {
  const env = { ...process.env, VM_TEST_MARK: `late-${process.pid}` };
  const { code, said } = await runInVm(['sleep', '600'], { timeout: 1, memory: 512, engine: 'uml', env });
  assert.equal(code, 124, said);
  assert.match(said, /not done after 1 s/);
  await waitUntil('the guest ends', () => ownGuests(`late-${process.pid}`).length === 0, 60);
});

test('an engine that is not up in time: 125, with a sentence', async () => {
  const env = { ...process.env, VM_BOOT_LIMIT: '0' };
  const { code, said } = await runInVm(['true'], { engine: 'uml', memory: 512, env });
  assert.equal(code, 125, said);
  assert.match(said, /uml was not up after 0 s/);
});

for (const signal of ['SIGTERM', 'SIGKILL'] as const) {
  test(`${signal} to the runner ends the guest and leaves nothing behind`, async () => {
    const mark = `${signal}-${process.pid}`;
    const child = spawn(
      `${checkout}/scripts/vm-run.sh`,
      ['--engine', 'uml', '--memory', '512', 'sleep', '600'],
      {
        env: { ...process.env, VM_TEST_MARK: mark },
        stdio: 'ignore',
      },
    );
    const ended = new Promise((resolve) => child.once('close', resolve));
    await waitUntil('the guest starts', () => ownGuests(mark).length > 1, 300);
    child.kill(signal);
    await ended;
    await waitUntil('the guest ends', () => ownGuests(mark).length === 0, 60);
    assert.deepEqual(readdirSync(join(checkout, '.cache/vm/run')), []);
    assert.doesNotMatch(readFileSync('/proc/self/mounts', 'utf8'), /\.cache\/vm/);
  });
}
