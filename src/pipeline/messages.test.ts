import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
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

const shape: BoundaryShape = { tokens: 4, width: 8, vocabulary: 16, codec: 'f32' };
const rows = encodeRows(Float32Array.from({ length: 32 }, Math.sqrt), 'f32');
const labels = Int32Array.of(0, 3, 15, 7);
const request = { round: 5, stage: 1, step: 3, index: 2, claim: new Uint8Array(200).fill(7), labels, rows };
const driver = 'ab'.repeat(32);

test('what is encoded comes back', () => {
  const train = decodeTrainRequest(encodeTrainRequest(request, shape), shape);
  assert.ok(train.ok);
  assert.deepEqual(train.value, request);
  const gradient = Float32Array.from({ length: 32 }, (_, i) => i / 7);
  const answer = decodeTrainAnswer(encodeTrainAnswer({ loss: 2.5, gradient }, 'f32'), shape);
  assert.deepEqual(answer, { ok: true, value: { loss: 2.5, gradient } });
  const evaluate = decodeEvaluateRequest(
    encodeEvaluateRequest({ round: 1, stage: 2, labels, rows }, shape),
    shape,
  );
  assert.deepEqual(evaluate, { ok: true, value: { round: 1, stage: 2, labels, rows } });
  assert.deepEqual(decodeLoss(encodeLoss(1.25)), { ok: true, value: 1.25 });
  assert.deepEqual(decodeSums(encodeSums([1.5, 0, 3])), { ok: true, value: [1.5, 0, 3] });
  for (const step of [
    { pass: 'prepare', round: 1, stage: 1, step: 2, driver, ids: [0, 5, 3] },
    { pass: 'apply', round: 1, stage: 1, step: 2, driver, norm: 0.75 },
  ] as const)
    assert.deepEqual(decodeStepRequest(encodeStepRequest(step)), { ok: true, value: step });
});

const codeOf = (outcome: { ok: boolean; code?: string }) => (outcome.ok ? 'ok' : outcome.code);

test('lengths, labels and repetitions are refused by code', () => {
  const message = encodeTrainRequest(request, shape);
  assert.equal(codeOf(decodeTrainRequest(message.subarray(0, -1), shape)), 'wrong-length');
  assert.equal(codeOf(decodeTrainRequest(message, { ...shape, codec: 'bf16' })), 'wrong-length');
  for (const label of [-1, 16]) {
    const wrong = encodeTrainRequest({ ...request, labels: Int32Array.of(0, label, 1, 1) }, shape);
    assert.equal(codeOf(decodeTrainRequest(wrong, shape)), 'bad-label');
  }
  const gradient = new Float32Array(32).fill(Number.NaN);
  const answer = encodeTrainAnswer({ loss: 1, gradient }, 'f32');
  assert.equal(codeOf(decodeTrainAnswer(answer, shape)), 'not-finite');
  const twice = encodeStepRequest({ pass: 'prepare', round: 1, stage: 1, step: 2, driver, ids: [1, 1] });
  assert.equal(codeOf(decodeStepRequest(twice)), 'malformed');
  const negative = encodeStepRequest({ pass: 'apply', round: 1, stage: 1, step: 2, driver, norm: -1 });
  assert.equal(codeOf(decodeStepRequest(negative)), 'malformed');
  assert.equal(codeOf(decodeSums(encodeSums([-1]))), 'malformed');
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
