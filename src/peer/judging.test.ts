/** What a node makes of evidence and of answers to challenges, as a voter and as a proposer. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { testKeys } from '../../test/consensus-group.ts';
import { tinyNetwork } from '../../test/ledger-nodes.ts';
import { ledgerWorld } from '../../test/ledger-world.ts';
import type { Dataset } from '../genesis/dataset.ts';
import { chainOf } from '../ledger/money.ts';
import { stateHashOfRoot } from '../ledger/state-hash.ts';
import { signTransaction } from '../ledger/transaction.ts';
import {
  type Challenge,
  challenge,
  challengeAnswer,
  challengedLeaf,
} from '../ledger/transactions/challenge.ts';
import { fraud } from '../ledger/transactions/fraud.ts';
import { transfer } from '../ledger/transactions/transfer.ts';
import { toHex, utf8 } from '../std/bytes.ts';
import { merkleLeaf, merkleProof, merkleRoot } from '../std/merkle.ts';
import { createJudge } from './judging.ts';

const keys = testKeys(4);
const [alice, bob] = [keys[0]!, keys[1]!];
const network = tinyNetwork(keys);
const { networkId } = network;
const chunks = Array.from({ length: 6 }, (_, i) => utf8(`leaf ${i}`));
const leaves = chunks.map(merkleLeaf);
const plan = merkleLeaf(utf8('plan'));

function setUp(holds = true) {
  const world = ledgerWorld();
  world.advance();
  world.advance();
  const { number, seeds } = chainOf(world.state);
  const seed = seeds.at(-1)!;
  const round = 1;
  const hash = toHex(stateHashOfRoot(plan, round, leaves.length, merkleRoot(leaves)));
  const judge = createJudge({
    network,
    dataset: {} as Dataset,
    state: () => world.state,
    isFraud: (node) => node === bob.nodeId,
    heldLeaf: async (stateHash, index) => (holds && stateHash === hash ? chunks[index] : undefined),
  });
  const index = challengedLeaf(seed, alice.nodeId, leaves.length);
  const body: Challenge = {
    ...{ block: number, round, stage: 0, plan, leaves: leaves.length },
    ...{ root: merkleRoot(leaves), leaf: leaves[index]!, path: merkleProof(leaves, index) },
    answer: challengeAnswer(seed, alice.nodeId, chunks[index]!),
  };
  let nonce = 0;
  const signed = (changes: Partial<Challenge> = {}, by = alice) =>
    signTransaction(networkId, challenge, { body: { ...body, ...changes }, nonce: ++nonce }, by);
  return { judge, signed, index, seed };
}

test('an answer is made again from the leaf itself: a hash of it does not do, nor another node’s answer', async () => {
  const { judge, signed, index, seed } = setUp();
  assert.equal(await judge.votesFor(signed()), true);
  assert.equal(await judge.proposes(signed()), 'yes');
  // All that the ledger and the wire show: the leaf's hash, its path, and what others answered.
  const fromHash = signed({ answer: challengeAnswer(seed, alice.nodeId, leaves[index]!) });
  const copied = signed({}, bob);
  for (const wrong of [fromHash, copied]) {
    assert.equal(judge.accepts(wrong).ok, true);
    assert.equal(await judge.votesFor(wrong), false);
    assert.equal(await judge.proposes(wrong), 'never');
    const again = judge.accepts(wrong);
    assert.ok(!again.ok && again.code === 'bad-evidence', 'not taken in a second time');
  }
});

test('who does not hold the weights leaves the answer to those who do, and proposes it twice at most', async () => {
  const { judge, signed } = setUp(false);
  const answer = signed();
  assert.equal(await judge.votesFor(answer), true);
  assert.equal(await judge.proposes(answer), 'yes');
  judge.lost([answer]);
  assert.equal(await judge.proposes(answer), 'yes');
  judge.lost([answer]);
  assert.equal(await judge.proposes(answer), 'never');
  assert.equal(judge.accepts(answer).ok, false);
});

test('evidence of fraud that is none is dropped; what needs no judging passes, lost blocks or not', async () => {
  const { judge } = setUp();
  const accusation = { publicKey: bob.publicKey, evidence: new Uint8Array(50) };
  const empty = signTransaction(networkId, fraud, { body: accusation, nonce: 1 }, alice);
  assert.equal(judge.accepts(empty).ok, true, 'of one that is known for a fraud');
  assert.equal(await judge.votesFor(empty), false);
  assert.equal(await judge.proposes(empty), 'never');
  const other = { ...accusation, publicKey: alice.publicKey };
  const unknown = judge.accepts(signTransaction(networkId, fraud, { body: other, nonce: 2 }, bob));
  assert.ok(!unknown.ok && unknown.code === 'not-judged');
  const pay = signTransaction(networkId, transfer, { body: { to: bob.nodeId, amount: 1n }, nonce: 3 }, alice);
  for (let i = 0; i < 3; i++) judge.lost([pay]);
  assert.equal(await judge.proposes(pay), 'yes');
});
