/** Evidence of a step and the list of a round's steps: what is encoded comes back, and no part of it can be another's. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { testKeys } from '../../test/consensus-group.ts';
import { encodeCanonical } from '../std/codec.ts';
import { sha256Hex } from '../std/hash.ts';
import type { Outcome } from '../std/outcome.ts';
import { type Seal, signAnswer, signNorm, signReceipt, signSums } from './seals.ts';
import {
  checkStepEvidence,
  decodeStepEvidence,
  encodeStepEvidence,
  exchangesOf,
  type MicrobatchEvidence,
  rowsOf,
  type StepEvidence,
  stepEvidenceBytesMax,
  stepEvidenceHash,
} from './step-evidence.ts';
import { decodeWorkList, encodeWorkList, workHash, workOf } from './work-list.ts';

const networkId = new Uint8Array(32).fill(7);
const [driver, caller, self, callee, other] = testKeys(5) as [Key, Key, Key, Key, Key];
type Key = ReturnType<typeof testKeys>[number];
const stages = 3;
const hash = (mark: number) => sha256Hex(Uint8Array.of(mark));
const codeOf = (outcome: Outcome<unknown>) => (outcome.ok ? 'ok' : outcome.code);

interface Shape {
  readonly stage: number;
  readonly ids: readonly number[];
  readonly step?: number;
}

/** An honest step of this stage, its microbatches summed in the order given. */
function evidenceOf({ stage, ids, step = 4 }: Shape): StepEvidence {
  const isFirst = stage === 0;
  const hasHead = stage === stages - 1;
  const prover = isFirst ? driver : self;
  const place = { driver: driver.nodeId, round: 9, step };
  const microbatches = ids.map((index): MicrobatchEvidence => {
    const rows = hash(4 * index);
    const gradient = hash(4 * index + 1);
    const body = { ...place, stage: stage + 1, caller: prover.nodeId, index, rows, gradient };
    return {
      index,
      madeAt: 4,
      summedAt: 4,
      entry: isFirst ? null : hash(4 * index + 2),
      sentGradient: isFirst ? null : hash(4 * index + 3),
      sentRows: hasHead ? null : rows,
      target: hasHead ? null : gradient,
      answer: hasHead ? null : signAnswer(networkId, body, callee),
    };
  });
  const receipt = { ...place, stage, callee: self.nodeId, exchanges: exchangesOf(microbatches) };
  const sums = [0.5, 3, 0];
  const sorted = [...ids].sort((a, b) => a - b);
  const said = { ...place, stage: stage + 1, caller: prover.nodeId, ids: sorted, sums };
  const norm = 1.25;
  return {
    ...place,
    norm,
    normSeal: signNorm(networkId, { ...place, microbatches: ids.length, norm }, driver),
    microbatches,
    receipt: isFirst ? null : signReceipt(networkId, receipt, caller),
    rest: hasHead ? null : { sums, seal: signSums(networkId, said, callee) },
  };
}

const placeOf = (stage: number) => ({ nodeId: (stage === 0 ? driver : self).nodeId, stage, stages });

test('an honest step of each stage comes back from its bytes, and is what its neighbours signed', () => {
  for (const stage of [0, 1, 2]) {
    const evidence = evidenceOf({ stage, ids: [3, 0, 11] });
    const bytes = encodeStepEvidence(evidence);
    assert.deepEqual(decodeStepEvidence(bytes), { ok: true, value: evidence });
    assert.equal(stepEvidenceHash(evidence), sha256Hex(bytes));
    assert.equal(codeOf(checkStepEvidence(networkId, placeOf(stage), evidence)), 'ok');
    assert.equal(rowsOf(evidence).length, stage === 1 ? 12 : 6);
    for (const wrong of [0, 1, 2].filter((one) => one !== stage))
      assert.equal(codeOf(checkStepEvidence(networkId, placeOf(wrong), evidence)), 'wrong-form');
  }
});

const middle = evidenceOf({ stage: 1, ids: [2, 0, 5] });
const [a, b, c] = middle.microbatches as [MicrobatchEvidence, MicrobatchEvidence, MicrobatchEvidence];
const unsigned = (seal: Seal): Seal => ({ ...seal, signature: seal.signature.map((byte) => byte ^ 1) });
const by = (seal: Seal): Seal => ({ ...seal, publicKey: other.publicKey });

const tampered: Readonly<Record<string, Partial<StepEvidence>>> = {
  'another Driver': { driver: other.nodeId },
  'another round': { round: 8 },
  'another step': { step: 5 },
  'another norm': { norm: 1 },
  'norm unsigned': { normSeal: unsigned(middle.normSeal) },
  'norm by another': { normSeal: by(middle.normSeal) },
  'a microbatch less': { microbatches: [a, b] },
  'a microbatch twice as another': { microbatches: [a, b, c, { ...a, index: 7 }] },
  'entry of another': { microbatches: [{ ...a, entry: b.entry }, b, c] },
  'sent gradient of another': { microbatches: [{ ...a, sentGradient: b.sentGradient }, b, c] },
  'sent rows of another': { microbatches: [{ ...a, sentRows: b.sentRows }, b, c] },
  'target of another': { microbatches: [{ ...a, target: b.target }, b, c] },
  'rows swapped': { microbatches: [{ ...a, entry: a.sentGradient, sentGradient: a.entry }, b, c] },
  'answer of another': { microbatches: [{ ...a, answer: b.answer }, b, c] },
  'answer unsigned': { microbatches: [{ ...a, answer: unsigned(a.answer!) }, b, c] },
  'indices swapped': { microbatches: [{ ...a, index: b.index }, { ...b, index: a.index }, c] },
  'receipt unsigned': { receipt: unsigned(middle.receipt!) },
  'receipt by another': { receipt: by(middle.receipt!) },
  'receipt of another step': { receipt: evidenceOf({ stage: 1, ids: [2, 0, 5], step: 5 }).receipt },
  'other sums': { rest: { ...middle.rest!, sums: [0.5, 3] } },
  'sums unsigned': { rest: { ...middle.rest!, seal: unsigned(middle.rest!.seal) } },
  'no receipt': { receipt: null },
  'no sums': { rest: null },
  'no entry': { microbatches: [{ ...a, entry: null }, b, c] },
  'no answer': { microbatches: [{ ...a, answer: null }, b, c] },
};

test('nothing in it can be left out or be another’s', () => {
  for (const [name, change] of Object.entries(tampered)) {
    const code = codeOf(checkStepEvidence(networkId, placeOf(1), { ...middle, ...change }));
    assert.equal(code, name.startsWith('no ') ? 'wrong-form' : 'bad-signature', name);
  }
  const place = placeOf(1);
  assert.equal(codeOf(checkStepEvidence(new Uint8Array(32), place, middle)), 'bad-signature');
  const stranger = { ...place, nodeId: other.nodeId };
  assert.equal(codeOf(checkStepEvidence(networkId, stranger, middle)), 'bad-signature');
  const first = evidenceOf({ stage: 0, ids: [0] });
  const notOwn = { nodeId: self.nodeId, stage: 0, stages };
  assert.equal(codeOf(checkStepEvidence(networkId, notOwn, first)), 'wrong-form', 'a Driver’s own step');
});

test('the order of the sum is part of the evidence, and none of the signatures’', () => {
  const turned = { ...middle, microbatches: [b, c, a] };
  assert.equal(codeOf(checkStepEvidence(networkId, placeOf(1), turned)), 'ok');
  assert.notEqual(stepEvidenceHash(turned), stepEvidenceHash(middle));
});

test('bytes that are no evidence are refused by code, whatever they are', () => {
  const twice = encodeStepEvidence({ ...middle, microbatches: [a, b, { ...c, index: a.index }] });
  assert.equal(codeOf(decodeStepEvidence(twice)), 'malformed');
  assert.equal(codeOf(decodeStepEvidence(encodeStepEvidence({ ...middle, microbatches: [] }))), 'malformed');
  assert.equal(codeOf(decodeStepEvidence(new Uint8Array(stepEvidenceBytesMax + 1))), 'too-large');
  for (const change of [{ norm: -1 }, { norm: Number.MAX_VALUE * -1 }, { step: 0.5 }, { round: -1 }])
    assert.equal(codeOf(decodeStepEvidence(encodeStepEvidence({ ...middle, ...change }))), 'malformed');
  const bytes = encodeStepEvidence(middle);
  fc.assert(
    fc.property(fc.nat(bytes.length - 1), fc.integer({ min: 1, max: 255 }), (at, change) => {
      const damaged = bytes.slice();
      damaged[at]! ^= change;
      const decoded = decodeStepEvidence(damaged);
      if (!decoded.ok) return;
      assert.deepEqual(encodeStepEvidence(decoded.value), damaged, 'one form for each evidence');
      const places = ({ microbatches }: StepEvidence) =>
        microbatches.map((one) => `${one.madeAt}/${one.summedAt}`).join();
      // Of its weights only the prover knows, and what it says is tried.
      if (places(decoded.value) !== places(middle)) return;
      assert.notEqual(codeOf(checkStepEvidence(networkId, placeOf(1), decoded.value)), 'ok');
    }),
    { numRuns: 300 },
  );
  fc.assert(fc.property(fc.uint8Array({ maxLength: 200 }), (noise) => !decodeStepEvidence(noise).ok));
});

test('the list of a round’s work: its order counts, no step of a Driver is in it twice', () => {
  const steps = [4, 5, 6].map((step) => evidenceOf({ stage: 1, ids: [0, 1], step }));
  const work = workOf(steps);
  assert.deepEqual(
    work.map(({ step, microbatches, evidence }) => [step, microbatches, evidence]),
    steps.map((one) => [one.step, 2, stepEvidenceHash(one)]),
  );
  assert.deepEqual(decodeWorkList(encodeWorkList(work)), { ok: true, value: work });
  assert.equal(workHash(work), sha256Hex(encodeWorkList(work)));
  assert.notEqual(workHash(work.toReversed()), workHash(work));
  assert.equal(codeOf(decodeWorkList(encodeWorkList([...work, work[0]!]))), 'step-twice');
  assert.equal(codeOf(decodeWorkList(encodeWorkList([{ ...work[0]!, microbatches: 0 }]))), 'malformed');
  assert.equal(codeOf(decodeWorkList(encodeCanonical([[1, 2, 3, 4]]))), 'malformed');
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 2, maxLength: 100 }), (noise) => !decodeWorkList(noise).ok),
  );
});
