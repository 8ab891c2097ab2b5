/** Rounds on the ledger: the decided list closes one, and voters agree on the state after it. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type LedgerWorld, ledgerWorld, namedKey } from '../../../test/ledger-world.ts';
import { toHex } from '../../std/bytes.ts';
import { encodeCanonical } from '../../std/codec.ts';
import { sha256 } from '../../std/hash.ts';
import type { Outcome } from '../../std/outcome.ts';
import { announce, announcementFields } from '../announcement.ts';
import { roundsKept } from '../prune.ts';
import { agreedState, newestAgreed, newestRound } from '../rounds.ts';
import { type Transaction, unsignedTransaction } from '../transaction.ts';
import { type RoundClosing, round } from './round.ts';
import { stateStatement } from './state.ts';

const alice = namedKey('alice');
const hash = new Uint8Array(32).fill(1);
const otherHash = new Uint8Array(32).fill(2);
const codeOf = (outcome: Outcome<unknown>) => (outcome.ok ? 'accepted' : outcome.code);
const take = (world: LedgerWorld, ...transactions: Transaction[]) =>
  codeOf(world.take(world.block(transactions)));

function entry(world: LedgerWorld, number: number, stage = 0, key = alice) {
  const body = {
    round: number,
    stage,
    base: toHex(hash),
    blobHash: toHex(otherHash),
    blobBytes: 10,
    batches: 3,
  };
  return announcementFields(announce(world.constants.networkId, body, key));
}

function closing(
  world: LedgerWorld,
  number: number,
  entries: unknown[] = [entry(world, number)],
): Transaction {
  return unsignedTransaction(round, { round: number, entries } satisfies RoundClosing);
}

test('the decided list closes a round, and the next one only a later', () => {
  const world = ledgerWorld();
  assert.equal(newestRound(world.state), undefined);
  world.advance([closing(world, 3)]);
  assert.equal(newestRound(world.state), 3);
  const row = world.state.get('round', '000000000003')!;
  assert.deepEqual(row.contributions, [[0, alice.nodeId, hash, otherHash, 3]]);
  assert.deepEqual(row.list, sha256(encodeCanonical([3, [entry(world, 3)]])));
  assert.equal(take(world, closing(world, 3)), 'round-closed');
  assert.equal(take(world, closing(world, 2)), 'round-closed');
  assert.equal(take(world, closing(world, 4)), 'accepted');
});

test('lists that close nothing', () => {
  const world = ledgerWorld();
  const forged = entry(world, 1).with(4, 11);
  assert.equal(take(world, closing(world, 1, [])), 'nothing-listed');
  assert.equal(take(world, closing(world, 1, ['x'])), 'malformed-announcement');
  assert.equal(take(world, closing(world, 1, [forged])), 'bad-signature');
  assert.equal(take(world, closing(world, 1, [entry(world, 2)])), 'wrong-round');
  assert.equal(take(world, closing(world, 1, [entry(world, 1, 1)])), 'wrong-stage');
  assert.equal(take(world, closing(world, 1, [entry(world, 1), entry(world, 1)])), 'listed-twice');
  assert.equal(take(world, closing(world, 1), closing(world, 2)), 'repeated-kind');
  const signed = world.sign(round, { round: 1, entries: [entry(world, 1)] }, world.founders[0]!);
  assert.equal(take(world, signed), 'malformed-round');
  assert.equal(newestRound(world.state), undefined);
});

test('a hash that more than half of the stage states is agreed, and stays so', () => {
  const world = ledgerWorld({ founders: 4 });
  world.advance([closing(world, 0)]);
  const state = (i: number, stateHash: Uint8Array) =>
    world.sign(stateStatement, { round: 0, stage: 0, stateHash }, world.founders[i]!);
  world.advance([state(0, hash), state(1, otherHash), state(2, hash)]);
  assert.equal(agreedState(world.state, 0, 0), undefined, 'half is not enough');
  assert.equal(take(world, state(0, otherHash)), 'already-stated');
  world.advance([state(3, hash)]);
  assert.deepEqual(agreedState(world.state, 0, 0), hash);
  world.advance([closing(world, 1)]);
  assert.equal(newestAgreed(world.state, 0)!.round, 0);
});

test('only voters speak, of their own stage, of a closed round', () => {
  const world = ledgerWorld({ founders: 4, stages: 2 });
  world.advance([closing(world, 5)]);
  const [first, second, third] = world.founders as [typeof alice, typeof alice, typeof alice];
  const state = (key: typeof alice, stage: number, number = 5) =>
    world.sign(stateStatement, { round: number, stage, stateHash: hash }, key);
  assert.equal(take(world, state(alice, 0)), 'not-a-voter');
  assert.equal(take(world, state(first, 1)), 'wrong-stage');
  assert.equal(take(world, state(first, 0, 4)), 'unknown-round');
  world.advance([state(first, 0), state(second, 1)]);
  assert.equal(agreedState(world.state, 5, 0), undefined, 'one of two');
  world.advance([state(third, 0)]);
  assert.deepEqual(agreedState(world.state, 5, 0), hash);
  assert.equal(agreedState(world.state, 5, 1), undefined);
});

test('old rounds are forgotten', () => {
  const world = ledgerWorld({ founders: 1 });
  for (let number = 0; number < roundsKept + 3; number++) world.advance([closing(world, number)]);
  assert.equal(world.state.keys('round').length, roundsKept);
  assert.equal(newestRound(world.state), roundsKept + 2);
});
