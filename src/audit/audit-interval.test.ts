/** Honest work passes every audit, and each way of cheating is recognised by re-execution, with its code. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  auditOne,
  auditRules,
  auditSettings,
  interpretedExecutor,
  interpretedProver,
} from '../../test/audit-world.ts';
import type { StageReplica } from '../diloco/replica.ts';
import { sha256Hex } from '../std/hash.ts';
import type { TrainingClaim } from './claim.ts';

const codecs = ['f32', 'int8', 'sparse'] as const;
const executor = await interpretedExecutor();
const [first, last] = [0, 1];

for (const compression of codecs) {
  test(`${compression}: every interval of honest rounds stands, listed or left out`, async () => {
    const settings = { outer: { ...auditSettings.outer, compression } };
    const prover = await interpretedProver('honest', settings);
    const own = await interpretedExecutor(settings);
    for (const listed of [true, false, true]) {
      const claim = await prover.round({ listed });
      for (const interval of [first, last]) {
        const found = await auditOne(prover, claim, interval, own);
        assert.equal(found.code, 'valid', found.detail);
        assert.equal(found.verdict, 'valid');
        // On the prover's own engine the very state comes out.
        assert.equal(found.stateHash, claim.states[interval + 1]);
        assert.equal(found.disagreement?.update, 0);
      }
    }
  });
}

test('rounds that end within an interval, and microbatches, stand too', async () => {
  const rules = { ...auditRules, innerSteps: 3, microbatches: 2 };
  const prover = await interpretedProver('short', {}, rules);
  for (const steps of [3, 1]) {
    const claim = await prover.round({ steps });
    for (let interval = 0; interval < claim.states.length - 1; interval++)
      assert.equal((await auditOne(prover, claim, interval, executor, rules)).code, 'valid');
  }
});

test('two auditors come to the same state', async () => {
  const prover = await interpretedProver('honest');
  const claim = await prover.round();
  const other = await interpretedExecutor();
  const a = await auditOne(prover, claim, last, executor);
  const b = await auditOne(prover, claim, last, other);
  assert.deepEqual(a, b);
});

/** Who trains so is found out in any interval it cheats in. */
const cheats = {
  'does nothing': [{ stepsMade: () => false }, 'no-work'],
  'trains on the data of others': [{ dataOf: 'somebody else' }, 'update-mismatch'],
  'makes fewer steps': [{ stepsMade: (step: number) => step % 2 === 0 }, 'update-mismatch'],
  'trains with garbage labels': [
    {
      spoil: (batch: { tokens: Int32Array; labels: Int32Array }) => ({
        ...batch,
        labels: batch.labels.map((_, i) => i % 7),
      }),
    },
    'update-mismatch',
  ],
} as const;
for (const [name, [deviation, code]] of Object.entries(cheats)) {
  test(`who ${name} is found out`, async () => {
    const prover = await interpretedProver('cheater');
    const claim = await prover.round(deviation);
    for (const interval of [first, last]) {
      const found = await auditOne(prover, claim, interval, executor);
      assert.equal(found.verdict, 'false');
      assert.equal(found.code, code);
      assert.notEqual(found.stateHash, claim.states[interval + 1]);
    }
  });
}

test('who cheats in one interval is found out in that one', async () => {
  const prover = await interpretedProver('cheater');
  const claim = await prover.round({ stepsMade: (step) => step < 2 });
  assert.equal((await auditOne(prover, claim, first, executor)).code, 'valid');
  assert.equal((await auditOne(prover, claim, last, executor)).code, 'no-work');
});

test('two identities cannot claim one work', async () => {
  const prover = await interpretedProver('one');
  const claim = await prover.round();
  const found = await auditOne(prover, { ...claim, nodeId: 'another' }, first, executor);
  assert.equal(found.code, 'update-mismatch');
});

test('a contribution that is not the compression of the audited work is found out', async () => {
  const prover = await interpretedProver('cheater');
  const other = await interpretedProver('honest');
  const claim = await prover.round();
  const copied = (await other.round()).contribution;
  for (const contribution of [copied, sha256Hex(new Uint8Array(3))]) {
    const found = await auditOne(prover, { ...claim, contribution }, last, executor);
    assert.equal(found.code, 'wrong-contribution');
    assert.equal(found.verdict, 'false');
  }
});

test('inflated counts are found out without any work', async () => {
  const prover = await interpretedProver('cheater');
  const claim = await prover.round();
  const forged: Partial<TrainingClaim>[] = [
    { tokens: claim.tokens + 1 },
    { batches: claim.batches + 1 },
    { endStep: claim.endStep - 1 },
    { states: claim.states.slice(1) },
    { round: 1 },
    { states: claim.states.with(1, claim.states[0]!) },
  ];
  for (const change of forged) {
    const found = await auditOne(prover, { ...claim, ...change }, first, executor);
    assert.equal(found.verdict, 'false');
    assert.equal(found.code, 'wrong-place', JSON.stringify(change));
  }
});

test('a round may be claimed in parts, each going on where the one before ended', async () => {
  const prover = await interpretedProver('honest');
  const whole = await prover.round();
  const half = { batches: 2, tokens: whole.tokens / 2 };
  const one = { ...whole, ...half, endStep: 2, states: whole.states.slice(0, 2), contribution: null };
  const previous = { round: 0, state: whole.states[1]!, base: whole.base, listed: true };
  const two = { ...whole, ...half, firstStep: 2, states: whole.states.slice(1), previous };
  for (const claim of [one, two]) assert.equal((await auditOne(prover, claim, 0, executor)).code, 'valid');
  for (const other of [null, { ...previous, round: 1 }, { ...previous, state: whole.states[0]! }]) {
    const found = await auditOne(prover, { ...two, previous: other }, 0, executor);
    assert.equal(found.code, 'broken-chain');
  }
});

test('a round must begin at w_r', async () => {
  const prover = await interpretedProver('cheater');
  const claim = await prover.round();
  const next = await prover.round();
  assert.equal((await auditOne(prover, { ...next, base: claim.base }, first, executor)).code, 'wrong-base');
});

/** Puts other moments or feedback in place at the start of a round, as a patched node could. */
async function tamper(replica: StageReplica, tensor: 'firstMoments' | 'secondMoments' | 'errorFeedback') {
  const snapshot = await replica.snapshot();
  const tensors = {
    ...snapshot.tensors,
    [tensor]: snapshot.tensors[tensor].map((x, i) => (i === 5 ? 1e-3 : x)),
  };
  assert.ok((await replica.restore({ ...snapshot, tensors })).ok);
}

test('moments and feedback that follow from nothing are found out', async () => {
  for (const tensor of ['firstMoments', 'secondMoments', 'errorFeedback'] as const) {
    const prover = await interpretedProver('cheater');
    await prover.round();
    await tamper(prover.replica, tensor);
    const claim = await prover.round();
    const found = await auditOne(prover, claim, first, executor);
    assert.equal(found.code, tensor === 'errorFeedback' ? 'wrong-feedback' : 'broken-chain');
    const alone = await auditOne(prover, { ...claim, previous: null }, first, executor);
    assert.equal(alone.code, 'broken-chain');
  }
});

test('who says that its contribution counted, or did not, must carry on accordingly', async () => {
  const prover = await interpretedProver('cheater');
  await prover.round({ listed: false });
  const claim = await prover.round();
  const previous = { ...claim.previous!, listed: true };
  assert.equal((await auditOne(prover, claim, first, executor)).code, 'valid');
  assert.equal((await auditOne(prover, { ...claim, previous }, first, executor)).code, 'wrong-feedback');
  const unknown = { ...previous, listed: null };
  assert.equal((await auditOne(prover, { ...claim, previous: unknown }, first, executor)).code, 'valid');
});

test('evidence that is not to be had is withheld, and that is no verdict on the work', async () => {
  const prover = await interpretedProver('silent');
  const claim = await prover.round();
  const mute = { ...prover, replica: { ...prover.replica, evidenceLeaf: async () => undefined } };
  const found = await auditOne(mute, claim, first, executor);
  assert.equal(found.verdict, 'withheld');
  assert.equal(found.stateHash, '0'.repeat(64));
});
