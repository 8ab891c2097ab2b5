import assert from 'node:assert/strict';
import { test } from 'node:test';
import { exponential, logarithm, sineCosine } from './elementary.ts';
import { seededRandom, uniform } from './random.ts';

const random = seededRandom(new Uint8Array(16).fill(7));
const samples = Array.from({ length: 20_000 }, () => uniform(random));

test('sine and cosine are those of Math to 1e-12, up to the largest angle', () => {
  for (const [i, sample] of samples.entries()) {
    const angle = sample * (i % 2 === 0 ? 50 : 1_048_576);
    const [sine, cosine] = sineCosine(angle);
    assert(Math.abs(sine - Math.sin(angle)) < 1e-12, `sin ${angle}`);
    assert(Math.abs(cosine - Math.cos(angle)) < 1e-12, `cos ${angle}`);
  }
  assert.deepEqual(sineCosine(0), [0, 1]);
});

test('exponential and logarithm are those of Math to 1e-12, relatively', () => {
  for (const sample of samples) {
    const x = (sample - 0.5) * 1380;
    assert(Math.abs(exponential(x) / Math.exp(x) - 1) < 1e-12, `exp ${x}`);
    const y = Math.exp(x);
    assert(Math.abs(logarithm(y) - Math.log(y)) < 1e-12 * Math.max(1, Math.abs(Math.log(y))), `log ${y}`);
  }
  assert.equal(exponential(0), 1);
  assert.equal(logarithm(1), 0);
});

test('arguments out of range are refused', () => {
  assert.throws(() => sineCosine(-1));
  assert.throws(() => sineCosine(2 ** 21));
  assert.throws(() => sineCosine(Number.NaN));
  assert.throws(() => exponential(701));
  assert.throws(() => logarithm(0));
});
