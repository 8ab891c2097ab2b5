import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { concatBytes } from '../std/bytes.ts';
import { type Canonical, encodeCanonical } from '../std/codec.ts';
import type { Outcome } from '../std/outcome.ts';
import {
  type BoundaryShape,
  decodeEvaluateRequest,
  decodeLoss,
  decodeStepRequest,
  decodeSums,
  decodeTrainAnswer,
  decodeTrainRequest,
  encodeEvaluateRequest,
  encodeLoss,
  encodeStepRequest,
  encodeSums,
  encodeTrainAnswer,
  encodeTrainRequest,
} from './messages.ts';
import { encodeRows } from './row-codec.ts';
import type { Seal } from './seals.ts';

const shape: BoundaryShape = { tokens: 4, width: 8, vocabulary: 16, codec: 'f32' };
const rows = encodeRows(Float32Array.from({ length: 32 }, Math.sqrt), 'f32');
const labels = Int32Array.of(0, 3, 15, 7);
const request = { round: 5, stage: 1, step: 3, index: 2, claim: new Uint8Array(200).fill(7), labels, rows };
const driver = 'ab'.repeat(32);
const seal = { publicKey: new Uint8Array(33).fill(2), signature: new Uint8Array(64).fill(3) };

test('what is encoded comes back', () => {
  const train = decodeTrainRequest(encodeTrainRequest(request, shape), shape);
  assert.ok(train.ok);
  assert.deepEqual(train.value, request);
  const gradient = Float32Array.from({ length: 32 }, (_, i) => i / 7);
  const gradientRows = encodeRows(gradient, 'f32');
  const answer = decodeTrainAnswer(encodeTrainAnswer({ loss: 2.5, seal, rows: gradientRows }), shape);
  assert.deepEqual(answer, { ok: true, value: { loss: 2.5, seal, rows: gradientRows, gradient } });
  const evaluate = decodeEvaluateRequest(
    encodeEvaluateRequest({ round: 1, stage: 2, labels, rows }, shape),
    shape,
  );
  assert.deepEqual(evaluate, { ok: true, value: { round: 1, stage: 2, labels, rows } });
  assert.deepEqual(decodeLoss(encodeLoss(1.25)), { ok: true, value: 1.25 });
  const sums = { sums: [1.5, 0, 3], seal };
  assert.deepEqual(decodeSums(encodeSums(sums)), { ok: true, value: sums });
  for (const step of [
    { pass: 'prepare', round: 1, stage: 1, step: 2, driver, ids: [0, 3, 5], receipt: seal },
    { pass: 'apply', round: 1, stage: 1, step: 2, driver, norm: 0.75, seal },
  ] as const)
    assert.deepEqual(decodeStepRequest(encodeStepRequest(step)), { ok: true, value: step });
});

const codeOf = (outcome: Outcome<unknown>) => (outcome.ok ? 'ok' : outcome.code);

test('lengths, labels and repetitions are refused by code', () => {
  const message = encodeTrainRequest(request, shape);
  assert.equal(codeOf(decodeTrainRequest(message.subarray(0, -1), shape)), 'wrong-length');
  assert.equal(codeOf(decodeTrainRequest(message, { ...shape, codec: 'bf16' })), 'wrong-length');
  for (const label of [-1, 16]) {
    const wrong = encodeTrainRequest({ ...request, labels: Int32Array.of(0, label, 1, 1) }, shape);
    assert.equal(codeOf(decodeTrainRequest(wrong, shape)), 'bad-label');
  }
  const gradient = new Float32Array(32).fill(Number.NaN);
  const answer = encodeTrainAnswer({ loss: 1, seal, rows: encodeRows(gradient, 'f32') });
  assert.equal(codeOf(decodeTrainAnswer(answer, shape)), 'not-finite');
  const place = { round: 1, stage: 1, step: 2, driver };
  for (const ids of [[1, 1], [2, 1], [4096], [0.5]]) {
    const wrong = encodeStepRequest({ pass: 'prepare', ...place, ids, receipt: seal });
    assert.equal(codeOf(decodeStepRequest(wrong)), 'malformed', ids.join());
  }
  const negative = encodeStepRequest({ pass: 'apply', ...place, norm: -1, seal });
  assert.equal(codeOf(decodeStepRequest(negative)), 'malformed');
  assert.equal(codeOf(decodeSums(encodeSums({ sums: [-1], seal }))), 'malformed');
});

test('no message goes without a seal, nor with one of another size', () => {
  const form = (wrong: Seal | null) => wrong && [wrong.publicKey, wrong.signature];
  const stepWith = (pass: string, said: Canonical, wrong: Seal | null) =>
    encodeCanonical([pass, 1, 1, 2, driver, said, form(wrong)]);
  assert.ok(decodeStepRequest(stepWith('apply', 1, seal)).ok);
  const answerWith = (wrong: Seal | null) => {
    const head = encodeCanonical([1, form(wrong)]);
    return concatBytes(Uint8Array.of(head.length, 0, 0, 0), head, new Uint8Array(rows.length));
  };
  assert.equal(codeOf(decodeTrainAnswer(answerWith(seal), shape)), 'ok');
  const seals = [
    null,
    { ...seal, signature: new Uint8Array(63) },
    { ...seal, publicKey: new Uint8Array(65) },
  ];
  for (const wrong of seals) {
    const messages: [string, Outcome<unknown>][] = [
      ['answer', decodeTrainAnswer(answerWith(wrong), shape)],
      ['prepare', decodeStepRequest(stepWith('prepare', [0], wrong))],
      ['apply', decodeStepRequest(stepWith('apply', 1, wrong))],
      ['sums', decodeSums(encodeCanonical([[1], form(wrong)]))],
    ];
    for (const [name, outcome] of messages) assert.equal(codeOf(outcome), 'malformed', name);
  }
});

test('no bytes make a decoder throw, and a header longer than the message is malformed', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => {
      for (const decode of [decodeTrainRequest, decodeTrainAnswer, decodeEvaluateRequest])
        assert.equal(decode(bytes, shape).ok, false);
      for (const decode of [decodeLoss, decodeStepRequest]) assert.equal(decode(bytes).ok, false);
      decodeSums(bytes);
    }),
  );
  const long = encodeLoss(1).slice();
  new DataView(long.buffer).setUint32(0, 5000, true);
  assert.equal(codeOf(decodeLoss(long)), 'malformed');
});
