import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { idleMs, ownIdleMs, type PathUse, pathToYield } from './path-shares.ts';

const nowMs = 1_000_000;
const use = (caller: string, rest: Partial<PathUse> = {}): PathUse => ({
  caller,
  isMember: false,
  heardMs: nowMs,
  takenMs: Number.NEGATIVE_INFINITY,
  ...rest,
});
const stranger = { caller: 'z', isMember: false };

test('the caller with the most paths gives way, by the one that is the longest without a step', () => {
  const paths = [
    use('a', { takenMs: nowMs - 50 }),
    use('a', { takenMs: nowMs - 900 }),
    use('a', { takenMs: nowMs - 100 }),
    use('b'),
    use('b'),
  ];
  assert.equal(pathToYield(paths, stranger, nowMs), paths[1]);
  // A caller does not take from one that has hardly more, nor from itself.
  assert.equal(pathToYield(paths, { ...stranger, caller: 'b' }, nowMs), undefined);
  assert.equal(pathToYield(paths.slice(2), stranger, nowMs), paths[3]);
  assert.equal(pathToYield([use('a'), use('b')], stranger, nowMs), undefined);
});

test('a member takes the place of who is none, and loses its own only by being idle', () => {
  const member = { isMember: true };
  const paths = [use('a', member), use('b'), use('c', member)];
  assert.equal(pathToYield(paths, { caller: 'z', isMember: true }, nowMs), paths[1]);
  assert.equal(pathToYield([paths[0]!, paths[2]!], { caller: 'z', isMember: true }, nowMs), undefined);
  const many = [use('a', member), use('a', member), use('a', member)];
  assert.equal(pathToYield(many, stranger, nowMs), undefined);
  assert.equal(pathToYield(many, { caller: 'z', isMember: true }, nowMs), many[0]);
  const away = use('a', { ...member, heardMs: nowMs - idleMs });
  assert.equal(pathToYield([use('b', member), away], stranger, nowMs), away);
});

test('what is idle goes before what is in use; to its own caller soon', () => {
  const paths = [use('a'), use('a'), use('b', { heardMs: nowMs - ownIdleMs })];
  assert.equal(pathToYield(paths, { caller: 'b', isMember: false }, nowMs), paths[2]);
  assert.equal(pathToYield(paths, stranger, nowMs), paths[0]);
  const idle = [use('a'), use('a'), use('b', { heardMs: nowMs - idleMs })];
  assert.equal(pathToYield(idle, stranger, nowMs), idle[2]);
});

test('whatever is asked for, callers end with equal shares, and a change never turns round', () => {
  const asks = fc.array(fc.integer({ min: 0, max: 4 }), { minLength: 1, maxLength: 60 });
  fc.assert(
    fc.property(asks, (callers) => {
      const places = 8;
      let held: PathUse[] = [];
      for (const one of [...callers, 0, 1, 2, 3, 4, 0, 1, 2, 3, 4]) {
        const wanted = { caller: `${one}`, isMember: false };
        const before = held.filter(({ caller }) => caller === wanted.caller).length;
        const yielding = held.length < places ? undefined : pathToYield(held, wanted, nowMs);
        if (held.length >= places && !yielding) continue;
        held = [...held.filter((path) => path !== yielding), use(wanted.caller)];
        const left = held.filter(({ caller }) => caller === yielding?.caller).length;
        assert.ok(!yielding || left > before, 'who gave way would ask for it back');
      }
      const shares = [0, 1, 2, 3, 4].map((one) => held.filter(({ caller }) => caller === `${one}`).length);
      assert.ok(Math.min(...shares) >= 1, shares.join(' '));
    }),
    { numRuns: 200 },
  );
});
