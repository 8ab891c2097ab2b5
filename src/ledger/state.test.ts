/** Drafts over drafts over a state behave as one map would, and nothing below them changes before its time. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { Draft, LedgerView } from './draft.ts';
import { encodeRow } from './row-codec.ts';
import { commit, createDraft, createState, putAll } from './state.ts';
import { verifyRowProof } from './state-tree.ts';
import type { AccountRow, SeenProofRow } from './tables.ts';

const key = fc.constantFrom('a', 'aa', 'ab', 'b', 'ba', 'c');
const operation = fc.tuple(key, fc.option(fc.integer({ min: 0, max: 9 })));
const operations = fc.array(operation, { maxLength: 12 });

function run(
  draft: Draft,
  model: Map<string, number>,
  steps: readonly (readonly [string, number | null])[],
): void {
  for (const [name, value] of steps) {
    if (value === null) draft.delete('seen', name);
    else draft.put('seen', name, { timestampMs: value });
    if (value === null) model.delete(name);
    else model.set(name, value);
  }
}

function assertSame(view: LedgerView, model: ReadonlyMap<string, number>): void {
  assert.deepEqual(view.keys('seen'), [...model.keys()].sort());
  assert.deepEqual(view.keys('seen', 'a'), [...model.keys()].filter((name) => name.startsWith('a')).sort());
  for (const name of ['a', 'aa', 'ab', 'b', 'ba', 'c']) {
    const value = model.get(name);
    const row: SeenProofRow | undefined = value === undefined ? undefined : { timestampMs: value };
    assert.deepEqual(view.get('seen', name), row);
  }
}

test('a state under two drafts is one map', () => {
  fc.assert(
    fc.property(operations, operations, operations, (first, second, third) => {
      const state = createState();
      const [below, middle, above] = [new Map(), new Map(), new Map()] as Map<string, number>[];
      const block = createDraft(state);
      run(block, below!, first);
      commit(state, block.changes());
      assertSame(state, below!);

      const outer = createDraft(state);
      for (const [name, value] of below!) middle!.set(name, value);
      run(outer, middle!, second);
      const inner = createDraft(outer);
      for (const [name, value] of middle!) above!.set(name, value);
      run(inner, above!, third);
      assertSame(inner, above!);
      assertSame(outer, middle!);
      assertSame(state, below!);

      putAll(outer, inner.changes());
      assertSame(outer, above!);
      commit(state, outer.changes());
      assertSame(state, above!);
      const again = createState(above!.size === 0 ? [] : outer.changes().filter(({ row }) => row));
      if (below!.size === 0) assert.deepEqual(again.root(), state.root());
    }),
    { numRuns: 200 },
  );
});

test('a list of keys stays as it was when it was read', () => {
  const state = createState([{ table: 'seen', key: 'a', row: { timestampMs: 1 } }]);
  const keys = state.keys('seen');
  commit(state, [{ table: 'seen', key: 'b', row: { timestampMs: 2 } }]);
  assert.deepEqual(keys, ['a']);
  assert.deepEqual(state.keys('seen'), ['a', 'b']);
});

test('a light client checks a balance against the root', () => {
  const row: AccountRow = { balance: 5n, stake: 0n, unbonding: [], nonce: 0 };
  const state = createState([
    { table: 'account', key: 'alice', row },
    { table: 'account', key: 'bob', row: { ...row, balance: 7n } },
  ]);
  const proof = state.prove('account', 'alice');
  const claims = (claimed: AccountRow) =>
    verifyRowProof(state.root(), 'account', 'alice', encodeRow<'account'>(claimed), proof);
  assert.equal(claims(row), true);
  assert.equal(claims({ ...row, balance: 6n }), false);
  assert.equal(
    verifyRowProof(state.root(), 'account', 'carol', undefined, state.prove('account', 'carol')),
    true,
  );
});
