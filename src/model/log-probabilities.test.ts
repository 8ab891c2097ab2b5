import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { logProbabilities } from './log-probabilities.ts';

test('they are those of the definition, the likeliest first, and sum to one', () => {
  const logit = fc.float({ min: -50, max: 50, noNaN: true });
  fc.assert(
    fc.property(
      fc.array(logit, { minLength: 1, maxLength: 40 }),
      fc.nat(39),
      fc.nat(45),
      (values, at, count) => {
        const logits = Float32Array.from(values);
        const token = at % logits.length;
        const { chosen, top } = logProbabilities(logits, token, count);
        const sum = Array.from(logits, Math.exp).reduce((a, b) => a + b, 0);
        assert.equal(chosen.token, token);
        assert(Math.abs(chosen.logprob - Math.log(Math.exp(logits[token]!) / sum)) < 1e-9);
        const sorted = [...logits.keys()].sort((a, b) => logits[b]! - logits[a]! || a - b);
        assert.deepEqual(
          top.map((each) => each.token),
          sorted.slice(0, count),
        );
        if (count >= logits.length) {
          const total = top.reduce((all, { logprob }) => all + Math.exp(logprob), 0);
          assert(Math.abs(total - 1) < 1e-9);
        }
      },
    ),
  );
});

test('huge logits do not overflow', () => {
  const { chosen } = logProbabilities(Float32Array.of(3e38, -3e38), 0, 0);
  assert.deepEqual(chosen, { token: 0, logprob: 0 });
});
