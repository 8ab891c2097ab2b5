import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { hashOf } from '../../test/proof-world.ts';
import { type Ruling, rule } from './ruling.ts';
import type { Verdict } from './tables.ts';

const zeros = new Uint8Array(32);

/** 'v1': valid with hash 1, 'f1': false with hash 1, 'w': withheld, '-': silent. `weights`: all 1 unless said. */
function ruling(tier: number, words: string, weights: readonly number[] = [], own = 0): Ruling {
  const opinions = words.split(' ');
  const auditors = opinions.map((_, i) => `auditor ${i}`);
  const reveals = opinions.flatMap((word, i) => {
    if (word === '-') return [];
    const verdict: Verdict = word.startsWith('v') ? 'valid' : word.startsWith('f') ? 'false' : 'withheld';
    return [[auditors[i]!, verdict, verdict === 'withheld' ? zeros : hashOf(word.slice(1))] as const];
  });
  const known = new Map([...auditors.map((node, i) => [node, weights[i] ?? 1] as const), ['prover', own]]);
  return rule({ prover: 'prover', tier, auditors, reveals }, known as ReadonlyMap<string, number>);
}

const short = (found: Ruling) =>
  found.kind === 'guilty'
    ? `${found.reason} ${found.right.length}:${found.wrong.length}`
    : found.kind === 'stands'
      ? `stands ${found.right.length}:${found.wrong.length}`
      : 'unclear';

test('two who agree let a claim stand, and nothing else decides at first', () => {
  assert.equal(short(ruling(0, 'v1 v1')), 'stands 2:0');
  for (const words of ['v1 v2', 'v1 f1', 'f1 f1', 'w w', 'v1 -', '- -', 'v1 w'])
    assert.equal(short(ruling(0, words)), 'unclear', words);
});

test('a committee of one mind decides by more than two thirds', () => {
  assert.equal(short(ruling(1, 'f1 f1 f1 f1 -')), 'false-proof 4:0');
  assert.equal(short(ruling(1, 'f1 f1 f1 - -')), 'unclear');
  assert.equal(short(ruling(1, 'v1 v1 v1 v1 w')), 'stands 4:0');
  assert.equal(short(ruling(1, 'w w w w -')), 'withheld-evidence 4:0');
  assert.equal(short(ruling(1, 'f1 f1 w w -')), 'false-proof 4:0');
  assert.equal(short(ruling(1, 'f1 w w w -')), 'withheld-evidence 4:0');
  // Dissent goes to all members: nobody is punished by a few.
  assert.equal(short(ruling(1, 'f1 f1 f1 f1 v1')), 'unclear');
  assert.equal(short(ruling(1, 'v1 v1 v1 v1 f1')), 'unclear');
});

test('all members decide over dissent, by weight, the prover’s own for its claim', () => {
  assert.equal(short(ruling(2, 'f1 f1 f1 v2')), 'false-proof 3:1');
  assert.equal(short(ruling(2, 'v1 v1 v1 f2')), 'stands 3:1');
  assert.equal(short(ruling(2, 'v1 v1 f2')), 'unclear');
  assert.equal(short(ruling(2, 'v1 v1 f2', [1, 1, 1], 1)), 'stands 2:1');
  assert.equal(short(ruling(2, 'f1 f1 f1', [1, 1, 1], 1)), 'false-proof 3:0');
  assert.equal(short(ruling(2, 'f1 f1 -', [1, 1, 1], 1)), 'unclear');
  assert.equal(short(ruling(2, 'f1 v1 v1', [9, 1, 1])), 'false-proof 1:2');
  assert.equal(short(ruling(2, 'v1 v1 v2 v2', [1, 1, 9, 9])), 'stands 2:2');
});

test('who saw evidence that others did not get is not punished for it', () => {
  assert.equal(short(ruling(2, 'w w w w v1')), 'withheld-evidence 4:0');
  assert.equal(short(ruling(2, 'v1 v1 v1 v1 w')), 'stands 4:0');
});

test("a claim that stands by its prover's own weight gets nobody punished", () => {
  assert.equal(short(ruling(2, 'v2 v1', [2, 1], 5)), 'stands 1:0');
  assert.equal(short(ruling(2, 'v1 v1 f1', [5, 5, 1], 1)), 'stands 2:1');
});

test('property: the dishonest with less than a third never convict, save, or get the honest punished', () => {
  const weight = fc.integer({ min: 1, max: 5 });
  const words = fc.constantFrom('v1', 'v2', 'f1', 'f2', 'w', '-');
  fc.assert(
    fc.property(
      fc.array(fc.tuple(weight, words), { minLength: 1, maxLength: 9 }),
      fc.boolean(),
      fc.integer({ min: 0, max: 5 }),
      (drawn, isTrue, own) => {
        const total = drawn.reduce((sum, [each]) => sum + each, own);
        // Of a false claim the prover is dishonest, too.
        let dishonest = isTrue ? 0 : own;
        if (3 * dishonest >= total) return;
        const honest = new Set<string>();
        const all = drawn.map(([each, word], i) => {
          if (3 * (dishonest + each) < total) {
            dishonest += each;
            return word;
          }
          honest.add(`auditor ${i}`);
          return isTrue ? 'v1' : 'f1';
        });
        if (honest.size === 0) return;
        const found = ruling(
          2,
          all.join(' '),
          drawn.map(([each]) => each),
          own,
        );
        assert.equal(found.kind, isTrue ? 'stands' : 'guilty');
        assert.ok('wrong' in found && found.wrong.every((node) => !honest.has(node)));
      },
    ),
    { numRuns: 200 },
  );
});
