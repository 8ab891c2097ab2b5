/**
 * Real processes: what a wallet sends, stakes and takes back at one node is final on all, with one state root; and nodes
 * that come when the ledger is many epochs old take a snapshot from peers, with the manifest alone or from a checkpoint.
 */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { runNeuroshard } from '../../bench/support/run-neuroshard.ts';
import { type ChildSpec, freePorts } from '../../src/cli/child-nodes.ts';
import { defaultLedger } from '../../src/peer/policy.ts';
import { programFile } from '../../src/platform/nodejs/installation.ts';
import { createHarness } from './cluster-harness.ts';

const innerSteps = 4;
const recipient = 'ab'.repeat(32);

interface AccountView {
  readonly balance: string;
  readonly stake: string;
  readonly unbonding: readonly { readonly amount: string }[];
}

interface HeadView {
  readonly blocks: readonly { readonly number: number; readonly epoch: number; readonly stateRoot: string }[];
}

async function get<Document>(port: number, path: string): Promise<Document | undefined> {
  const answer = await fetch(`http://127.0.0.1:${port}/api/${path}`).catch(() => undefined);
  return answer?.ok ? ((await answer.json()) as Document) : undefined;
}

const accountAt = (port: number, id: string) => get<AccountView>(port, `ledger/accounts/${id}`);
const blocksAt = async (port: number) => (await get<HeadView>(port, 'ledger/blocks?limit=50'))?.blocks ?? [];

async function until(what: string, holds: () => Promise<boolean>): Promise<void> {
  for (let tries = 0; tries < 600; tries++) {
    if (await holds()) return;
    await pause(100);
  }
  assert.fail(`never: ${what}`);
}

/** The same command line with another value for some options; `--no-api` gives way to a port. */
function withOptions(spec: ChildSpec, name: string, changes: Readonly<Record<string, string>>): ChildSpec {
  const given = spec.args.filter((arg) => arg !== '--no-api');
  const args = given.map((arg, i) => changes[given[i - 1]!] ?? arg);
  const more = Object.entries(changes).filter(([option]) => !given.includes(option));
  return { ...spec, name, args: [...args, ...more.flat()] };
}

test('what a wallet does at one node is final on all, and newcomers take a snapshot of it', async () => {
  const harness = await createHarness({
    nodes: 3,
    innerSteps,
    ledger: {
      ...defaultLedger(innerSteps),
      // Nobody audits here, so what is earned can be spent soon; and epochs are short, so that one is soon far behind.
      ...{ rewardPerBatch: 1_000_000, auditsPerBlockMax: 0, bondProofs: 0, epochBlocks: 4 },
      auditRates: [{ below: Number.MAX_SAFE_INTEGER, rate: 1000 }],
    },
  });
  const ports = await freePorts(5);
  const members = ports.slice(0, 3);
  const first = harness.cluster.nodes[0]!;
  const wallet = (...args: string[]) =>
    runNeuroshard<{ final: boolean; block: number }>([
      ...['wallet', ...args, '--key', join(first.directory, 'node.key')],
      ...['--node', `http://127.0.0.1:${ports[0]}`],
    ]);
  const onAll = (what: string, id: string, holds: (account: AccountView) => boolean) =>
    until(what, async () => {
      const accounts = await Promise.all(members.map((port) => accountAt(port, id)));
      return accounts.every((account) => account !== undefined && holds(account));
    });
  const sameRoot = (one: number, other: number) =>
    until(`one root at ports ${one} and ${other}`, async () => {
      const [ours, theirs] = [await blocksAt(one), await blocksAt(other)];
      const common = ours.filter(({ number }) => theirs.some((block) => block.number === number));
      for (const { number, stateRoot } of common)
        assert.equal(theirs.find((block) => block.number === number)!.stateRoot, stateRoot);
      return common.length > 0;
    });
  const newcomer = async (name: string, port: number, more: Readonly<Record<string, string>> = {}) => {
    const spec = withOptions({ ...first.spec, program: programFile('src/cli/main') }, name, {
      '--data': join(first.directory, '..', name),
      '--listen': '/ip4/127.0.0.1/tcp/0',
      '--port': String(port),
      ...more,
    });
    harness.startSpec(spec);
    await sameRoot(ports[0]!, port);
    const oldest = Math.min(...(await blocksAt(port)).map(({ number }) => number));
    assert.ok(oldest > 1, `${name} has block ${oldest}: it was not behind`);
    assert.equal((await accountAt(port, recipient))?.balance, '250000');
  };
  try {
    for (const [index, { spec }] of harness.cluster.nodes.entries())
      harness.startSpec(withOptions(spec, spec.name, { '--port': String(ports[index]) }));
    await onAll('node 1 has earned', first.nodeId, ({ balance }) => Number(balance) > 2_000_000);
    assert.equal((await wallet('send', recipient, '0.25')).final, true);
    await onAll('the transfer', recipient, ({ balance }) => balance === '250000');
    assert.equal((await wallet('stake', '1')).final, true);
    await onAll('the stake', first.nodeId, ({ stake }) => stake === '1000000');
    assert.equal((await wallet('unstake', '0.4')).final, true);
    await onAll('what is on its way back', first.nodeId, ({ stake, unbonding }) => {
      return stake === '600000' && unbonding.map(({ amount }) => amount).join() === '400000';
    });
    await until('five epochs', async () => ((await blocksAt(ports[0]!))[0]?.epoch ?? 0) >= 5);
    await sameRoot(ports[0]!, ports[1]!);
    await sameRoot(ports[0]!, ports[2]!);
    await newcomer('manifest-only', ports[3]!);
    const { ledger } = (await get<{ ledger: { checkpoint: string } }>(ports[0]!, 'status'))!;
    await newcomer('from-checkpoint', ports[4]!, { '--checkpoint': ledger.checkpoint });
  } finally {
    await harness.close();
  }
});
