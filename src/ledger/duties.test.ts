import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type LedgerWorld, ledgerWorld, namedKey } from '../../test/ledger-world.ts';
import {
  auditTransactions,
  type Finding,
  findsFalse,
  findsTrue,
  hashOf,
  honestHash,
  keysByNode,
  proverIn,
  settleAll,
} from '../../test/proof-world.ts';
import { applyOne } from './apply.ts';
import { chainOf } from './money.ts';
import { commit } from './state.ts';
import type { Transaction } from './transaction.ts';
import { auditCommit } from './transactions/audit-commit.ts';
import { auditReveal } from './transactions/audit-reveal.ts';
import { verdictCommitment } from './verdict.ts';

function setup(options: Parameters<typeof ledgerWorld>[0] = {}) {
  const world = ledgerWorld(options);
  return { world, prover: proverIn(world, namedKey('prover'), 10) };
}

const codeOf = (world: LedgerWorld, transaction: Transaction) => {
  const done = applyOne(world.state, transaction, world.context());
  return done.ok ? 'accepted' : done.code;
};

/** Stake that was minted for the test. */
function giveStake(world: LedgerWorld, nodeId: string, stake: bigint): void {
  world.endow(nodeId, stake);
  const account = world.state.get('account', nodeId)!;
  const chain = chainOf(world.state);
  const registered = world.state.get('member', nodeId)?.registered;
  commit(world.state, [
    { table: 'account', key: nodeId, row: { ...account, balance: account.balance - stake, stake } },
    { table: 'chain', key: '', row: { ...chain, bonded: chain.bonded + (registered ? stake : 0n) } },
  ]);
}

const slashed = (world: LedgerWorld) =>
  world.state.keys('slash').map((key) => {
    const { node, reason } = world.state.get('slash', key)!;
    return [node, reason];
  });

test('a duty is drawn two blocks later, for two members and an interval', () => {
  const { world, prover } = setup();
  const key = prover.prove();
  world.advance();
  assert.equal(world.state.get('duty', key)!.dueAt, 0);
  world.advance();
  const duty = world.state.get('duty', key)!;
  assert.equal(duty.dueAt, chainOf(world.state).number + world.constants.policy.auditBlocks);
  assert.equal(duty.auditors.length, 2);
  assert.ok(duty.interval >= 0 && duty.interval < 2);
});

test('a claim that two auditors found true stands: a bond, and fees for the two', () => {
  const { world, prover } = setup({ policy: { auditShare: 0 } });
  prover.prove();
  const proposers = new Map(world.founders.map(({ nodeId }) => [nodeId, world.balance(nodeId)]));
  settleAll(world, findsTrue);
  const row = world.state.get('prover', prover.key.nodeId)!;
  assert.equal(row.openDuties, 0);
  assert.equal(row.bond, 225_000n - 10n - 2_000n);
  assert.deepEqual(world.state.keys('duty'), []);
  const paid = world.founders.filter(
    ({ nodeId }) => world.balance(nodeId) === proposers.get(nodeId)! + 1_000n,
  );
  assert.equal(paid.length, 2);
  world.checkSupply();
});

test('a prover never audits itself', () => {
  const { world } = setup();
  const prover = proverIn(world, world.founders[0]!, 10);
  for (let i = 0; i < 6; i++) prover.prove();
  for (let i = 0; i < 4; i++) world.advance();
  for (const key of world.state.keys('duty')) {
    assert.ok(!world.state.get('duty', key)!.auditors.includes(prover.key.nodeId));
  }
  settleAll(world, (auditor, key, duty) =>
    auditor === prover.key.nodeId ? assert.fail() : findsTrue(auditor, key, duty),
  );
  assert.ok(world.state.get('prover', prover.key.nodeId)!.bond > 0n);
});

test('auditors earn what making the interval did, and half of the reward at most', () => {
  for (const [auditShare, steps, fee] of [
    // A quarter of 450,000 less 10: four intervals.
    [1000, 20, 112_497n],
    [500, 20, 56_248n],
    // One interval: half of 112,490 is for the two.
    [1000, 5, 28_122n],
  ] as const) {
    const world = ledgerWorld({ policy: { auditShare } });
    const prover = proverIn(world, namedKey('prover'), steps);
    prover.prove();
    const before = new Map(world.founders.map(({ nodeId }) => [nodeId, world.balance(nodeId)]));
    settleAll(world, findsTrue);
    const gains = world.founders.map(({ nodeId }) => world.balance(nodeId) - before.get(nodeId)!);
    assert.deepEqual(
      gains.filter((gain) => gain > 0n),
      [fee, fee],
    );
    world.checkSupply();
  }
});

test('guilt that a larger committee confirms takes everything, and half goes to who found it', () => {
  const { world, prover } = setup({ policy: { auditShare: 0 } });
  const { nodeId } = prover.key;
  giveStake(world, nodeId, 5_000_000n);
  prover.prove();
  settleAll(world, findsTrue);
  const { bond } = world.state.get('prover', nodeId)!;
  const before = world.founders.map((founder) => world.balance(founder.nodeId));
  const burnedBefore = chainOf(world.state).burned;
  prover.prove();
  settleAll(world, findsFalse);
  assert.deepEqual(slashed(world), [[nodeId, 'false-proof']]);
  const row = world.state.get('prover', nodeId)!;
  assert.ok(row.convicted && row.bond === 0n && row.vesting.length === 0);
  assert.equal(world.state.get('account', nodeId)!.stake, 0n);
  const gains = world.founders.map((founder, i) => world.balance(founder.nodeId) - before[i]!);
  const share = (5_000_000n + bond) / 2n / 4n + 1_000n;
  // One of them proposed the block of the second proof, for 10.
  assert.ok(
    gains.every((gain) => gain === share || gain === share + 10n),
    String(gains),
  );
  // The unpaid reward of the false proof is burned whole: nobody can report itself for it.
  assert.ok(chainOf(world.state).burned - burnedBefore > (5_000_000n + bond) / 2n);
  assert.equal(codeOf(world, prover.transaction(prover.claim())), 'prover-convicted');
  world.checkSupply();
});

test('withheld evidence is guilt once a larger committee confirms it', () => {
  const { world, prover } = setup();
  prover.prove();
  settleAll(world, () => ({ verdict: 'withheld' }));
  assert.deepEqual(slashed(world), [[prover.key.nodeId, 'withheld-evidence']]);
});

test('evidence that one auditor alone did not get costs nobody anything', () => {
  const { world, prover } = setup({ founders: 6 });
  const unlucky = world.founders[1]!.nodeId;
  for (let i = 0; i < 6; i++) prover.prove();
  settleAll(world, (auditor, key, duty) =>
    auditor === unlucky ? { verdict: 'withheld' } : findsTrue(auditor, key, duty),
  );
  assert.deepEqual(slashed(world), []);
  assert.deepEqual(world.state.keys('duty'), []);
});

test('who accuses the honest loses everything, and who approves of the false, too', () => {
  for (const [liar, lie, truth] of [
    ['accuser', 'false', findsTrue],
    ['approver', 'valid', findsFalse],
  ] as const) {
    const { world } = setup({ founders: 5 });
    const [bad] = world.founders;
    giveStake(world, bad!.nodeId, 4_000_000n);
    const finding: Finding = (auditor, key, duty) =>
      auditor === bad!.nodeId ? { verdict: lie, hash: hashOf('made up') } : truth(auditor, key, duty);
    for (let i = 0; i < 8 && slashed(world).length === 0; i++) {
      const prover = proverIn(world, namedKey(`prover ${i} of ${liar}`), 10);
      prover.prove();
      settleAll(world, finding);
    }
    assert.ok(
      slashed(world).some(([node, reason]) => node === bad!.nodeId && reason === 'false-verdict'),
      liar,
    );
    assert.equal(world.state.get('account', bad!.nodeId)!.stake, 0n);
    assert.ok(world.state.get('prover', bad!.nodeId)!.convicted);
    const honest = world.founders.slice(1).map(({ nodeId }) => nodeId);
    assert.ok(slashed(world).every(([node]) => !honest.includes(node!)));
    world.checkSupply();
  }
});

test('one who recomputed nothing and reveals another hash is a false witness', () => {
  const { world, prover } = setup({ founders: 5 });
  const lazy = world.founders[2]!.nodeId;
  const finding: Finding = (auditor, key) => ({
    verdict: 'valid',
    hash: auditor === lazy ? hashOf('guess', key) : honestHash(key),
  });
  for (let i = 0; i < 8 && slashed(world).length === 0; i++) {
    prover.prove();
    settleAll(world, finding);
  }
  assert.deepEqual(slashed(world), [[lazy, 'false-verdict']]);
});

test('the silent are replaced, earn nothing, and lose a little stake', () => {
  const { world, prover } = setup({ founders: 6 });
  const silent = world.founders[3]!.nodeId;
  giveStake(world, silent, 1_000_000n);
  const finding: Finding = (auditor, key, duty) =>
    auditor === silent ? undefined : findsTrue(auditor, key, duty);
  for (let i = 0; i < 5; i++) prover.prove();
  settleAll(world, finding, 150);
  assert.deepEqual(world.state.keys('duty'), []);
  const { stake } = world.state.get('account', silent)!;
  assert.ok(stake < 1_000_000n && stake > 900_000n && (1_000_000n - stake) % 1_000n === 0n, String(stake));
  assert.deepEqual(slashed(world), []);
});

test('an audit that nobody does is never a pass: the reward stays where it is', () => {
  const { world, prover } = setup({ policy: { auditBlocks: 2 } });
  const key = prover.prove();
  const { reward } = world.state.get('duty', key)!;
  settleAll(world, () => undefined, 60);
  const duty = world.state.get('duty', key)!;
  assert.equal(duty.reward, reward);
  assert.equal(world.state.get('prover', prover.key.nodeId)!.bond, 0n);
  settleAll(world, findsTrue, 60);
  assert.deepEqual(world.state.keys('duty'), []);
  assert.ok(world.state.get('prover', prover.key.nodeId)!.bond > 0n);
});

test('alone on a network nobody audits, so nothing is paid', () => {
  const { world } = setup({ founders: 1, policy: { auditBlocks: 3 } });
  const alone = proverIn(world, world.founders[0]!, 10);
  alone.prove();
  settleAll(world, findsTrue, 20);
  assert.equal(world.state.keys('duty').length, 1);
  world.checkSupply();
});

test('commitments and reveals: each wrong one has its code', () => {
  const { world, prover } = setup({ policy: { auditBlocks: 4 } });
  const { networkId } = world.constants;
  const duty = prover.prove();
  const keys = keysByNode(world.founders);
  const commitment = hashOf('c');
  assert.equal(
    codeOf(world, world.sign(auditCommit, { duty, commitment }, world.founders[0]!)),
    'not-an-auditor',
  );
  world.advance();
  world.advance();
  const [a, b] = world.state.get('duty', duty)!.auditors.map((node) => keys.get(node)!) as [
    typeof prover.key,
    typeof prover.key,
  ];
  const other = world.founders.find((key) => key !== a && key !== b)!;
  const reveal = { duty, verdict: 'valid' as const, hash: hashOf('h'), salt: hashOf('salt') };
  const commitBy = (key: typeof a, bytes: Uint8Array) =>
    world.sign(auditCommit, { duty, commitment: bytes }, key);
  assert.equal(codeOf(world, commitBy(other, commitment)), 'not-an-auditor');
  const unknown = { duty: '00'.repeat(32), commitment };
  assert.equal(codeOf(world, world.sign(auditCommit, unknown, a)), 'unknown-duty');
  const own = verdictCommitment(networkId, a.nodeId, reveal);
  assert.equal(codeOf(world, world.sign(auditReveal, reveal, a)), 'no-commitment');
  world.advance([commitBy(a, own)]);
  assert.equal(codeOf(world, commitBy(a, own)), 'already-committed');
  assert.equal(codeOf(world, world.sign(auditReveal, reveal, a)), 'reveal-early');
  // b copies a's commitment, and can never reveal it.
  world.advance([commitBy(b, own)]);
  assert.equal(
    codeOf(world, world.sign(auditReveal, { ...reveal, salt: hashOf('x') }, a)),
    'reveal-mismatch',
  );
  world.advance([world.sign(auditReveal, reveal, a)]);
  assert.equal(codeOf(world, world.sign(auditReveal, reveal, b)), 'reveal-mismatch');
  assert.equal(codeOf(world, world.sign(auditReveal, reveal, a)), 'not-an-auditor');
  assert.equal(auditReveal.parse([new Uint8Array(32), 2, hashOf('h'), hashOf('s')]).ok, false);
});

test('commitments and reveals come in time or not at all', () => {
  const { world, prover } = setup({ founders: 9, policy: { auditBlocks: 2, auditors: 3 } });
  const duty = prover.prove();
  const keys = keysByNode(world.founders);
  world.advance();
  world.advance();
  const [first, second] = world.state.get('duty', duty)!.auditors;
  const only: Finding = (auditor, key, row) => (auditor === first ? findsTrue(auditor, key, row) : undefined);
  world.advance(auditTransactions(world, keys, only));
  world.advance();
  const late = world.sign(auditCommit, { duty, commitment: hashOf('c') }, keys.get(second!)!);
  assert.equal(codeOf(world, late), 'commitment-late');
  world.advance();
  const reveals = auditTransactions(world, keys, only);
  assert.equal(reveals.length, 1);
  world.advance();
  assert.equal(world.state.get('duty', duty)!.tier, 1);
  assert.equal(codeOf(world, reveals[0]!), 'not-an-auditor');
});

test('many blocks in a little time end nothing: auditors have their time, too', () => {
  const { world, prover } = setup({ policy: { auditBlocks: 2, auditMsMin: 60_000 } });
  const key = prover.prove();
  for (let i = 0; i < 2; i++) world.advance();
  const { dueMs } = world.state.get('duty', key)!;
  for (let i = 0; i < 30; i++) world.advance([], 200);
  assert.equal(world.state.get('duty', key)!.tier, 0, 'thirty blocks in six seconds');
  const [commitment] = auditTransactions(world, keysByNode(world.founders), findsTrue);
  assert.equal(codeOf(world, commitment!), 'accepted');
  world.advance([], dueMs - chainOf(world.state).timeMs);
  assert.equal(codeOf(world, commitment!), 'commitment-late');
  world.advance([], 1);
  assert.equal(world.state.get('duty', key)!.tier, 1, 'nobody committed in time');
});
