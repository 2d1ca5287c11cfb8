import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { makeOwnedDirectory } from '../../src/lab/net/ownedDirectory.ts';
import { canonicalRule, splitArguments } from '../../src/linux/iptables/canonical.ts';
import { atLeast, parseVersion } from '../../src/linux/iptables/features.ts';
import { Iptables, IptablesError, linesAround } from '../../src/linux/iptables/iptables.ts';
import { parseSave, printSave, type SavedTable } from '../../src/linux/iptables/save.ts';
import { inNamespace, makeNamespace, removeNamespace } from '../support/namespace.ts';

test('versions and what they can do', () => {
  const nft = parseVersion('iptables v1.8.9 (nf_tables)\n');
  assert.deepEqual(
    [nft.version, nft.backend, nft.wait, nft.restoreWait, nft.randomFully, nft.check],
    ['1.8.9', 'nft', ['-w', '5'], ['-w', '5'], true, true],
  );
  assert.equal(parseVersion('iptables v1.8.9 (legacy)').backend, 'legacy');
  const old = parseVersion('iptables v1.4.21');
  assert.deepEqual([old.backend, old.wait, old.restoreWait, old.randomFully], ['legacy', ['-w'], [], false]);
  assert.deepEqual(parseVersion('iptables v1.4.10').check, false);
  assert.deepEqual(parseVersion('').wait, []);
  assert.ok(atLeast('1.10', '1.9.9'));
  assert.ok(!atLeast('1.6.1', '1.6.2'));
  assert.ok(atLeast('1.6.2', '1.6.2'));
});

const word = fc.stringMatching(/^[A-Za-z0-9][A-Za-z0-9:./_-]{0,20}$/);
const rule = fc.array(
  fc.oneof(
    word,
    word.map((text) => `"a ${text}"`),
    word.map((text) => `--${text}`),
  ),
  { maxLength: 6 },
);
const table: fc.Arbitrary<SavedTable> = fc
  .record({
    table: fc.constantFrom('nat', 'filter', 'mangle', 'raw'),
    chains: fc.uniqueArray(
      fc.record({
        name: word,
        policy: fc.constantFrom('-', 'ACCEPT', 'DROP'),
        rules: fc.array(rule.map((list) => list.join(' '))),
      }),
      { selector: (chain) => chain.name },
    ),
  })
  .map(({ table, chains }) => ({
    table,
    chains: new Map(chains.map((chain) => [chain.name, { ...chain }])),
  }));

test('parse(print(tables)) = tables', () => {
  fc.assert(fc.property(fc.array(table), (tables) => assert.deepEqual(parseSave(printSave(tables)), tables)));
});

test('what iptables-save prints is read, counters and comments passed over', () => {
  const tables = parseSave(
    '# Generated\n*nat\n:PREROUTING ACCEPT [5:300]\n:KUBE-X - [0:0]\n[1:60] -A PREROUTING -m comment --comment "a b" -j KUBE-X\n-A KUBE-X\nCOMMIT\n# Completed\n',
  );
  assert.deepEqual(tables[0]?.chains.get('PREROUTING'), {
    name: 'PREROUTING',
    policy: 'ACCEPT',
    rules: ['-m comment --comment "a b" -j KUBE-X'],
  });
  assert.deepEqual(tables[0]?.chains.get('KUBE-X')?.rules, ['']);
});

test('arguments split as iptables-restore splits them', () => {
  assert.deepEqual(splitArguments('-m comment --comment "it is \\"so\\"" -j X'), [
    '-m',
    'comment',
    '--comment',
    'it is "so"',
    '-j',
    'X',
  ]);
});

test('written and printed forms are one; different rules stay apart', () => {
  const same: [string, string][] = [
    ['-m tcp -p tcp -d 10.0.0.1 --dport 80 -j X', '-d 10.0.0.1/32 -p tcp -m tcp --dport 80 -j X'],
    ['-d fd00::1 -j X', '-d fd00::1/128 -j X'],
    ['-m mark ! --mark 0x00004000/0x00004000 -j RETURN', '-m mark ! --mark 0x4000/0x4000 -j RETURN'],
    ['-j MARK --xor-mark 0x00004000', '-j MARK --set-xmark 0x4000/0x0'],
    ['-j MARK --or-mark 0x00004000', '-j MARK --set-xmark 0x4000/0x4000'],
    ['-j REJECT', '-j REJECT --reject-with icmp-port-unreachable'],
    [
      '-m statistic --mode random --probability 0.3333333333 -j X',
      '-m statistic --mode random --probability 0.33333333349 -j X',
    ],
    [
      '-m recent --name N --rcheck --seconds 10 --reap -j X',
      '-m recent --rcheck --seconds 10 --reap --name N --mask 255.255.255.255 --rsource -j X',
    ],
    ['-m nfacct --nfacct-name c -j X', '-m nfacct --nfacct-name  c -j X'],
    ['-d 10.0.0.0/8 ! -s 10.0.0.1 -j X', '! -s 10.0.0.1/32 -d 10.0.0.0/8 -j X'],
    ['-m comment --comment ns/a -j X', '-m comment --comment "ns/a" -j X'],
  ];
  for (const [written, printed] of same)
    assert.equal(canonicalRule(written), canonicalRule(printed), written);
  const all = same.map(([written]) => canonicalRule(written));
  assert.equal(new Set(all).size, all.length);
  assert.notEqual(
    canonicalRule('-m recent --set --name A -j X'),
    canonicalRule('-m recent --set --name B -j X'),
  );
  assert.notEqual(canonicalRule('-j REJECT'), canonicalRule('-j REJECT --reject-with tcp-reset'));
});

test('a parse error shows the lines around it, other errors do not', () => {
  const text = Array.from({ length: 10 }, (_, i) => `line ${i + 1}`).join('\n');
  assert.match(linesAround(text, 'iptables-restore: line 5 failed\n'), /^\n2: line 2\n.*\n8: line 8$/s);
  assert.equal(linesAround(text, 'iptables-restore v1.8: line 5 failed: why'), '');
  assert.equal(linesAround(text, 'something: else'), '');
});

test('commands have the arguments in their fixed order', async () => {
  const directory = makeOwnedDirectory('iptables');
  try {
    const log = join(directory, 'log');
    for (const name of ['iptables', 'iptables-save', 'iptables-restore']) {
      const file = join(directory, name);
      writeFileSync(
        file,
        `#!/bin/sh\nprintf '%s' "$(basename "$0")" >> ${log}\nfor a in "$@"; do printf '|%s' "$a" >> ${log}; done\necho >> ${log}\n` +
          `case "$1" in --version) echo 'iptables v1.8.9 (legacy)';; esac\ncase "$*" in *'-C '*) exit 1;; *'-N '*) exit 1;; esac\ncat > /dev/null < /dev/null\n`,
      );
      chmodSync(file, 0o755);
    }
    const iptables = await Iptables.open('IPv4', {
      env: { PATH: `${directory}:${process.env['PATH'] ?? ''}` },
    });
    assert.equal(await iptables.ensureChain('nat', 'KUBE-X'), false);
    assert.equal(
      await iptables.ensureRule('nat', 'OUTPUT', ['-m', 'comment', '--comment', 'a b', '-j', 'KUBE-X']),
      true,
    );
    assert.equal(await iptables.chainExists('mangle', 'KUBE-X'), true);
    assert.equal(await iptables.deleteChain('nat', 'KUBE-X'), true);
    await iptables.save('nat', () => undefined);
    await iptables.restore('*nat\nCOMMIT\n');
    await iptables.restore('*nat\nCOMMIT\n', 'nat');
    assert.deepEqual(readFileSync(log, 'utf8').trimEnd().split('\n'), [
      'iptables|--version',
      'iptables|-w|5|-N|KUBE-X|-t|nat',
      'iptables|-w|5|-C|OUTPUT|-t|nat|-m|comment|--comment|a b|-j|KUBE-X',
      'iptables|-w|5|-I|OUTPUT|-t|nat|-m|comment|--comment|a b|-j|KUBE-X',
      'iptables|-w|5|-S|KUBE-X|-t|mangle',
      'iptables|-w|5|-X|KUBE-X|-t|nat',
      'iptables-save|-t|nat',
      'iptables-restore|-w|5|--noflush|--counters',
      'iptables-restore|-w|5|-T|nat|--noflush|--counters',
    ]);
  } finally {
    rmSync(directory, { recursive: true });
  }
});

for (const program of ['iptables-nft', 'iptables-legacy']) {
  test(`${program}: chains and rules in a namespace`, async () => {
    const namespace = makeNamespace();
    const lock = `/tmp/${namespace}.lock`;
    try {
      const iptables = await Iptables.open('IPv4', {
        prefix: ['ip', 'netns', 'exec', namespace],
        env: { XTABLES_LOCKFILE: lock },
        program,
      });
      assert.equal(iptables.features.backend, program === 'iptables-nft' ? 'nft' : 'legacy');
      assert.equal(await iptables.usable(), true);
      assert.equal(await iptables.ensureChain('nat', 'KUBE-X'), true);
      assert.equal(await iptables.ensureChain('nat', 'KUBE-X'), false);
      const args = ['-m', 'comment', '--comment', 'two words', '-j', 'KUBE-X'];
      assert.equal(await iptables.ensureRule('nat', 'OUTPUT', args), true);
      assert.equal(await iptables.ensureRule('nat', 'OUTPUT', args), false);
      assert.deepEqual((await iptables.listChain('nat', 'OUTPUT'))?.map(canonicalRule), [
        canonicalRule('-m comment --comment "two words" -j KUBE-X'),
      ]);
      assert.equal(await iptables.listChain('nat', 'KUBE-Y'), undefined);
      assert.equal(await iptables.deleteRule('nat', 'OUTPUT', args), true);
      assert.equal(await iptables.deleteRule('nat', 'OUTPUT', args), false);
      assert.equal(await iptables.deleteRule('nat', 'OUTPUT', ['-j', 'KUBE-NEVER']), false);
      assert.equal(await iptables.deleteChain('nat', 'KUBE-X'), true);
      assert.equal(await iptables.deleteChain('nat', 'KUBE-X'), false);
      await assert.rejects(
        iptables.restore('*nat\n-A KUBE-NOWHERE -j ACCEPT\nCOMMIT\n'),
        (error: unknown) =>
          error instanceof IptablesError && !error.lockHeld && /exit status [1-9]/.test(error.message),
      );
      // Each table commits on its own: the one before the mistake stays.
      await assert.rejects(
        iptables.restore('*filter\n:KUBE-A - [0:0]\nCOMMIT\n*nat\n-A KUBE-B -j ACCEPT\nCOMMIT\n'),
      );
      assert.equal(await iptables.chainExists('filter', 'KUBE-A'), true);
    } finally {
      removeNamespace(namespace);
      rmSync(lock, { force: true });
    }
  });
}

test('a lock held by another process is waited for, and then named', async () => {
  const namespace = makeNamespace();
  const lock = `/tmp/${namespace}.lock`;
  const holders = new Set<ReturnType<typeof spawn>>();
  const hold = async (): Promise<ReturnType<typeof spawn>> => {
    const holder = spawn('flock', ['--no-fork', lock, 'sh', '-c', 'echo held; exec sleep 600']);
    holders.add(holder);
    await once(holder.stdout, 'data');
    return holder;
  };
  try {
    const iptables = await Iptables.open('IPv4', {
      prefix: ['ip', 'netns', 'exec', namespace],
      env: { XTABLES_LOCKFILE: lock },
      program: 'iptables-legacy',
    });
    const holder = await hold();
    let done = false;
    const restored = iptables.restore('*nat\n:KUBE-X - [0:0]\nCOMMIT\n').then(() => (done = true));
    await new Promise((resolve) => setTimeout(resolve, 500));
    assert.equal(done, false);
    holder.kill();
    await restored;
    assert.match(inNamespace(namespace, ['iptables-legacy-save', '-t', 'nat']), /:KUBE-X/);
    await hold();
    await assert.rejects(
      iptables.restore('*nat\n:KUBE-Y - [0:0]\nCOMMIT\n'),
      (error: unknown) =>
        error instanceof IptablesError &&
        error.lockHeld &&
        /has held the xtables lock for 5 s/.test(error.message),
    );
  } finally {
    for (const holder of holders) holder.kill();
    removeNamespace(namespace);
    rmSync(lock, { force: true });
  }
});
