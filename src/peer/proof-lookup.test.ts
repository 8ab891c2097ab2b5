/** What an audit learns of a claim from blocks: the prover's own proofs, in order, and nothing where blocks are missing. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { testKeys } from '../../test/consensus-group.ts';
import { encodeBlock } from '../ledger/block.ts';
import { memoryLedgerStore } from '../ledger/memory-store.ts';
import { numberKey } from '../ledger/money.ts';
import { type ProofBody, proofKey } from '../ledger/proof.ts';
import { createState } from '../ledger/state.ts';
import type { DutyRow, RoundRow } from '../ledger/tables.ts';
import { transactionId } from '../ledger/transaction.ts';
import { proof } from '../ledger/transactions/proof.ts';
import { toHex, utf8 } from '../std/bytes.ts';
import { sha256 } from '../std/hash.ts';
import type { LedgerKeeper } from './ledger.ts';
import { claimOfDuty } from './proof-lookup.ts';

const [prover, other] = testKeys(2) as [ReturnType<typeof testKeys>[0], ReturnType<typeof testKeys>[0]];
const networkId = sha256(utf8('a network'));
const hashOf = (name: string) => sha256(utf8(name));

function bodyOf(round: number, type: ProofBody['type'] = 'training'): ProofBody {
  const counts = { tokens: 48, batches: 3, layers: 1, nonce: round + 1, stage: 0, firstStep: 0, endStep: 3 };
  return {
    type,
    timestampMs: 1_000 + round,
    ...counts,
    hasEmbedding: true,
    hasHead: true,
    round,
    base: hashOf(`base ${round}`),
    before: hashOf(`before ${round}`),
    states: [hashOf(`after ${round}`)],
    firstBatch: 3 * round,
    endBatch: 3 * round + 3,
    lossMicronats: 0,
    contribution: null,
    work: null,
  };
}

/** One block for each proof; both keys' accounts are touched by all, as if they had proposed in turn. */
async function ledgerOf(proofs: readonly (readonly [key: typeof prover, body: ProofBody])[], from = 0) {
  const store = memoryLedgerStore();
  const zeros = new Uint8Array(32);
  const place = { hash: zeros, height: 1, epoch: 0, stateRoot: zeros };
  await store.install({ ...place, number: from }, []);
  for (const [i, [key, body]] of proofs.entries()) {
    if (i < from) continue;
    const signature = new Uint8Array(64).fill(1);
    const { publicKey } = key;
    const transaction = { kind: 'proof', nonce: i + 1, body: proof.encode(body), publicKey, signature };
    const number = i + 1;
    const header = {
      number,
      parentHash: zeros,
      parentStateRoot: zeros,
      timeMs: number,
      proposer: other.nodeId,
    };
    const beacon = { beaconPreimage: null, beaconCommitment: zeros };
    const payload = encodeBlock({ ...header, ...beacon, transactions: [transaction] });
    const entry = {
      id: transactionId(networkId, transaction),
      kind: 'proof',
      accounts: [prover.nodeId, other.nodeId],
    };
    const made = { ...place, number, timeMs: number, proposer: other.nodeId, payload, certificate: null };
    await store.append({ ...made, transactions: [entry] }, []);
  }
  const own = proofs.filter(([key, { type }]) => key === prover && type === 'training');
  const duties = own.map(([, body], i) => {
    const none = {
      contribution: null,
      auditors: [],
      commitments: [],
      reveals: [],
      tier: 0,
      dueAt: 0,
      dueMs: 0,
      drawAt: 9,
      interval: 0,
    };
    const row: DutyRow = {
      ...none,
      prover: prover.nodeId,
      proof: i + 1,
      first: false,
      intervals: 1,
      reward: 0n,
    };
    return { table: 'duty' as const, key: proofKey(networkId, prover.nodeId, body), row };
  });
  const contributed: RoundRow = {
    list: zeros,
    contributions: [[0, prover.nodeId, zeros, zeros, 3]],
    stated: [],
    agreed: [],
  };
  const state = createState([
    ...duties,
    { table: 'round', key: numberKey(1), row: contributed },
    { table: 'round', key: numberKey(2), row: { ...contributed, contributions: [] } },
  ]);
  const ledger = { constants: { networkId }, state: () => state, store } as unknown as LedgerKeeper;
  return (round: number) => claimOfDuty(ledger, proofKey(networkId, prover.nodeId, bodyOf(round)));
}

test("the proof before is the prover's own, whatever others proved in between", async () => {
  const claimOf = await ledgerOf([
    [prover, bodyOf(0)],
    [other, bodyOf(0)],
    [prover, bodyOf(1)],
    [other, bodyOf(1)],
    [prover, bodyOf(1, 'uptime')],
    [prover, bodyOf(2)],
    [other, bodyOf(2)],
    [prover, bodyOf(3)],
  ]);
  const first = await claimOf(0);
  assert.equal(first?.previous, null);
  assert.deepEqual(first?.states, [toHex(hashOf('before 0')), toHex(hashOf('after 0'))]);
  const second = await claimOf(1);
  assert.deepEqual(second?.previous, {
    round: 0,
    state: toHex(hashOf('after 0')),
    base: toHex(hashOf('base 0')),
    listed: null,
  });
  assert.equal((await claimOf(2))?.previous?.listed, true);
  const last = await claimOf(3);
  assert.deepEqual([last?.previous?.round, last?.previous?.listed], [2, false]);
  assert.equal(await claimOf(4), undefined, 'no such duty');
});

test('where the block of the proof before is missing nothing is judged', async () => {
  const proofs = [0, 1, 2].map((round) => [prover, bodyOf(round)] as const);
  const claimOf = await ledgerOf(proofs, 1);
  assert.equal(await claimOf(0), undefined);
  assert.equal(await claimOf(1), undefined, 'its own block is here, the one before is not');
  assert.equal((await claimOf(2))?.previous?.round, 1);
});

test('proofs further back than a page are found', async () => {
  const many = Array.from({ length: 300 }, (_, round) => [other, bodyOf(round)] as const);
  const claimOf = await ledgerOf([[prover, bodyOf(0)], [prover, bodyOf(1)], ...many]);
  assert.equal((await claimOf(1))?.previous?.round, 0);
});
