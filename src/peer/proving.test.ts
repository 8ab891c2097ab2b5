/** What a node claims of a round, and when it says nothing, breaks its chain, or leaves one that has begun alone. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { namedKey } from '../../test/ledger-world.ts';
import { virtualClock } from '../../test/virtual-clock.ts';
import type { Boundary, RoundRecord } from '../diloco/recording.ts';
import type { ProofBody } from '../ledger/proof.ts';
import { stateStatement } from '../ledger/transactions/state.ts';
import type { Seal } from '../pipeline/seals.ts';
import type { StepEvidence } from '../pipeline/step-evidence.ts';
import { workHash, workOf } from '../pipeline/work-list.ts';
import { toHex } from '../std/bytes.ts';
import { undated } from './claim-sending.ts';
import type { Peer } from './peer.ts';
import { type ClosedRound, prove, stateToLedger } from './proving.ts';

const key = namedKey('proving');
const hashOf = (byte: number) => byte.toString(16).padStart(2, '0').repeat(32);
const innerSteps = 6;
const microbatches = 2;

interface World {
  readonly engineId?: string;
  readonly stage?: number;
  readonly stages?: number;
  /** Steps of the rounds that are recorded, by round. */
  readonly recorded: Readonly<Record<number, number>>;
  /** Microbatches of the steps that a stage of several kept, by round; absent: it keeps nothing. */
  readonly kept?: Readonly<Record<number, readonly number[] | undefined>>;
  readonly prover?: { readonly after: Uint8Array | null; readonly round: number; readonly step: number };
  readonly loggedRound?: number;
  readonly member?: { readonly stage: number };
  readonly proof?: (body: ProofBody) => Promise<ProofBody | undefined>;
}

function recordOf(round: number, steps: number): RoundRecord {
  const at = [...Array.from({ length: Math.ceil(steps / 2) }, (_, i) => 2 * i), steps];
  const boundaries = at.map((step): Boundary => {
    return { round, step, optimizerSteps: step, hash: hashOf(16 * round + step), kept: true };
  });
  return { round, base: hashOf(200 + round), boundaries };
}

const seal: Seal = { publicKey: new Uint8Array(33), signature: new Uint8Array(64) };

function evidenceOf(round: number, step: number, count: number): StepEvidence {
  const row = { entry: null, target: null, sentRows: null, sentGradient: null, answer: null };
  const made = { ...row, madeAt: step, summedAt: step };
  return {
    driver: key.nodeId,
    round,
    step,
    norm: 1,
    normSeal: seal,
    microbatches: Array.from({ length: count }, (_, index) => ({ index, ...made })),
    receipt: null,
    rest: null,
  };
}

function world(options: World) {
  const { stage = 0, stages = 1, engineId = 'interpreter', kept, recorded } = options;
  const { clock } = virtualClock();
  const claimed: ProofBody[] = [];
  const sent: unknown[] = [];
  let breaks = 0;
  const work = kept && {
    stepsOf: async (round: number) =>
      kept[round]?.map((count, step) => evidenceOf(round, step % innerSteps, count)),
    rows: async () => undefined,
  };
  const rows: Record<string, unknown> = {
    prover: options.prover,
    member: options.member && { ...options.member, registered: true, convicted: false },
    chain: { voters: [[key.nodeId, 1]] },
  };
  const peer = {
    options: {
      clock,
      key,
      ...(options.loggedRound !== undefined && { loggedRound: options.loggedRound }),
      replica: {
        info: async () => ({ engineId }),
        record: async (round: number) =>
          recorded[round] === undefined ? undefined : recordOf(round, recorded[round]),
        breakChain: async () => void breaks++,
      },
    },
    pipeline: { stage, stages, work },
    ledger: {
      constants: { innerSteps, microbatches, tokensPerBatch: 10, stageLayers: [3, 2, 1].slice(0, stages) },
      state: () => ({ get: (table: string) => rows[table] }),
      send: (rule: unknown, body: unknown) => sent.push([rule, body]),
    },
    steps: { proof: options.proof ?? (async (body: ProofBody) => body) },
    claims: { add: (body: ProofBody) => claimed.push(body) },
  } as unknown as Peer;
  return { peer, claimed, sent, breaks: () => breaks };
}

const closed = (round: number, losses: readonly number[] = []): ClosedRound => ({
  round,
  contribution: hashOf(9),
  work: { round, losses, tokens: 0 },
  position: {
    round: round + 1,
    step: 0,
    optimizerSteps: 0,
    stateHash: hashOf(77),
    contributed: false,
  },
});

test('a whole model claims the steps, batches and states of the round', async () => {
  const { peer, claimed, breaks } = world({ recorded: { 2: 5, 3: 0 } });
  await prove(peer, closed(2, [1.5, 2.5]));
  const [body] = claimed as [ProofBody];
  assert.equal(breaks(), 0);
  assert.ok(undated.has(body), 'it is dated when it is sent');
  const { round, stage, firstStep, endStep, batches, tokens, firstBatch, endBatch, work } = body;
  assert.deepEqual([round, stage, firstStep, endStep], [2, 0, 0, 5]);
  assert.deepEqual([batches, tokens, firstBatch, endBatch, work], [10, 100, 24, 34, null]);
  assert.deepEqual([body.layers, body.hasEmbedding, body.hasHead], [3, true, true]);
  assert.equal(toHex(body.before), hashOf(32));
  assert.deepEqual(body.states.map(toHex), [hashOf(34), hashOf(36), hashOf(37)]);
  assert.equal(toHex(body.base), hashOf(202));
  assert.equal(toHex(body.contribution!), hashOf(9));
  assert.equal(body.lossMicronats, 2_000_000);
});

test('a loss that is none, or no number, is claimed as far as it can be', async () => {
  const { peer, claimed } = world({ recorded: { 2: 5, 3: 0 } });
  for (const losses of [[], [1e9], [-1]]) await prove(peer, closed(2, losses));
  assert.deepEqual(
    claimed.map(({ lossMicronats }) => lossMicronats),
    [0, 1_000_000_000, 0],
  );
});

test('a stage of several claims the list of its steps and the microbatches in it', async () => {
  const kept = { 1: [2, 2, 1, 2] };
  const { peer, claimed } = world({ stage: 1, stages: 3, recorded: { 1: 4, 2: 0 }, kept });
  await prove(peer, closed(1));
  const [body] = claimed as [ProofBody];
  assert.deepEqual([body.batches, body.tokens, body.firstBatch, body.endBatch], [7, 70, 12, 19]);
  assert.deepEqual([body.layers, body.hasEmbedding, body.hasHead], [2, false, false]);
  const steps = kept[1].map((count, step) => evidenceOf(1, step, count));
  assert.equal(toHex(body.work!), workHash(workOf(steps)));
});

test('a later stage claims the steps of several Drivers, a Driver its own only', async () => {
  const kept = { 1: Array.from({ length: 12 }, () => 2), 2: [2] };
  const recorded = { 1: 12, 2: 0 };
  const later = world({ stage: 2, stages: 3, recorded, kept });
  await prove(later.peer, closed(1));
  assert.equal(later.claimed[0]?.endStep, 12);
  assert.equal(later.claimed[0]?.hasHead, true);
  const first = world({ stage: 0, stages: 3, recorded, kept });
  await prove(first.peer, closed(1));
  assert.deepEqual([first.claimed.length, first.breaks()], [0, 1]);
});

test('a stage whose evidence is not whole claims nothing, and begins anew', async () => {
  for (const steps of [undefined, [2, 2, 2]]) {
    const { peer, claimed, breaks } = world({
      stage: 1,
      stages: 2,
      recorded: { 1: 4, 2: 0 },
      kept: { 1: steps },
    });
    await prove(peer, closed(1));
    assert.deepEqual([claimed.length, breaks()], [0, 1]);
  }
});

test('where nothing is recorded nothing is claimed and nothing broken, round after round', async () => {
  const unmeasured = world({ engineId: 'webgpu', recorded: {} });
  const recordedAnyway = world({ engineId: 'webgpu', recorded: { 0: 6, 1: 6, 2: 6, 3: 0 } });
  const withoutRows = world({ stage: 1, stages: 2, recorded: { 0: 6, 1: 6, 2: 6, 3: 0 } });
  for (const { peer, claimed, breaks } of [unmeasured, recordedAnyway, withoutRows]) {
    for (const round of [0, 1, 2]) await prove(peer, closed(round));
    assert.deepEqual([claimed.length, breaks()], [0, 0]);
  }
});

test('a round without a record ends the chain once: one that has begun since is left alone', async () => {
  const restored = world({ recorded: {} });
  await prove(restored.peer, closed(4));
  assert.equal(restored.breaks(), 1);
  // The round after is recorded: it began from nothing, and can be claimed.
  const begun = world({ recorded: { 5: 0 } });
  await prove(begun.peer, closed(4));
  assert.equal(begun.breaks(), 0);
  const logged = world({ recorded: {}, loggedRound: 6 });
  await prove(logged.peer, closed(5));
  assert.equal(logged.breaks(), 0, 'logged steps are to be made again with their moments');
  await prove(logged.peer, closed(6));
  assert.equal(logged.breaks(), 1);
});

test('a round begun again from another state ends the chain', async () => {
  const { peer, claimed, breaks } = world({ recorded: { 3: 2 } });
  const again = closed(3);
  await prove(peer, { ...again, position: { ...again.position, round: 3 } });
  assert.deepEqual([claimed.length, breaks()], [0, 1]);
});

test('what is claimed already, or has no step, is not claimed again', async () => {
  const recorded = { 3: 6, 4: 0 };
  const after = new Uint8Array(32);
  const counts = async (made: ReturnType<typeof world>, round = 3) => {
    await prove(made.peer, closed(round));
    return [made.claimed.length, made.breaks()];
  };
  assert.deepEqual(await counts(world({ recorded, prover: { after, round: 3, step: 6 } })), [0, 0]);
  assert.deepEqual(await counts(world({ recorded, prover: { after, round: 4, step: 2 } })), [0, 0]);
  assert.deepEqual(await counts(world({ recorded, prover: { after, round: 2, step: 6 } })), [1, 0]);
  assert.deepEqual(await counts(world({ recorded, prover: { after: null, round: 9, step: 0 } })), [1, 0]);
  assert.deepEqual(await counts(world({ recorded: { 3: 0, 4: 0 } })), [0, 0]);
  assert.deepEqual(await counts(world({ recorded: { 3: 7, 4: 0 } })), [0, 1], 'more steps than a round has');
});

test('who would rather not claim claims nothing, and keeps its chain', async () => {
  const { peer, claimed, breaks } = world({ recorded: { 3: 6, 4: 0 }, proof: async () => undefined });
  await prove(peer, closed(3));
  assert.deepEqual([claimed.length, breaks()], [0, 0]);
});

test('a voter of the stage says what it stands on; nobody else does', () => {
  const stated = (options: Partial<World>) => {
    const { peer, sent } = world({ recorded: {}, ...options });
    stateToLedger(peer, closed(3));
    return sent;
  };
  const [[rule, body]] = stated({ member: { stage: 0 } }) as [[unknown, { readonly round: number }]];
  assert.equal(rule, stateStatement);
  assert.equal(body.round, 3);
  assert.deepEqual(stated({ member: { stage: 1 } }), []);
  assert.deepEqual(stated({}), []);
});
