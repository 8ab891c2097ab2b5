import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createVirtualNetwork } from '../../test/virtual-network.ts';
import { blobProtocol } from '../net/protocol.ts';
import { encodeCanonical } from '../std/codec.ts';
import { sha256, sha256Hex } from '../std/hash.ts';
import { accept, type Outcome } from '../std/outcome.ts';
import { memoryStore } from '../std/store.ts';
import { blobChunkBytes, createBlobShelf, fetchBlob, serveBlobs } from './blob-exchange.ts';

const blob = Uint8Array.from({ length: 2 * blobChunkBytes + 100 }, (_, i) => i % 251);
const hash = sha256Hex(blob);

function pair() {
  const network = createVirtualNetwork(2);
  const [asking, serving] = network.transports as [
    (typeof network.transports)[0],
    (typeof network.transports)[0],
  ];
  const shelf = createBlobShelf(memoryStore());
  const settle = async <T>(work: Promise<T>, ms = 120_000): Promise<T> => {
    let result: { value: T } | undefined;
    void work.then((value) => (result = { value }));
    await network.clock.run(network.clock.nowMs() + ms, () => result !== undefined);
    assert.ok(result, 'still waiting');
    return result.value;
  };
  const fetch = (signal?: AbortSignal, bytes = blob.length) =>
    settle(fetchBlob({ transport: asking, hash, bytes, from: serving.self, signal }));
  return { network, asking, serving, shelf, settle, fetch };
}
const codeOf = (outcome: Outcome<unknown>) => (outcome.ok ? 'accepted' : outcome.code);

test('a blob of several chunks arrives whole', async () => {
  const { serving, shelf, fetch } = pair();
  serveBlobs(serving, shelf);
  assert.equal(codeOf(await fetch()), 'unknown-blob');
  shelf.put(0, hash, blob);
  const fetched = await fetch();
  assert.ok(fetched.ok);
  assert.equal(sha256Hex(fetched.value), hash);
});

test('requests that make no sense are answered with codes', async () => {
  const { asking, serving, shelf, settle } = pair();
  serveBlobs(serving, shelf);
  shelf.put(0, hash, blob);
  const ask = async (body: Uint8Array) =>
    codeOf(await settle(asking.request(serving.self, blobProtocol, body)));
  assert.equal(await ask(encodeCanonical([sha256(blob), blob.length])), 'bad-offset');
  assert.equal(await ask(encodeCanonical([sha256(blob), -1])), 'malformed');
  assert.equal(await ask(encodeCanonical([new Uint8Array(31), 0])), 'malformed');
  assert.equal(await ask(encodeCanonical('blob')), 'malformed');
  assert.equal(await ask(new Uint8Array([0xff, 0x00])), 'malformed');
  assert.equal(await ask(new Uint8Array(blobProtocol.requestBytesMax + 1)), 'too-large');
});

test('a chunk cut short, or too long, ends the fetch', async () => {
  for (const change of [-1, 1]) {
    const { serving, fetch } = pair();
    serving.handle(blobProtocol, async () => accept(new Uint8Array(100 + change)));
    assert.equal(codeOf(await fetch(undefined, 100)), 'truncated');
  }
});

test('a peer that stalls in the middle, or leaves, ends it too', async () => {
  for (const event of ['stalls', 'leaves'] as const) {
    const { network, serving, fetch } = pair();
    let requests = 0;
    serving.handle(blobProtocol, async () => {
      if (++requests === 1) return accept(blob.subarray(0, blobChunkBytes));
      if (event === 'leaves') network.hub.crash(serving.self);
      return new Promise(() => {});
    });
    assert.equal(codeOf(await fetch()), event === 'stalls' ? 'stalled' : 'unreachable');
    assert.equal(requests, 2);
  }
});

test('an abort ends it at once', async () => {
  const { network, serving, fetch } = pair();
  serving.handle(blobProtocol, () => new Promise(() => {}));
  const stop = new AbortController();
  network.clock.setTimer(10, () => stop.abort());
  const startedMs = network.clock.nowMs();
  assert.equal(codeOf(await fetch(stop.signal)), 'aborted');
  assert.ok(network.clock.nowMs() - startedMs <= 10);
});

test('blobs are served for two rounds after their own; own ones are found again after a restart, within a bound', async () => {
  const store = memoryStore();
  const shelf = createBlobShelf(store);
  shelf.put(5, hash, blob);
  shelf.beginRound(7);
  assert.ok(shelf.get(hash));
  shelf.beginRound(8);
  assert.equal(shelf.get(hash), undefined);
  const ownHash = (round: number) => sha256Hex(new Uint8Array([round]));
  for (let round = 0; round < 70; round++) await shelf.keep(round, ownHash(round), new Uint8Array([round]));
  const restarted = createBlobShelf(store);
  assert.equal(restarted.get(ownHash(69)), undefined);
  assert.deepEqual(await restarted.find(ownHash(69)), new Uint8Array([69]));
  assert.deepEqual(await restarted.find(ownHash(6)), new Uint8Array([6]));
  assert.equal(await restarted.find(ownHash(5)), undefined);
  assert.equal((await store.list('blob/')).length, 64);
});
