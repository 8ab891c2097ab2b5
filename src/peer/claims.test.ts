/** Claims in order: one at a time, again when lost, and given up when the ledger will never take them. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { ProofBody } from '../ledger/proof.ts';
import { accept, type Outcome, reject } from '../std/outcome.ts';
import { createClaims } from './claims.ts';

const claim = (round: number) =>
  ({ round, states: [new Uint8Array(32).fill(round + 1)] }) as unknown as ProofBody;

function world() {
  const sent: number[] = [];
  const lost: string[] = [];
  const waiting = new Set<number>();
  let newest: Uint8Array | null = null;
  let refusal: string | undefined;
  const claims = createClaims({
    newest: () => newest,
    send: (body): Outcome<Uint8Array> => {
      if (refusal) return reject(refusal);
      sent.push(body.round);
      waiting.add(body.round);
      return accept(new Uint8Array([body.round]));
    },
    waits: ([round]) => waiting.has(round!),
    onLost: ({ round }, code) => lost.push(`${round} ${code}`),
  });
  return {
    claims,
    sent,
    lost,
    drop: (round: number) => void waiting.delete(round),
    refuse: (code: string | undefined) => void (refusal = code),
    take: (round: number) => {
      waiting.delete(round);
      newest = claim(round).states.at(-1)!;
      claims.settle();
    },
  };
}

test('the next claim goes out when the one before is taken', () => {
  const { claims, sent, take } = world();
  claims.add(claim(0));
  claims.add(claim(1));
  claims.settle();
  assert.deepEqual(sent, [0]);
  take(0);
  assert.deepEqual(sent, [0, 1]);
  take(1);
  assert.equal(claims.due, 0);
});

test('a claim that was dropped on the way is sent again, before any later one', () => {
  const { claims, sent, drop, take } = world();
  claims.add(claim(0));
  claims.add(claim(1));
  drop(0);
  claims.settle();
  assert.deepEqual(sent, [0, 0]);
  take(0);
  assert.deepEqual(sent, [0, 0, 1]);
});

test('what the next blocks may mend is tried with each of them, for a while', () => {
  const { claims, sent, lost, refuse } = world();
  refuse('round-unknown');
  claims.add(claim(0));
  claims.settle();
  refuse(undefined);
  claims.settle();
  assert.deepEqual([sent, lost], [[0], []]);
  const other = world();
  other.refuse('round-unknown');
  other.claims.add(claim(0));
  for (let block = 0; block < 20; block++) other.claims.settle();
  assert.deepEqual(other.lost, ['0 round-unknown']);
});

test('after a refusal for good nothing that follows from it is sent', () => {
  const { claims, sent, lost, refuse } = world();
  claims.add(claim(0));
  claims.add(claim(1));
  const broken = world();
  broken.refuse('base-not-agreed');
  broken.claims.add(claim(0));
  assert.deepEqual(broken.lost, ['0 base-not-agreed']);
  assert.equal(broken.claims.due, 0);
  refuse('base-not-agreed');
  assert.deepEqual([sent, lost, claims.due], [[0], [], 2]);
});

test('a ledger that stands still does not gather claims without end', () => {
  const { claims, lost } = world();
  for (let round = 0; round < 40; round++) claims.add(claim(round));
  assert.ok(claims.due <= 16);
  assert.deepEqual(lost[0], '0 too-many-due');
});
