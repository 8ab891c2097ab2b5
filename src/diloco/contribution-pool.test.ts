/** What a node takes in and what it refuses, when announcements and blobs come from anyone. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  announced,
  blobOf,
  createVirtualNetwork,
  named,
  screeningReplica,
  shape,
  shapes,
  testBase,
} from '../../test/virtual-network.ts';
import { keyPairFrom } from '../identity/keys.ts';
import { blobProtocol } from '../net/protocol.ts';
import { utf8 } from '../std/bytes.ts';
import { sha256, sha256Hex } from '../std/hash.ts';
import type { Outcome } from '../std/outcome.ts';
import { memoryStore } from '../std/store.ts';
import { createBlobShelf, serveBlobs } from './blob-exchange.ts';
import { createContributionPool } from './contribution-pool.ts';
import type { PoolOptions } from './pool-state.ts';
import type { Contribution, StageReplica } from './replica.ts';

const codeOf = (outcome: Outcome<unknown>) => (outcome.ok ? 'accepted' : outcome.code);

/** Node 0 has the pool; the others have a shelf each, and nothing else. Members are the first four. */
function poolOf(count = 4, replica: StageReplica = screeningReplica, staged: Partial<PoolOptions> = {}) {
  const network = createVirtualNetwork(count);
  const refused: string[] = [];
  let changes = 0;
  const shelves = network.transports.map((transport) => {
    const shelf = createBlobShelf(memoryStore());
    serveBlobs(transport, shelf);
    return shelf;
  });
  const pool = createContributionPool({
    transport: network.transports[0]!,
    clock: network.clock,
    replica,
    shelf: shelves[0]!,
    stage: 0,
    shapes: [shape],
    votes: true,
    batchesMax: 20,
    members: new Map(network.ids.slice(0, 4).map((id) => [id, 0])),
    onChange: () => void changes++,
    onRejected: (round, node, code) => void refused.push(`${round} ${network.ids.indexOf(node)} ${code}`),
    ...staged,
  });
  pool.begin(0, testBase);
  /** Node `index` has the blob and announces it. */
  const contribute = (index: number, made: Contribution, as = {}) => {
    shelves[index]!.put(0, made.blobHash, made.blob);
    return codeOf(pool.offer(announced(network.keys[index]!, made, as), network.ids[index]!));
  };
  const valid = () => pool.valid().map(({ announcement }) => network.ids.indexOf(announcement.nodeId));
  return { ...network, network, pool, shelves, refused, contribute, valid, changes: () => changes };
}

test('announced, fetched, screened: valid, and served from here on', async () => {
  const { pool, shelves, contribute, valid, run, clock, changes } = poolOf();
  const made = blobOf(1);
  const beganMs = clock.nowMs();
  assert.equal(contribute(2, made), 'accepted');
  assert.deepEqual(valid(), []);
  await run(1000);
  assert.deepEqual(valid(), [2]);
  assert.equal(changes(), 1);
  assert.ok(shelves[0]!.get(made.blobHash));
  assert.equal(pool.valid()[0]!.validAtMs, beganMs + 4, 'there and back');
  assert.equal(contribute(2, made), 'accepted', 'the same once more is no news');
  await run(1000);
  assert.equal(changes(), 1);
});

test('announcements that do not fit are refused with their codes, and nothing is fetched for them', async () => {
  const { contribute, valid, run, refused, ids, network } = poolOf();
  let asked = 0;
  network.link = () => {
    asked++;
    return { delayMs: 2, lost: false };
  };
  assert.equal(contribute(1, blobOf(1), { round: 9 }), 'wrong-round');
  assert.equal(contribute(1, blobOf(1), { round: 3 }), 'wrong-round');
  assert.equal(contribute(1, blobOf(1), { base: sha256Hex(utf8('other')) }), 'wrong-base');
  assert.equal(contribute(2, blobOf(1), { blobBytes: 10 ** 12 }), 'wrong-shape');
  assert.equal(contribute(3, blobOf(1), { batches: 21 }), 'too-many-batches');
  assert.equal(contribute(0, blobOf(1), { batches: 0 }), 'no-work', 'a node that passes is no offender');
  await run(1000);
  assert.equal(asked, 0);
  assert.deepEqual(valid(), []);
  assert.deepEqual(refused, ['0 1 wrong-base', '0 2 wrong-shape', '0 3 too-many-batches']);
  assert.equal(ids.length, 4);
});

test('blobs that are no contributions are refused: not finite, of another shape, with bytes changed', async () => {
  const { contribute, valid, run, refused } = poolOf();
  const size = blobOf(0).blob.length;
  contribute(1, blobOf(Number.NaN));
  contribute(2, blobOf(Number.POSITIVE_INFINITY));
  contribute(3, named(new Uint8Array(size).fill(7)));
  await run(60_000);
  assert.deepEqual(valid(), []);
  assert.deepEqual(refused.map((one) => one.slice(0, 3)).sort(), ['0 1', '0 2', '0 3']);
  for (const one of refused) assert.doesNotMatch(one, /unavailable|mismatch|failed/);
});

test('a blob with another hash is asked for elsewhere, and who sent it is penalised', async () => {
  const { contribute, valid, run, transports, refused } = poolOf();
  const penalties: string[] = [];
  const { penalize } = transports[0]!;
  transports[0]!.penalize = (peer, code) => {
    penalties.push(`${transports.findIndex(({ self }) => self === peer)} ${code}`);
    penalize(peer, code);
  };
  const made = blobOf(1);
  contribute(1, { ...made, blob: blobOf(2).blob });
  await run(60_000);
  assert.deepEqual(valid(), []);
  assert.deepEqual(refused, ['0 1 hash-mismatch']);
  assert.deepEqual(penalties, ['1 hash-mismatch']);
});

test('a liar does not keep the blob from coming from elsewhere', async () => {
  const { contribute, valid, run, shelves } = poolOf();
  const made = blobOf(1);
  shelves[3]!.put(0, made.blobHash, made.blob);
  contribute(1, { ...made, blob: blobOf(2).blob });
  await run(1000);
  assert.deepEqual(valid(), [1]);
});

test('an announcer that stalls or has gone: the blob comes from who else has it', async () => {
  for (const event of ['stalls', 'gone'] as const) {
    const { contribute, valid, run, shelves, transports, hub, ids } = poolOf();
    const made = blobOf(1);
    shelves[3]!.put(0, made.blobHash, made.blob);
    if (event === 'stalls') {
      hub.crash(ids[1]!);
      hub.join(ids[1]!).handle(blobProtocol, () => new Promise(() => {}));
    }
    contribute(1, made);
    if (event === 'gone') await transports[1]!.close();
    await run(30_000);
    assert.deepEqual(valid(), [1], event);
  }
});

test('what nobody had is asked for again when it is wanted again', async () => {
  const { pool, keys, ids, shelves, run, valid, refused } = poolOf();
  const made = blobOf(1);
  const one = announced(keys[1]!, made);
  pool.offer(one, ids[1]!);
  await run(60_000);
  assert.deepEqual(refused, ['0 1 blob-unavailable']);
  assert.ok(pool.settled().has(ids[1]!), 'nobody waits for it');
  shelves[2]!.put(0, made.blobHash, made.blob);
  const obtained = pool.obtain(one);
  await run(1000);
  assert.equal(codeOf(await obtained), 'accepted');
  assert.deepEqual(valid(), [1]);
});

test('two announcements of one node: the first stands', async () => {
  const { contribute, valid, run, pool } = poolOf();
  const first = blobOf(1);
  contribute(1, first);
  assert.equal(contribute(1, blobOf(2)), 'equivocation');
  await run(1000);
  assert.equal(contribute(1, blobOf(3)), 'equivocation');
  assert.deepEqual(valid(), [1]);
  assert.equal(pool.valid()[0]!.announcement.blobHash, first.blobHash);
});

test('a copied blob is valid under both names; screening tells them apart later', async () => {
  const { contribute, valid, run } = poolOf();
  contribute(1, blobOf(1));
  contribute(2, blobOf(1));
  await run(1000);
  assert.deepEqual(valid(), [1, 2]);
});

test('early announcements wait for their round, two rounds ahead at most', async () => {
  const { contribute, valid, run, pool } = poolOf();
  const next = sha256Hex(utf8('next'));
  assert.equal(contribute(1, blobOf(1), { round: 1, base: next }), 'accepted');
  assert.equal(contribute(2, blobOf(2), { round: 1 }), 'accepted');
  assert.equal(contribute(3, blobOf(3), { round: 3 }), 'wrong-round');
  await run(1000);
  assert.deepEqual(valid(), []);
  pool.begin(1, next);
  await run(1000);
  assert.deepEqual(valid(), [1], 'the other was against another base');
});

test('a flood of strangers takes no room from members, now or early', async () => {
  const { contribute, valid, run, pool, refused, network, shelves } = poolOf();
  const made = blobOf(1);
  for (let i = 0; i < 80; i++) {
    const stranger = keyPairFrom(sha256(utf8(`stranger ${i}`)));
    for (const round of [0, 1]) pool.offer(announced(stranger, made, { round }), network.ids[1]!);
    pool.offer(announced(stranger, made, { base: sha256Hex(utf8('x')) }), network.ids[1]!);
  }
  assert.ok(refused.length <= 64, `${refused.length} refusals kept`);
  assert.ok(pool.settled().size <= 64);
  assert.equal(contribute(1, made), 'accepted');
  assert.equal(contribute(2, made, { round: 1 }), 'accepted');
  await run(1000);
  assert.ok(valid().includes(1));
  pool.begin(1, testBase);
  shelves[2]!.put(1, made.blobHash, made.blob);
  await run(1000);
  assert.ok(valid().includes(2));
});

test('a round begun again on another base: what was on its way for the old one does not count', async () => {
  const { contribute, valid, run, pool, refused } = poolOf();
  const made = blobOf(1);
  const other = sha256Hex(utf8('other'));
  contribute(1, made);
  pool.begin(0, other);
  assert.equal(contribute(1, made, { base: other }), 'accepted');
  await run(60_000);
  assert.deepEqual(valid(), [1]);
  assert.equal(pool.valid()[0]!.announcement.base, other);
  assert.deepEqual(refused, []);
});

test('a replica that fails, and a pool that is closed, reject nothing into the air', async () => {
  const failing = {
    screen: async () => Promise.reject(new Error('compute-stopped')),
  } as unknown as StageReplica;
  const broken = poolOf(4, failing);
  broken.contribute(1, blobOf(1));
  await broken.run(1000);
  assert.deepEqual(broken.valid(), []);
  assert.deepEqual(broken.refused, ['0 1 failed']);
  const closed = poolOf();
  closed.contribute(1, blobOf(1));
  closed.pool.close();
  await closed.run(60_000);
  assert.deepEqual([closed.valid(), closed.refused, closed.changes()], [[], [], 0]);
});

const otherBase = sha256Hex(utf8('base of the other stage'));
/** A contribution to the second of two stages. */
const deeper = (value: number) => blobOf(value, shapes[1]);
const toStage1 = { stage: 1, base: otherBase };

test('who votes takes in the blobs of every stage, each in the form of its own; any base of another stage', async () => {
  const { contribute, valid, run, refused, shelves } = poolOf(6, screeningReplica, { shapes });
  contribute(1, blobOf(1));
  const made = deeper(2);
  assert.equal(contribute(2, made, toStage1), 'accepted');
  assert.equal(contribute(3, deeper(3)), 'wrong-shape');
  assert.equal(contribute(3, blobOf(3), toStage1), 'wrong-shape');
  assert.equal(contribute(4, blobOf(4), { ...toStage1, stage: 2 }), 'wrong-stage');
  assert.equal(contribute(5, deeper(Number.NaN), toStage1), 'accepted');
  await run(1000);
  assert.deepEqual(valid().sort(), [1, 2]);
  assert.ok(shelves[0]!.get(made.blobHash), 'and serves them');
  assert.deepEqual(refused, ['0 3 wrong-shape', '0 4 wrong-stage', '0 5 not-finite']);
});

test('who has no vote takes in its own stage only, and asks nobody for the rest', async () => {
  const { contribute, valid, run, refused, network } = poolOf(4, screeningReplica, { shapes, votes: false });
  let asked = 0;
  network.link = () => {
    asked++;
    return { delayMs: 2, lost: false };
  };
  assert.equal(contribute(1, deeper(1), toStage1), 'not-wanted');
  assert.equal(contribute(1, deeper(1), { ...toStage1, round: 1 }), 'not-wanted');
  await run(1000);
  assert.deepEqual([asked, valid(), refused], [0, [], []]);
  contribute(2, blobOf(2));
  await run(1000);
  assert.deepEqual(valid(), [2]);
});

test('a blob that is sound in one stage is not taken for one of another, nor one node for two stages', async () => {
  const { pool, keys, contribute, valid, run } = poolOf(4, screeningReplica, { shapes });
  const made = blobOf(1);
  contribute(1, made);
  assert.equal(contribute(1, made, { ...toStage1, blobBytes: deeper(1).blob.length }), 'equivocation');
  await run(1000);
  assert.deepEqual(valid(), [1]);
  const disguised = announced(keys[1]!, made, { ...toStage1, blobBytes: deeper(1).blob.length });
  const obtained = pool.obtain(disguised);
  await run(60_000);
  assert.equal(codeOf(await obtained), 'wrong-length');
});

test('the blob of another stage is asked of members before others', async () => {
  const { contribute, valid, run, shelves, transports, network } = poolOf(24, screeningReplica, { shapes });
  const made = deeper(1);
  shelves[3]!.put(0, made.blobHash, made.blob);
  const { peers } = transports[0]!;
  transports[0]!.peers = () => [...peers()].sort((a, b) => network.ids.indexOf(b) - network.ids.indexOf(a));
  await transports[20]!.close();
  contribute(20, made, toStage1);
  await run(60_000);
  assert.deepEqual(valid(), [20]);
});
