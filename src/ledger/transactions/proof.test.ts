import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { assertNeverThrows } from '../../../test/fuzz.ts';
import { type LedgerWorld, ledgerWorld, namedKey } from '../../../test/ledger-world.ts';
import { baseOf, closeRound, hashOf, nextMs, type Prover, proverIn } from '../../../test/proof-world.ts';
import { decodeCanonical, encodeCanonical } from '../../std/codec.ts';
import { applyOne } from '../apply.ts';

import { chainOf } from '../money.ts';
import { checkPlausible } from '../plausibility.ts';
import { intervalAt, type ProofBody, proofFields, proofHash, proofOf } from '../proof.ts';
import { createDraft } from '../state.ts';
import { transactionBytesMax } from '../transaction.ts';
import { proverOf } from '../vesting.ts';

const emptyProver = proverOf(createDraft(ledgerWorld().state), namedKey('prover'));

function world(options: Parameters<typeof ledgerWorld>[0] = {}) {
  const made = ledgerWorld(options);
  return { made, prover: proverIn(made, namedKey('prover'), 10) };
}

/** What becomes of a claim; the state stays as it is. */
function codeOf(made: LedgerWorld, prover: Prover, body: ProofBody): string {
  const before = made.state.root();
  const done = applyOne(made.state, prover.transaction(body), made.context());
  assert.deepEqual(made.state.root(), before);
  return done.ok ? 'accepted' : done.code;
}

test('a plausible claim is accepted, and mints its reward into a duty', () => {
  const { made, prover } = world();
  const key = prover.prove();
  const duty = made.state.get('duty', key)!;
  assert.equal(duty.prover, prover.key.nodeId);
  assert.equal(duty.proof, 1);
  assert.equal(duty.first, true);
  assert.equal(duty.intervals, 2);
  assert.equal(duty.drawAt, chainOf(made.state).number + 2);
  // 10 batches × 10,000 × 1.5 for embedding and head × 1.5 for a stage of one replica, less the fee of the proposer.
  assert.equal(duty.reward, 225_000n - 10n);
  assert.equal(chainOf(made.state).minted, 225_000n);
  made.checkSupply();
});

test('the age is judged against block time', () => {
  const { made, prover } = world();
  const at = nextMs(made);
  const code = (timestampMs: number) => codeOf(made, prover, prover.claim({ timestampMs }));
  assert.equal(code(at - 300_000), 'accepted');
  assert.equal(code(at - 300_001), 'proof-too-old');
  assert.equal(code(at + 60_000), 'accepted');
  assert.equal(code(at + 60_001), 'proof-from-future');
});

test('the same claim is accepted once, in whatever transaction', () => {
  const { made, prover } = world();
  const body = prover.claim();
  made.advance([prover.transaction(body)]);
  assert.equal(codeOf(made, prover, body), 'proof-replayed');
  made.advance([], 200_000);
  assert.equal(codeOf(made, prover, body), 'proof-replayed');
  made.advance([], 200_000);
  assert.equal(codeOf(made, prover, body), 'proof-too-old');
  assert.deepEqual(made.state.keys('seen'), []);
});

test('another node cannot spend a claim that it copied, and the copy has another name', () => {
  const { made, prover } = world();
  const body = prover.claim();
  const thief = proverIn(made, namedKey('thief'), 10);
  assert.notDeepEqual(
    proofHash(made.constants.networkId, thief.key.nodeId, body),
    proofHash(made.constants.networkId, prover.key.nodeId, body),
  );
  made.advance([thief.transaction(body), prover.transaction(body)]);
  assert.equal(made.state.keys('duty').length, 2);
});

test('nonce and timestamp grow', () => {
  const { made, prover } = world();
  const timestampMs = nextMs(made);
  prover.prove({ nonce: 7, timestampMs });
  assert.equal(codeOf(made, prover, prover.claim({ nonce: 7 })), 'proof-out-of-order');
  assert.equal(codeOf(made, prover, prover.claim({ timestampMs })), 'proof-out-of-order');
  assert.equal(codeOf(made, prover, prover.claim({ nonce: 8 })), 'accepted');
});

test('no more proofs in any hour than the policy allows', () => {
  const { made, prover } = world({ policy: { proofsPerHourMax: 3 } });
  for (let i = 0; i < 3; i++) prover.prove();
  assert.equal(codeOf(made, prover, prover.claim()), 'too-many-proofs');
  made.advance([], 3_600_000);
  assert.equal(codeOf(made, prover, prover.claim()), 'accepted');
});

test('what cannot be is rejected, each with its code', () => {
  const { made, prover } = world();
  const wrong: readonly (readonly [Partial<ProofBody>, string])[] = [
    [{ stage: 1 }, 'stage-implausible'],
    [{ layers: 5 }, 'layers-implausible'],
    [{ hasEmbedding: false }, 'roles-implausible'],
    [{ hasHead: false }, 'roles-implausible'],
    [{ firstStep: 5, endStep: 5 }, 'steps-implausible'],
    [{ firstStep: 15, endStep: 21 }, 'steps-implausible'],
    [{ batches: 11 }, 'batches-implausible'],
    [{ firstBatch: 0 }, 'batches-implausible'],
    [{ endBatch: 31 }, 'batches-implausible'],
    [{ tokens: 10 * 1024 + 1 }, 'tokens-implausible'],
    [{ states: [hashOf('one')] }, 'intervals-implausible'],
    [{ states: [hashOf('a'), hashOf('b'), hashOf('c')] }, 'intervals-implausible'],
    [{ work: hashOf('list') }, 'work-implausible'],
    [{ base: hashOf('invented') }, 'base-not-agreed'],
  ];
  for (const [changes, code] of wrong) assert.equal(codeOf(made, prover, prover.claim(changes)), code);
  assert.equal(codeOf(made, prover, { ...prover.claim(), ...prover.claim({ round: 3 }) }), 'accepted');
  const unknown = prover.claim({ round: 3 });
  const shifted = { ...unknown, round: 9, firstBatch: 9 * 20, endBatch: 9 * 20 + 10 };
  assert.equal(codeOf(made, prover, shifted), 'round-unknown');
});

test('a stage of several claims whole rounds with a list of its steps, its own Driver’s or those of several', () => {
  const made = ledgerWorld({ stages: 2 });
  const { innerSteps, tokensPerBatch } = made.constants;
  const prover = proverIn(made, namedKey('prover'));
  const of = (stage: number, changes: Partial<ProofBody> = {}) =>
    codeOf(made, prover, prover.claim({ stage, ...changes }));
  const fewer = (body: ProofBody, batches: number) => ({
    ...body,
    batches,
    endBatch: body.firstBatch + batches,
    tokens: batches * tokensPerBatch,
  });
  assert.equal(of(0), 'accepted');
  assert.equal(of(1), 'accepted');
  assert.equal(of(1, { endStep: 4 * innerSteps }), 'accepted');
  assert.equal(of(0, { endStep: innerSteps + 1 }), 'steps-implausible');
  assert.equal(of(1, { endStep: 4 * innerSteps + 1 }), 'steps-implausible');
  assert.equal(of(1, { firstStep: 5 }), 'steps-implausible');
  assert.equal(of(1, { work: null }), 'work-implausible');
  const claim = prover.claim({ stage: 1 });
  // One microbatch a step in this world: no step is made of none.
  assert.equal(codeOf(made, prover, fewer(claim, innerSteps - 1)), 'batches-implausible');
  assert.equal(codeOf(made, prover, fewer(claim, innerSteps + 1)), 'batches-implausible');
  assert.equal(codeOf(made, prover, { ...claim, endBatch: claim.endBatch + 1 }), 'batches-implausible');
  made.advance([prover.transaction(claim)]);
  assert.equal(of(1, { round: claim.round, firstStep: 0 }), 'work-claimed-before');
});

test('any count of steps and batches is accepted as far as a stage can have made it, and no further', () => {
  const made = ledgerWorld({ stages: 2 });
  const constants = {
    ...made.constants,
    microbatches: 4,
    policy: { ...made.constants.policy, tokensPerSecondMax: 1e9 },
  };
  const row = { ...emptyProver };
  fc.assert(
    fc.property(
      fc.nat(1),
      fc.integer({ min: 1, max: 120 }),
      fc.integer({ min: 0, max: 500 }),
      (stage, endStep, batches) => {
        const prover = proverIn(made, namedKey('prover'));
        const body = prover.claim({ stage, endStep });
        const firstBatch = body.round * constants.innerSteps * constants.microbatches;
        const claimed = {
          ...body,
          batches,
          firstBatch,
          endBatch: firstBatch + batches,
          tokens: batches * constants.tokensPerBatch,
        };
        const stepsMax = (stage === 0 ? 1 : 4) * constants.innerSteps;
        const isPossible = endStep <= stepsMax && batches >= endStep && batches <= 4 * endStep;
        assert.equal(checkPlausible(made.state, claimed, prover.key.nodeId, row, constants).ok, isPossible);
      },
    ),
    { numRuns: 200 },
  );
});

test('faster than physics is rejected', () => {
  const { made, prover } = world({ policy: { tokensPerSecondMax: 1024 } });
  prover.prove();
  // Ten batches take ten seconds at this rate, and one has passed.
  assert.equal(codeOf(made, prover, prover.claim()), 'rate-implausible');
  made.advance([], 9_000);
  assert.equal(codeOf(made, prover, prover.claim()), 'accepted');
});

test('no step is claimed twice, and states go on from where the last proof ended', () => {
  const { made, prover } = world();
  const first = prover.claim();
  made.advance([prover.transaction(first)]);
  assert.equal(codeOf(made, prover, prover.claim({ firstStep: 5, endStep: 15 })), 'work-claimed-before');
  assert.equal(codeOf(made, prover, prover.claim({ round: 0 })), 'work-claimed-before');
  assert.equal(codeOf(made, prover, prover.claim({ before: hashOf('other') })), 'state-chain-broken');
  const second = prover.claim();
  assert.deepEqual(second.before, first.states.at(-1));
  assert.equal(codeOf(made, prover, second), 'accepted');
});

test('round 0 starts from the manifest’s state, or from the decided list', () => {
  const { made, prover } = world();
  const claim = () => ({
    ...prover.claim({ round: 1 }),
    round: 0,
    firstBatch: 0,
    endBatch: 10,
    base: baseOf(0),
  });
  assert.equal(codeOf(made, prover, claim()), 'round-unknown');
  const nodes = ['a', 'b', 'c'].map((name) => namedKey(name).nodeId);
  const bases = [hashOf('lie'), baseOf(0), baseOf(0)];
  closeRound(
    made,
    0,
    nodes.map((node, i) => [0, node, bases[i]!, hashOf('blob'), 10]),
  );
  assert.equal(codeOf(made, prover, claim()), 'accepted');
  assert.equal(codeOf(made, prover, { ...claim(), base: hashOf('lie') }), 'base-not-agreed');
  const known = { ...made.constants, initialStates: [hashOf('w0')] };
  const body = { ...claim(), base: hashOf('w0') };
  const context = { ...made.context(), constants: known };
  assert.equal(applyOne(made.state, prover.transaction(body), context).ok, true);
});

test('the contribution is the one that was decided', () => {
  const { made, prover } = world();
  const claim = (blob: string) => prover.claim({ contribution: hashOf(blob) });
  assert.equal(codeOf(made, prover, claim('any')), 'accepted');
  closeRound(made, 1, [[0, prover.key.nodeId, baseOf(1), hashOf('decided'), 10]]);
  assert.equal(codeOf(made, prover, claim('any')), 'contribution-not-listed');
  assert.equal(codeOf(made, prover, claim('decided')), 'accepted');
});

test('what is not training is a record that earns nothing and counts in the rate', () => {
  const { made, prover } = world({ policy: { proofsPerHourMax: 2 } });
  const none = { batches: 0, states: [], firstStep: 0, endStep: 0, firstBatch: 0, endBatch: 0 };
  const service = () => ({ ...prover.claim({ type: 'inference', ...none }), tokens: 500 });
  made.advance([prover.transaction(service())]);
  assert.equal(chainOf(made.state).minted, 0n);
  assert.deepEqual(made.state.keys('duty'), []);
  assert.equal(codeOf(made, prover, prover.claim({ type: 'data' })), 'batches-implausible');
  made.advance([prover.transaction(service())]);
  assert.equal(codeOf(made, prover, service()), 'too-many-proofs');
});

test('every field is in the claim’s name, and comes back from its bytes', () => {
  const { made, prover } = world();
  const body = prover.claim({ contribution: hashOf('blob') });
  const parsed = proofOf(proofFields(body));
  assert.ok(parsed.ok);
  assert.deepEqual(parsed.value, body);
  const name = (one: ProofBody) => proofHash(made.constants.networkId, prover.key.nodeId, one);
  const others: Record<keyof ProofBody, ProofBody[keyof ProofBody]> = {
    ...body,
    type: 'data',
    hasEmbedding: false,
    hasHead: false,
    base: hashOf('x'),
    before: hashOf('x'),
    states: [],
    contribution: null,
    work: hashOf('x'),
  };
  for (const field of Object.keys(body) as (keyof ProofBody)[]) {
    const value = body[field];
    const other = typeof value === 'number' ? value + 1 : others[field];
    assert.notDeepEqual(name({ ...body, [field]: other } as ProofBody), name(body), field);
  }
});

test('malformed bodies are refused by form, never by a throw', () => {
  const { prover } = world();
  const fields = proofFields(prover.claim()) as unknown[];
  const wrong: readonly (readonly [number, unknown])[] = [
    [0, 4],
    [1, -1],
    [2, 1.5],
    [5, 1],
    [9, 65_536],
    [12, new Uint8Array(31)],
    [14, Array.from({ length: 257 }, () => hashOf('x'))],
    [17, 1_000_000_001],
    [18, 'blob'],
    [19, new Uint8Array(33)],
  ];
  for (const [index, value] of wrong) {
    const parsed = proofOf(fields.with(index, value));
    assert.ok(!parsed.ok && parsed.code === 'malformed-proof', String(index));
  }
  assertNeverThrows(
    (bytes) => {
      const decoded = decodeCanonical(bytes, transactionBytesMax);
      return decoded.ok ? proofOf(decoded.value) : decoded;
    },
    encodeCanonical(proofFields(prover.claim())),
  );
});

test('property: intervals cover the steps, each once, and chain their states', () => {
  const { prover } = world();
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 60 }), fc.integer({ min: 1, max: 9 }), (steps, every) => {
      const count = Math.ceil(steps / every);
      const states = Array.from({ length: count }, (_, i) => hashOf('s', i));
      const body = { ...prover.claim(), firstStep: 3, endStep: 3 + steps, states };
      const all = states.map((_, i) => intervalAt(body, i, every));
      assert.equal(all[0]!.firstStep, 3);
      assert.equal(all.at(-1)!.endStep, 3 + steps);
      for (const [i, one] of all.slice(1).entries()) {
        assert.equal(one.firstStep, all[i]!.endStep);
        assert.equal(one.before, all[i]!.after);
      }
    }),
    { numRuns: 30 },
  );
});
