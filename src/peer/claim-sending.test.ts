/** Claims as transactions: dated when they go out, each after the last that the ledger took, and a broken chain told. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { namedKey } from '../../test/ledger-world.ts';
import { virtualClock } from '../../test/virtual-clock.ts';
import type { ProofBody } from '../ledger/proof.ts';
import type { TransactionRule } from '../ledger/rules.ts';
import type { ProverRow } from '../ledger/tables.ts';
import { accept, type Outcome, reject } from '../std/outcome.ts';
import { createPeerClaims, releaseWork, undated } from './claim-sending.ts';
import type { NodeEvent } from './events.ts';
import type { LedgerNode } from './ledger-node.ts';

const key = namedKey('claiming');

const bodyOf = (round: number) =>
  ({
    round,
    timestampMs: 5,
    nonce: 5,
    states: [new Uint8Array(32).fill(round + 1)],
  }) as unknown as ProofBody;

function world() {
  const { clock, advance } = virtualClock();
  const sent: ProofBody[] = [];
  const events: NodeEvent[] = [];
  let prover: Partial<ProverRow> | undefined;
  let refusal: string | undefined;
  let breaks = 0;
  const ledger = {
    state: () => ({
      get: (table: string, node: string) => (table === 'prover' && node === key.nodeId ? prover : undefined),
    }),
    mempool: { has: () => false },
    send: (_rule: TransactionRule<ProofBody>, body: ProofBody): Outcome<{ readonly id: Uint8Array }> => {
      if (refusal) return reject(refusal);
      sent.push(body);
      return accept({ id: new Uint8Array([sent.length]) });
    },
  } as unknown as LedgerNode;
  const replica = { breakChain: async () => void breaks++ };
  const claims = createPeerClaims({ key, clock, replica, events: (event) => events.push(event), ledger });
  return {
    claims,
    sent,
    events,
    advance,
    breaks: () => breaks,
    stands: (row: Partial<ProverRow>) => void (prover = row),
    refuse: (code: string | undefined) => void (refusal = code),
  };
}

function undatedBody(round: number): ProofBody {
  const body = bodyOf(round);
  undated.add(body);
  return body;
}

test('an own claim gets time and nonce when it is sent, both beyond the last proof’s', async () => {
  const { claims, sent, advance, stands } = world();
  await advance(1_000.7);
  claims.add(undatedBody(1));
  assert.deepEqual([sent[0]!.timestampMs, sent[0]!.nonce], [1_000, 1_000]);
  stands({ after: sent[0]!.states.at(-1)!, recentMs: [2_000], nonce: 7_000 });
  claims.settle();
  claims.add(undatedBody(2));
  assert.deepEqual([sent[1]!.timestampMs, sent[1]!.nonce], [2_001, 7_001]);
});

test('sent again it is dated again, and stays the same claim', async () => {
  const { claims, sent, advance } = world();
  claims.add(undatedBody(1));
  await advance(9_000);
  claims.settle();
  assert.equal(sent.length, 2);
  assert.deepEqual(
    sent.map(({ timestampMs }) => timestampMs),
    [1, 9_000],
  );
  assert.equal(sent[1]!.round, 1);
});

test('a claim that somebody else has dated goes out as it is', () => {
  const { claims, sent } = world();
  const body = bodyOf(3);
  claims.add(body);
  assert.equal(sent[0], body);
});

test('what the ledger will never take breaks the chain, once, and says so', async () => {
  const { claims, sent, events, breaks, refuse } = world();
  refuse('state-chain-broken');
  claims.add(undatedBody(4));
  await new Promise(setImmediate);
  assert.equal(breaks(), 1);
  assert.deepEqual(sent, []);
  assert.equal(claims.due, 0);
  assert.deepEqual(events, [
    {
      type: 'warning',
      code: 'state-chain-broken',
      detail: 'the proof of round 4 is not taken: claims begin anew',
    },
  ]);
  refuse(undefined);
  claims.add(undatedBody(6));
  assert.equal(sent.length, 1);
  assert.equal(breaks(), 1);
});

test('a refusal that later blocks may mend breaks nothing', () => {
  const { claims, sent, breaks, refuse } = world();
  refuse('round-unknown');
  claims.add(undatedBody(4));
  assert.equal(claims.due, 1);
  refuse(undefined);
  claims.settle();
  assert.equal(sent.length, 1);
  assert.equal(breaks(), 0);
});

test('rows are let go of when no claim is on its way and none awaits its draw', () => {
  const released = (due: number, openDuties: number | undefined) => {
    const before: number[] = [];
    const row = openDuties === undefined ? undefined : { openDuties };
    const ledger = { state: () => ({ get: () => row }) } as unknown as LedgerNode;
    const work = { release: (round: number) => before.push(round) };
    releaseWork({ claims: { due }, ledger, nodeId: key.nodeId, round: 7, work });
    return before;
  };
  assert.deepEqual(released(0, 0), [6]);
  assert.deepEqual(released(0, undefined), [6]);
  assert.deepEqual(released(1, 0), []);
  assert.deepEqual(released(0, 1), []);
});
