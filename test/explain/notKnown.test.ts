/** What nobody here can tell is never guessed: rules that cannot be interpreted, and rules of others. */
import assert from 'node:assert/strict';
import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { runExplain } from '../../src/explain/cli.ts';
import type { Explanation } from '../../src/explain/explanation.ts';
import { makeOwnedDirectory } from '../../src/lab/net/ownedDirectory.ts';

/** A Service with one endpoint, among rules of others. */
function dumpWith({ mangle = '', filter = '', postrouting = '' }): string {
  return `*mangle
:PREROUTING ACCEPT [0:0]
${mangle}COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:KUBE-SERVICES - [0:0]
:KUBE-SVC-A - [0:0]
:KUBE-SEP-A - [0:0]
:FLANNEL-POSTRTG - [0:0]
-A PREROUTING -j KUBE-SERVICES
-A KUBE-SERVICES -d 10.96.0.20/32 -p tcp -m tcp --dport 80 -j KUBE-SVC-A
-A KUBE-SVC-A -j KUBE-SEP-A
-A KUBE-SEP-A -p tcp -m tcp -j DNAT --to-destination 10.244.0.5:8080
${postrouting}COMMIT
*filter
:FORWARD ACCEPT [0:0]
:ufw-before-forward - [0:0]
-A FORWARD -j ufw-before-forward
${filter}COMMIT
`;
}

async function explain(dump: string): Promise<{ status: number; told: Explanation; text: string }> {
  const folder = makeOwnedDirectory('explain');
  try {
    const file = join(folder, 'rules.txt');
    writeFileSync(file, dump);
    const question = ['--dump', file, '--from', '10.244.3.4', '--to', '10.96.0.20:80'];
    const said = async (args: readonly string[]): Promise<{ status: number; out: string }> => {
      let out = '';
      const io = {
        out: (text: string) => (out += text),
        err: (text: string) => (out += text),
        colour: false,
      };
      return { status: await runExplain(args, io), out };
    };
    const { status, out } = await said([...question, '--json']);
    const { out: text } = await said(question);
    return { status, told: JSON.parse(out) as Explanation, text };
  } finally {
    rmSync(folder, { recursive: true });
  }
}

void test('a match that cannot be interpreted decides nothing: both ends are told', async () => {
  const { status, told, text } = await explain(
    dumpWith({ mangle: '-A PREROUTING -m bpf --bytecode "1,6 0 0 0" -j DROP\n' }),
  );
  assert.equal(
    told.answer,
    "That depends on what cannot be told from here. Unless -m bpf --bytecode 1,6 0 0 0 matches: It reaches 10.244.0.5:8080. The endpoint sees the client's own address, 10.244.3.4. Otherwise: it is dropped.",
  );
  assert.equal(status, 1, 'it may not arrive');
  assert.deepEqual(
    told.findings.filter(({ severity }) => severity === 'cause'),
    [],
  );
  assert.deepEqual(
    told.otherwise.map(({ assumptions, outcomes }) => [assumptions, outcomes.map(({ kind }) => kind)]),
    [[['if -m bpf --bytecode 1,6 0 0 0 matches'], ['drop']]],
  );
  assert.match(text, /If -m bpf --bytecode 1,6 0 0 0 matches:\n +100 % {2}drop/);
});

void test('what changes no end is no condition of the answer', async () => {
  const { status, told } = await explain(
    dumpWith({
      mangle:
        '-A PREROUTING -i cali+ -j MARK --set-xmark 0x40000/0x40000\n-A PREROUTING -m time --timestart 08:00 -j ACCEPT\n',
    }),
  );
  assert.match(told.answer, /^It reaches 10\.244\.0\.5:8080\. /);
  assert.equal(status, 0);
  assert.deepEqual(told.otherwise, []);
});

void test('of several questions, those are named that decide by themselves', async () => {
  const { told } = await explain(
    dumpWith({
      mangle: '-A PREROUTING -i cali+ -j MARK --set-xmark 0x40000/0x40000\n',
      filter: '-A ufw-before-forward -m string --string x --algo bm -j DROP\n',
    }),
  );
  assert.match(
    told.answer,
    /^That depends on what cannot be told from here\. Unless -m string \S+ x \S+ bm matches: It reaches/,
  );
});

void test('a rule that other programs decide about: nothing is said about connection tracking either', async () => {
  const { told } = await explain(dumpWith({ filter: '-A ufw-before-forward -j NFQUEUE --queue-num 0\n' }));
  assert.equal(told.outcomes[0]?.kind, 'unknown');
  assert.deepEqual(told.conntrack, ['Not known: it depends on the rule that cannot be interpreted.']);
});

void test('two questions of one rule are as usual as the less usual of them', async () => {
  const { told } = await explain(
    dumpWith({
      filter: '-A ufw-before-forward -m physdev --physdev-is-bridged -m bpf --bytecode "1,6 0 0 0" -j DROP\n',
    }),
  );
  assert.match(told.answer, /^It reaches 10\.244\.0\.5:8080\. /);
  assert.match(
    told.findings.map(({ message }) => message).join('\n'),
    /^Whether it crosses a bridge of this node and /,
  );
});

void test("what other programs' rules do is never explained by a Service", async () => {
  const { told } = await explain(
    dumpWith({
      mangle: '-A PREROUTING -m comment --comment "cali:abc" -j MARK --set-xmark 0x40000/0x40000\n',
      postrouting:
        '-A POSTROUTING -m comment --comment "flanneld masq" -j FLANNEL-POSTRTG\n-A FLANNEL-POSTRTG -d 10.244.0.0/16 -j MASQUERADE --random-fully\n',
    }),
  );
  assert.equal(
    told.outcomes[0]?.why,
    'rule "-d 10.244.0.0/16 -j MASQUERADE --random-fully" in chain FLANNEL-POSTRTG of flannel does that, not the service proxy',
  );
  const steps = told.way.flatMap((hook) => hook.steps);
  assert.equal(steps.find(({ effectKind }) => effectKind === 'mark')?.cause, 'cali:abc');
  assert.equal(steps.find(({ effectKind }) => effectKind === 'masquerade')?.cause, '');
});
