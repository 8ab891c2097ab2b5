import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  greedy,
  parseSamplingOptions,
  type SamplingOptions,
  sampleToken,
  samplingRandom,
  textStopMatcher,
} from './sampler.ts';

const logitsArbitrary = fc
  .array(fc.float({ min: -30, max: 30, noNaN: true }), { minLength: 1, maxLength: 40 })
  .map((values) => Float32Array.from(values));

/** Ids by falling logit, then rising id. */
function ranked(logits: Float32Array): number[] {
  return Array.from(logits.keys()).sort((a, b) => logits[b]! - logits[a]! || a - b);
}

function drawMany(logits: Float32Array, options: SamplingOptions, count: number): number[] {
  const random = samplingRandom('many');
  return Array.from({ length: count }, () => sampleToken(logits, options, random));
}

test('temperature 0 takes the largest logit, the lowest id among equals', () => {
  fc.assert(
    fc.property(logitsArbitrary, (logits) => {
      assert.equal(sampleToken(logits, greedy, samplingRandom(0)), ranked(logits)[0]);
    }),
  );
});

test('top-k never leaves the k largest, and top-k of 1 is greedy', () => {
  fc.assert(
    fc.property(logitsArbitrary, fc.integer({ min: 1, max: 50 }), fc.integer(), (logits, topK, seed) => {
      const token = sampleToken(logits, { temperature: 2, topK, topP: 1 }, samplingRandom(seed));
      assert(ranked(logits).slice(0, topK).includes(token));
      const first = sampleToken(logits, { temperature: 2, topK: 1, topP: 1 }, samplingRandom(seed));
      assert.equal(first, ranked(logits)[0]);
    }),
  );
});

test('top-p keeps the smallest set of likeliest tokens that reaches it', () => {
  fc.assert(
    fc.property(
      logitsArbitrary,
      fc.double({ min: 0.05, max: 0.99, noNaN: true }),
      fc.integer(),
      (logits, topP, seed) => {
        const token = sampleToken(logits, { temperature: 1, topK: 0, topP }, samplingRandom(seed));
        const order = ranked(logits);
        const weights = order.map((id) => Math.exp(logits[id]! - logits[order[0]!]!));
        const total = weights.reduce((sum, weight) => sum + weight, 0);
        const before = weights.slice(0, order.indexOf(token)).reduce((sum, weight) => sum + weight, 0);
        assert(before < topP * total * (1 + 1e-9), 'the tokens before it do not reach top-p alone');
      },
    ),
  );
});

test('frequencies follow the softmax at the temperature', () => {
  const logits = Float32Array.of(0, 1, 2, -1);
  const temperature = 1.7;
  const draws = drawMany(logits, { temperature, topK: 0, topP: 1 }, 20_000);
  const weights = Array.from(logits, (logit) => Math.exp(logit / temperature));
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  for (const [id, weight] of weights.entries()) {
    const frequency = draws.filter((draw) => draw === id).length / draws.length;
    assert(Math.abs(frequency - weight / total) < 0.015, `token ${id}: ${frequency}`);
  }
});

test('extreme logits and temperatures stay in range; impossible tokens are never drawn', () => {
  const logits = Float32Array.of(-3e38, 3e38, Number.NEGATIVE_INFINITY, 3e38);
  for (const temperature of [1e-300, 1e-3, 1, 100]) {
    const draws = drawMany(logits, { temperature, topK: 0, topP: 1 }, 50);
    assert.deepEqual([...new Set(draws)].sort(), [1, 3]);
  }
});

test('logits that are not numbers are refused', () => {
  for (const bad of [[1, Number.NaN], [Number.POSITIVE_INFINITY, 1], [Number.NEGATIVE_INFINITY], []]) {
    assert.throws(() => sampleToken(Float32Array.from(bad), greedy, samplingRandom(0)), {
      code: 'bad-logits',
    });
  }
});

test('options from outside are validated, with defaults', () => {
  assert.deepEqual(parseSamplingOptions({}), { ok: true, value: { temperature: 1, topK: 0, topP: 1 } });
  for (const bad of [
    { temperature: -1 },
    { topP: 0 },
    { topP: 1.1 },
    { topK: 0.5 },
    { temprature: 1 },
    null,
    'x',
  ]) {
    const parsed = parseSamplingOptions(bad);
    assert(!parsed.ok && parsed.code === 'bad-sampling');
  }
});

test('a stop text is found wherever the stream is cut, and nothing of it is emitted', () => {
  const letters = fc.string({ unit: fc.constantFrom('a', 'b', '😀'), maxLength: 30 });
  const stopText = fc.string({ unit: fc.constantFrom('a', 'b', '😀'), minLength: 1, maxLength: 4 });
  fc.assert(
    fc.property(letters, fc.array(stopText, { maxLength: 3 }), fc.array(fc.nat(3)), (text, stops, cuts) => {
      const matcher = textStopMatcher(stops);
      const characters = Array.from(text);
      let emitted = '';
      let stopped = false;
      for (let at = 0, i = 0; at < characters.length; i++) {
        const size = (cuts[i % Math.max(1, cuts.length)] ?? 0) + 1;
        const result = matcher.push(characters.slice(at, at + size).join(''));
        emitted += result.emit;
        stopped = result.stopped;
        at += size;
      }
      if (!stopped) emitted += matcher.flush();
      const ends = stops
        .filter((stop) => text.includes(stop))
        .map((stop) => text.indexOf(stop) + stop.length);
      const end = Math.min(...ends);
      const starts = stops
        .filter((stop) => text.slice(0, end).endsWith(stop))
        .map((stop) => end - stop.length);
      assert.equal(stopped, ends.length > 0);
      assert.equal(emitted, ends.length > 0 ? text.slice(0, Math.min(...starts)) : text);
    }),
  );
});
