/** Both sides of an audit: evidence that memory had no room for is made again, and a verdict is ready for the ledger. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  auditDataset,
  auditRules,
  auditSettings,
  interpretedExecutor,
  interpretedProver,
} from '../../test/audit-world.ts';
import { virtualClock } from '../../test/virtual-clock.ts';
import { verdictCommitment } from '../ledger/verdict.ts';
import type { Transport } from '../net/transport.ts';
import { toHex } from '../std/bytes.ts';
import { inTurn } from '../std/in-turn.ts';
import { createAuditBudget } from './budget.ts';
import type { TrainingClaim } from './claim.ts';
import { type DutyOptions, performDuty } from './duty.ts';
import { createEvidenceShelf, type EvidenceShelf, fetchEvidence, type WantedState } from './evidence.ts';
import { provideEvidence } from './provide.ts';

const rules6 = { ...auditRules, innerSteps: 6 };
const { flatLength } = await (await interpretedProver('anybody')).replica.info();
// Room for the ends of a few rounds, and for nothing between them.
const recording = { intervalSteps: 2, bytesMax: 15 * 4 * flatLength };
const prover = await interpretedProver('prover', { recording }, rules6);
const claims = [await prover.round(), await prover.round()];
const rules = { ...rules6, flatLength };
const executor = await interpretedExecutor();

function fetchFrom(shelf: EvidenceShelf) {
  const request = {
    transport: {} as Transport,
    shelf,
    local: [],
    peers: [],
    plan: auditSettings.plan,
    flatLength,
    signal: new AbortController().signal,
  };
  return (wanted: readonly WantedState[]) => fetchEvidence(request, wanted);
}

function dutyOf(claim: TrainingClaim, interval: number, shelf: EvidenceShelf) {
  const { clock, advance } = virtualClock();
  let cpuMs = 0;
  const due = new AbortController();
  clock.setTimer(60_000, () => due.abort());
  const options: DutyOptions = {
    claim,
    interval,
    rules,
    dataset: auditDataset,
    fetch: fetchFrom(shelf),
    fetchBytes: async () => undefined,
    executor,
    networkId: new Uint8Array(32).fill(1),
    auditor: 'ab'.repeat(32),
    duty: 'cd'.repeat(32),
    salt: new Uint8Array(32).fill(5),
    clock,
    budget: createAuditBudget({ clock }),
    cpuMs: async () => (cpuMs += 500),
    due: due.signal,
    signal: new AbortController().signal,
  };
  return { options, advance, clock };
}

const turn = inTurn();

async function provide(claim: TrainingClaim, interval: number) {
  const shelf = createEvidenceShelf({ bytesMax: 1e9 });
  const { replica } = prover;
  const own = { replica, turn, work: undefined, shelf };
  const provided = await provideEvidence({ claim, interval, rules, dataset: auditDataset, ...own });
  return { shelf, provided };
}

/** In virtual time. */
async function run(options: DutyOptions, advance: (ms: number) => Promise<void>) {
  let done: { readonly value: Awaited<ReturnType<typeof performDuty>> } | undefined;
  void performDuty(options).then((value) => (done = { value }));
  for (let i = 0; i < 200 && !done; i++) await advance(500);
  assert.ok(done, 'still waiting');
  return done.value;
}

for (const interval of [0, 1, 2]) {
  test(`interval ${interval}: what was not kept is replayed, and stands`, async () => {
    const claim = claims[1]!;
    const before = await prover.replica.snapshot();
    const { shelf, provided } = await provide(claim, interval);
    // Of the round before, memory has kept no more than its ends, which is what the first interval needs.
    assert.ok(provided.ok, JSON.stringify(provided));
    assert.deepEqual(await prover.replica.snapshot(), before);
    const { options } = dutyOf(claim, interval, shelf);
    const done = await performDuty(options);
    assert.ok(done);
    assert.equal(done.finding.code, 'valid');
    assert.deepEqual(done.reveal, {
      duty: options.duty,
      verdict: 'valid',
      hash: done.reveal.hash,
      salt: options.salt,
    });
    assert.equal(toHex(done.reveal.hash), claim.states[interval + 1]);
    assert.deepEqual(done.commitment, verdictCommitment(options.networkId, options.auditor, done.reveal));
    assert.ok(options.budget.waitMs(2) > 0, 'the duty was charged');
  });
}

test('several intervals that are drawn at once are made again one after the other', async () => {
  const drawn = claims.slice(-2).flatMap((claim) => [0, 1].map((interval) => ({ claim, interval })));
  const made = await Promise.all(drawn.map(({ claim, interval }) => provide(claim, interval)));
  for (const { provided } of made) assert.ok(provided.ok, JSON.stringify(provided));
});

test('a prover that has lost its evidence learns so', async () => {
  const { provided } = await provide(
    { ...claims[0]!, round: 7, states: claims[0]!.states.map(() => '00'.repeat(32)) },
    0,
  );
  assert.ok(!provided.ok && provided.code === 'not-kept');
});

test('evidence that comes late is waited for; what does not come in time is withheld', async () => {
  const claim = claims[1]!;
  const { shelf } = await provide(claim, 1);
  const empty = createEvidenceShelf({ bytesMax: 1e9 });
  const never = dutyOf(claim, 1, empty);
  const withheld = await run(never.options, never.advance);
  assert.equal(withheld?.finding.verdict, 'withheld');
  assert.ok(withheld.reveal.hash.every((byte) => byte === 0));
  assert.ok(never.clock.nowMs() >= 58_000);
  const late = dutyOf(claim, 1, empty);
  const fetch: DutyOptions['fetch'] = (wanted) =>
    fetchFrom(late.clock.nowMs() < 9_000 ? empty : shelf)(wanted);
  assert.equal((await run({ ...late.options, fetch }, late.advance))?.finding.verdict, 'valid');
});

test('an audit that the budget does not afford in time is not done', async () => {
  const { options, advance, clock } = dutyOf(claims[1]!, 1, createEvidenceShelf({ bytesMax: 1e9 }));
  options.budget.spent(10_000, 2);
  assert.equal(await run(options, advance), undefined);
  assert.ok(clock.nowMs() >= 60_000, 'it waited as long as it could');
});

test('a duty that a round waits for begins at once, and is charged afterwards', async () => {
  const { shelf } = await provide(claims[1]!, 1);
  const { options, advance, clock } = dutyOf(claims[1]!, 1, shelf);
  options.budget.spent(10_000, 2);
  const owedMs = options.budget.waitMs(2);
  const done = await run({ ...options, isAwaited: true }, advance);
  assert.equal(done?.finding.verdict, 'valid');
  assert.ok(clock.nowMs() < owedMs, 'it did not wait');
  assert.ok(options.budget.waitMs(2) > 0, 'and it owes more');
});
