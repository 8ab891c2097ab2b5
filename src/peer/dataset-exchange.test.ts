import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { createVirtualClock, type VirtualClock } from '../../sim/virtual-clock.ts';
import { type Dataset, memoryDataset } from '../genesis/dataset.ts';
import { publishManifest } from '../genesis/manifest.ts';
import {
  bytesOfTokens,
  chunkBytes,
  chunkWithProof,
  encodeChunk,
  packTokens,
  shardLeaves,
} from '../genesis/shard.ts';
import { keyPairFrom } from '../identity/keys.ts';
import { createMemoryHub, type MemoryHub } from '../net/memory-transport.ts';
import { shardProtocol } from '../net/protocol.ts';
import type { Transport } from '../net/transport.ts';
import { fromHex, utf8 } from '../std/bytes.ts';
import { type Canonical, decodeCanonical, encodeCanonical } from '../std/codec.ts';
import { sha256, sha256Hex } from '../std/hash.ts';
import { merkleRoot } from '../std/merkle.ts';
import { accept, CodedError, type Outcome, reject } from '../std/outcome.ts';
import { seededRandom } from '../std/random.ts';
import {
  type DatasetCache,
  type FetchDatasetOptions,
  type FetchedPart,
  fetchDataset,
  serveDataset,
} from './dataset-exchange.ts';

// Two pieces, the second shorter.
const tokenizerJson = Uint8Array.from({ length: 100_000 }, (_, i) => i % 251);
/** Shards of five, one and two chunks. */
const shards = [150_000, 10, 65_536].map((tokens, seed) =>
  bytesOfTokens(
    packTokens(
      Array.from({ length: tokens }, (_, i) => (i * 7919 + seed) % 500),
      2,
    ),
  ),
);

function datasetOf(name: string): Dataset {
  const manifest = {
    format: 1,
    name,
    sources: [],
    tokenizerHash: sha256(tokenizerJson),
    vocabularySize: 500,
    tokenBytes: 2,
    shards: shards.map((bytes, index) => ({
      index,
      tokens: bytes.length / 2,
      bytes: bytes.length,
      merkleRoot: merkleRoot(shardLeaves(bytes)),
    })),
    heldOut: [2],
  } as const;
  return memoryDataset(
    publishManifest(manifest, keyPairFrom(sha256(utf8('publisher')))),
    tokenizerJson,
    shards,
  );
}

const original = datasetOf('test');
const { hash } = original;

interface World {
  readonly clock: VirtualClock;
  readonly hub: MemoryHub;
  readonly penalties: string[];
  readonly parts: FetchedPart[];
  readonly warnings: string[];
  join(name: string): Transport;
  /** A node that answers what its handler makes of the honest answer; returns how often it was asked. */
  liar(name: string, answer: (request: Canonical, honest: Uint8Array) => Outcome<Uint8Array>): () => number;
  fetch(options?: Partial<FetchDatasetOptions>): ReturnType<typeof fetchDataset>;
  /** Lets time pass until the promise has settled. */
  run<T>(promise: Promise<T>): Promise<T>;
}

/** Names come before each other in the order in which peers are asked. */
function createWorld(): World {
  const clock = createVirtualClock();
  const hub = createMemoryHub({ clock, random: seededRandom(sha256(utf8('seed'))) });
  const penalties: string[] = [];
  const parts: FetchedPart[] = [];
  const warnings: string[] = [];
  const honest = createMemoryHub({ clock, random: seededRandom(sha256(utf8('side'))) });
  return {
    clock,
    hub,
    penalties,
    parts,
    warnings,
    join: (name) => hub.join(name),
    liar(name, answer) {
      const asked = honest.join(`${name} behind`);
      serveDataset(asked, original);
      const asker = honest.join(`${name} before`);
      let times = 0;
      // Its own limits are not the protocol's: it may send more.
      hub.join(name).handle({ ...shardProtocol, responseBytesMax: 1 << 30 }, async (_from, request) => {
        times += 1;
        const right = await asker.request(asked.self, shardProtocol, request);
        const decoded = decodeCanonical(request, shardProtocol.requestBytesMax);
        assert.ok(decoded.ok && right.ok);
        return answer(decoded.value as Canonical, right.value);
      });
      return () => times;
    },
    fetch(options = {}) {
      const transport = options.transport ?? hub.join('fetcher');
      return fetchDataset({
        clock,
        hash,
        signal: new AbortController().signal,
        onFetched: (part) => parts.push(part),
        onWarning: (code) => warnings.push(code),
        ...options,
        transport: {
          ...transport,
          penalize: (peer, code) => {
            penalties.push(`${peer}: ${code}`);
            transport.penalize(peer, code);
          },
        },
      });
    },
    async run(promise) {
      let settled = false;
      const ended = promise.finally(() => {
        settled = true;
      });
      ended.catch(() => {});
      for (let ms = 0; ms < 1_000_000 && !settled; ms += 10) await clock.advance(10);
      assert.ok(settled, 'it ends');
      return await ended;
    },
  };
}

function memoryCache(): DatasetCache & { readonly kept: Map<number, Uint8Array> } {
  const kept = new Map<number, Uint8Array>();
  let documents: Awaited<ReturnType<DatasetCache['load']>>;
  return {
    kept,
    load: async () => documents,
    save: async (published, tokenizer) => {
      documents = { published, tokenizerJson: tokenizer };
    },
    holds: (shard) => kept.has(shard),
    read: async (shard) => kept.get(shard),
    write: async (shard, bytes) => void kept.set(shard, bytes),
  };
}

async function assertWhole(world: World, dataset: Dataset): Promise<void> {
  for (const [index, bytes] of shards.entries())
    assert.deepEqual(bytesOfTokens(await world.run(dataset.shard(index))), bytes);
}

const isChunk = (request: Canonical): request is [string, Uint8Array, number, number] =>
  Array.isArray(request) && request[0] === 'chunk';

test('a dataset comes from peers whole, with its publisher, and is asked for once', async () => {
  const world = createWorld();
  serveDataset(world.join('a'), original);
  serveDataset(world.join('b'), original);
  const { dataset } = await world.run(world.fetch());
  assert.equal(dataset.hash, hash);
  assert.deepEqual(dataset.publisher, original.publisher);
  assert.deepEqual(dataset.tokenizerJson, tokenizerJson);
  await assertWhole(world, dataset);
  await assertWhole(world, dataset);
  assert.deepEqual(
    world.parts.map(({ part, shard }) => shard ?? part),
    ['manifest', 'tokenizer', 0, 1, 2],
  );
  assert.deepEqual(world.penalties, []);
});

test('what was fetched is kept, needs no peer again, and is served on', async () => {
  const world = createWorld();
  const first = world.join('a');
  serveDataset(first, original);
  const cache = memoryCache();
  const transport = world.join('fetcher');
  const { dataset, served } = await world.run(world.fetch({ transport, cache }));
  await world.run(dataset.shard(0));
  await first.close();
  serveDataset(transport, served);
  const third = await world.run(world.fetch({ transport: world.join('third'), patienceMs: 5_000 }));
  assert.deepEqual(bytesOfTokens(await world.run(third.dataset.shard(0))), shards[0]);
  await assert.rejects(world.run(third.dataset.shard(1)), { code: 'dataset-unavailable' });

  await transport.close();
  const again = await world.run(world.fetch({ transport: world.join('fetcher'), cache }));
  assert.deepEqual(bytesOfTokens(await world.run(again.dataset.shard(0))), shards[0]);
  assert.deepEqual(world.penalties, []);
});

const position = (chunk: number, other: number) => (chunk === 0 ? other : 0);
/** Answers to a request for a chunk that must never be used; with the code that the liar is penalised with. */
const chunkLies: Record<string, [string, (request: number[], honest: Uint8Array) => Uint8Array]> = {
  'other bytes': ['bad-proof', (_, honest) => flipped(honest)],
  'another chunk of the shard': ['bad-proof', ([chunk]) => chunkOfShard(0, position(chunk!, 1))],
  'a chunk of another shard': ['bad-proof', ([chunk]) => chunkOfShard(2, position(chunk!, 0))],
  'a chunk that is too short': ['bad-proof', () => encodeCanonical({ chunk: new Uint8Array(10), proof: [] })],
  'a chunk that is too long': [
    'bad-proof',
    () => encodeCanonical({ chunk: new Uint8Array(chunkBytes + 1), proof: [] }),
  ],
  'a truncated message': ['malformed', (_, honest) => honest.subarray(0, honest.length / 2)],
  'nothing at all': ['malformed', () => new Uint8Array()],
  'something else': ['malformed', () => encodeCanonical([1, 2])],
  'far too much': ['too-large', () => new Uint8Array(1 << 20)],
};

function flipped(message: Uint8Array): Uint8Array {
  const copy = message.slice();
  copy[1000]! ^= 1;
  return copy;
}

function chunkOfShard(shard: number, chunk: number): Uint8Array {
  const made = chunkWithProof(shards[shard]!, chunk);
  assert.ok(made.ok);
  return encodeChunk(made.value);
}

for (const [lie, [code, answer]] of Object.entries(chunkLies)) {
  test(`a peer that answers ${lie} is penalised, not asked again, and another is asked`, async () => {
    const world = createWorld();
    const asked = world.liar('a', (request, right) =>
      accept(isChunk(request) ? answer([request[3]], right) : right),
    );
    serveDataset(world.join('b'), original);
    const { dataset } = await world.run(world.fetch());
    const before = asked();
    await assertWhole(world, dataset);
    assert.deepEqual(world.penalties, code === 'too-large' ? [] : [`a: ${code}`]);
    assert.ok(asked() - before >= 1 && asked() - before <= 4, 'no more than were in flight');
  });
}

test('with liars alone nothing is used, and the wait ends', async () => {
  const world = createWorld();
  for (const name of ['a', 'b', 'c'])
    world.liar(name, (request, right) => accept(isChunk(request) ? flipped(right) : right));
  const { dataset } = await world.run(world.fetch());
  const startMs = world.clock.nowMs();
  await assert.rejects(world.run(dataset.shard(0)), { code: 'dataset-unavailable' });
  assert.ok(world.clock.nowMs() - startMs < 90_000);
  assert.equal(world.penalties.length, 3);
});

/** By what is told of [bytes of all, piece]. */
const documentLies: Record<string, (honest: [number, Uint8Array]) => Canonical> = {
  'another document': () => [5, new Uint8Array(5)],
  'a total that no document may have': ([, bytes]) => [2 ** 40, bytes],
  'a piece that is too short': ([total, bytes]) => [total, bytes.subarray(1)],
  'an empty piece': () => [0, new Uint8Array()],
  'no piece': () => 'no',
};

for (const part of ['manifest', 'tokenizer']) {
  for (const [lie, answer] of Object.entries(documentLies)) {
    test(`a peer that answers ${lie} for the ${part} is penalised, and another is asked`, async () => {
      const world = createWorld();
      world.liar('a', (request, right) => {
        const honest = decodeCanonical(right, 1 << 20);
        assert.ok(honest.ok && Array.isArray(request));
        return accept(
          request[0] === part ? encodeCanonical(answer(honest.value as [number, Uint8Array])) : right,
        );
      });
      serveDataset(world.join('b'), original);
      const { dataset } = await world.run(world.fetch());
      assert.deepEqual(dataset.tokenizerJson, tokenizerJson);
      assert.equal(world.penalties.length, 1);
    });
  }
}

test('the manifest of another dataset is refused', async () => {
  const world = createWorld();
  const other = datasetOf('other');
  serveDataset(world.join('a'), { ...other, hash });
  serveDataset(world.join('b'), original);
  const { dataset } = await world.run(world.fetch());
  assert.equal(dataset.manifest.name, 'test');
  assert.deepEqual(world.penalties, ['a: hash-mismatch']);
});

test('a peer that never answers costs time, not the dataset, and no penalty', async () => {
  const world = createWorld();
  world.join('a').handle(shardProtocol, () => new Promise(() => {}));
  serveDataset(world.join('b'), original);
  const startMs = world.clock.nowMs();
  const { dataset } = await world.run(world.fetch());
  await assertWhole(world, dataset);
  assert.ok(world.clock.nowMs() - startMs < 60_000);
  assert.deepEqual(world.penalties, []);
});

test('with stalled peers alone, and with none, the search ends as dataset-unavailable', async () => {
  for (const names of [['a', 'b'], []]) {
    const world = createWorld();
    for (const name of names) world.join(name).handle(shardProtocol, () => new Promise(() => {}));
    const startMs = world.clock.nowMs();
    await assert.rejects(world.run(world.fetch({ startPatienceMs: 30_000 })), {
      code: 'dataset-unavailable',
      message: /the manifest of dataset .* within 30 seconds/,
    });
    assert.ok(world.clock.nowMs() - startMs < 60_000);
    assert.deepEqual(world.warnings, ['dataset-waiting']);
  }
});

test('a peer that appears later is asked as soon as it is there', async () => {
  const world = createWorld();
  const fetching = world.fetch();
  await world.clock.advance(30_000);
  serveDataset(world.join('a'), original);
  const startMs = world.clock.nowMs();
  const { dataset } = await world.run(fetching);
  assert.ok(world.clock.nowMs() - startMs < 500);
  assert.equal(dataset.hash, hash);
});

test('peers without the dataset, or without the shard, are passed over and not penalised', async () => {
  const world = createWorld();
  serveDataset(world.join('a'), datasetOf('other'));
  world.join('b');
  serveDataset(world.join('c'), { ...original, shard: async () => undefined });
  serveDataset(world.join('d'), original);
  const { dataset } = await world.run(world.fetch());
  await assertWhole(world, dataset);
  assert.deepEqual(world.penalties, []);
});

test('an abort ends a search with its reason, and later reads too', async () => {
  const world = createWorld();
  const stop = new AbortController();
  const fetching = world.fetch({ signal: stop.signal });
  await world.clock.advance(1_000);
  stop.abort(new CodedError('stopped', 'enough'));
  await assert.rejects(fetching, { code: 'stopped' });

  const other = createWorld();
  serveDataset(other.join('a'), original);
  const leave = new AbortController();
  const { dataset } = await other.run(other.fetch({ signal: leave.signal }));
  const reading = dataset.shard(0);
  leave.abort(new CodedError('stopped', 'enough'));
  await assert.rejects(other.run(reading), { code: 'stopped' });
  await assert.rejects(other.run(dataset.shard(1)), { code: 'stopped' });
});

test('a shard that was kept damaged is fetched again; a cache that cannot be written is a warning', async () => {
  const world = createWorld();
  serveDataset(world.join('a'), original);
  const cache = memoryCache();
  cache.kept.set(0, flipped(shards[0]!));
  const { dataset } = await world.run(
    world.fetch({
      cache: {
        ...cache,
        save: async () => {
          throw new CodedError('disk-full', 'no space');
        },
      },
    }),
  );
  assert.deepEqual(bytesOfTokens(await world.run(dataset.shard(0))), shards[0]);
  assert.deepEqual(cache.kept.get(0), shards[0]);
  assert.deepEqual(world.warnings, ['cache-failed', 'cache-damaged']);
});

test('what is asked against the rules is refused', async () => {
  const world = createWorld();
  const server = world.join('a');
  serveDataset(server, original);
  const asker = world.join('b');
  const name = fromHex(hash);
  const codeOf = async (request: Canonical) => {
    const answer = await world.run(asker.request(server.self, shardProtocol, encodeCanonical(request)));
    return answer.ok ? 'answered' : answer.code;
  };
  assert.equal(await codeOf(['chunk', name, 0, 4]), 'answered');
  assert.equal(await codeOf(['chunk', name, 0, 5]), 'no-such-chunk');
  assert.equal(await codeOf(['chunk', name, 3, 0]), 'no-such-chunk');
  assert.equal(await codeOf(['chunk', name, 0]), 'malformed');
  assert.equal(await codeOf(['chunk', name, -1, 0]), 'malformed');
  assert.equal(await codeOf(['tokenizer', name, 2]), 'no-such-piece');
  assert.equal(await codeOf(['manifest', name.subarray(1), 0]), 'malformed');
  assert.equal(await codeOf(['manifest', fromHex(sha256Hex(utf8('else'))), 0]), 'unknown-dataset');
  assert.equal(await codeOf(['leaves', name, 0]), 'malformed');
  assert.equal(await codeOf({}), 'malformed');
});

test('whatever bytes a peer answers, the search goes on to the next', async () => {
  await fc.assert(
    fc.asyncProperty(fc.uint8Array({ maxLength: 200 }), fc.boolean(), async (bytes, isAnswer) => {
      const world = createWorld();
      world.liar('a', () => (isAnswer ? accept(bytes) : reject(`code-${bytes.length}`, 'no')));
      serveDataset(world.join('b'), original);
      const { dataset } = await world.run(world.fetch());
      assert.deepEqual(bytesOfTokens(await world.run(dataset.shard(1))), shards[1]);
    }),
    { numRuns: 25 },
  );
});
