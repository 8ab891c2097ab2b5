import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { utf8 } from '../std/bytes.ts';
import { sha256 } from '../std/hash.ts';
import { seededRandom, uniform } from '../std/random.ts';
import { createNormGuard } from './norm-guard.ts';

/** A standard normal by the sum of twelve uniforms. */
function noise(seed: string) {
  const random = seededRandom(sha256(utf8(seed)));
  return () => Array.from({ length: 12 }, () => uniform(random)).reduce((sum, value) => sum + value, -6);
}

function settled(typical: number) {
  const guard = createNormGuard();
  for (let i = 0; i < 8; i++) assert.ok(guard.check(typical).ok);
  return guard;
}

test('numbers that are no size are refused from the start', () => {
  const guard = createNormGuard();
  for (const rms of [Number.NaN, Number.POSITIVE_INFINITY, -1, 1e30]) {
    const checked = guard.check(rms);
    assert.equal(checked.ok ? 'ok' : checked.code, 'absurd-norm');
  }
  assert.equal(guard.typicalRms(), undefined);
  assert.ok(guard.check(1).ok);
});

test('32 times too large is refused and moves nothing; what is small does no harm', () => {
  const guard = settled(0.01);
  const typical = guard.typicalRms();
  for (const rms of [0.33, 3, 1e4]) assert.equal(guard.check(rms).ok, false, String(rms));
  assert.equal(guard.typicalRms(), typical);
  for (const rms of [0.3, 0.0004, 0]) assert.ok(guard.check(rms).ok);
  assert.ok(Math.abs(Math.log(guard.typicalRms()! / typical!)) <= 3 * 0.05 + 1e-9);
});

test('a few wild values among the first do not set the measure', () => {
  const guard = createNormGuard();
  for (const rms of [9e4, 1, 1.2, 9e4, 0.9, 1e-6, 1.1, 1]) assert.ok(guard.check(rms).ok);
  const typical = guard.typicalRms()!;
  assert.ok(typical > 0.5 && typical < 2);
  assert.equal(guard.check(9e4).ok, false);
});

test('one message moves the measure by 5% at most, so an absurd one stays refused for as many as it takes', () => {
  const size = fc.double({ min: -10, max: 10, noNaN: true }).map(Math.exp);
  fc.assert(
    fc.property(size, fc.array(size, { minLength: 1, maxLength: 120 }), (typical, messages) => {
      const guard = settled(typical);
      // Absurd: so far off that it stays beyond the factor, whatever is said before it.
      const absurd = typical * 32 * Math.exp(0.05 * messages.length) * 1.001;
      for (const rms of messages) {
        const before = guard.typicalRms()!;
        guard.check(rms);
        const moved = Math.abs(Math.log(guard.typicalRms()! / before));
        assert.ok(moved <= 0.05 + 1e-9, String(moved));
      }
      assert.equal(guard.check(absurd).ok, false);
    }),
  );
});

test('honest traces with heavy tails pass whole', () => {
  for (let seed = 0; seed < 20; seed++) {
    const next = noise(`trace ${seed}`);
    const guard = createNormGuard();
    for (let i = 0; i < 2_000; i++) {
      // A factor of 1.5 in one deviation, and of 4.5 for one message in twenty.
      const spread = i % 20 === 0 ? 1.5 : 0.4;
      const size = 1e-3 * Math.exp(spread * Math.max(-2.2, Math.min(2.2, next())));
      assert.ok(guard.check(size).ok, `message ${i} of trace ${seed}`);
    }
  }
});

test('a drift over many messages is followed, however far it goes', () => {
  for (const perMessage of [0.01, -0.01]) {
    const guard = createNormGuard();
    const next = noise('drift');
    for (let i = 0; i < 1_000; i++)
      assert.ok(guard.check(Math.exp(perMessage * i + 0.3 * next())).ok, `message ${i}`);
    const lag = Math.log(guard.typicalRms()!) - perMessage * 1_000;
    assert.ok(Math.abs(lag) < 1, String(lag));
  }
});

test('after the weights have changed at once a new measure begins, near the one before', () => {
  const guard = settled(1);
  assert.equal(guard.check(1e3).ok, false);
  guard.reset();
  assert.equal(guard.check(2e3).ok, false, 'not just anything');
  for (let i = 0; i < 8; i++) assert.ok(guard.check(1e3).ok);
  assert.ok(guard.check(3e4).ok);
  assert.equal(guard.check(4e4).ok, false);
});

test('gradients that an early outer step makes 35 times smaller, and that grow again after the next, pass', () => {
  const guard = settled(0.0057);
  for (const size of [0.00017, 0.004]) {
    guard.reset();
    for (let i = 0; i < 50; i++) assert.ok(guard.check(size * (1 + (i % 3) / 4)).ok);
  }
});

test('a boundary that was not used between two changes begins with the absolute bound', () => {
  const guard = settled(1e-3);
  guard.reset();
  assert.equal(guard.check(50).ok, false, 'still near the old measure');
  guard.reset();
  assert.ok(guard.check(50).ok);
  assert.equal(guard.check(1e6).ok, false);
});
