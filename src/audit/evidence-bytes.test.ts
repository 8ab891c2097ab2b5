/** Bytes by their own hash over the network: from the prover or from whoever fetched them, never from who sends others. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { createVirtualNetwork } from '../../test/virtual-network.ts';
import { evidenceBytesProtocol } from '../net/protocol.ts';
import { fromHex } from '../std/bytes.ts';
import { encodeCanonical } from '../std/codec.ts';
import { sha256Hex } from '../std/hash.ts';
import type { Outcome } from '../std/outcome.ts';
import { createEvidenceShelf } from './evidence.ts';
import { type BytesSource, createBytesFetch, serveEvidenceBytes } from './evidence-bytes.ts';

const rows = new Uint8Array(5_000).map((_, i) => i % 251);
const hash = sha256Hex(rows);
const has: BytesSource = async (wanted) => (wanted === hash ? rows : undefined);
const nothing: BytesSource = async () => undefined;
const liar: BytesSource = async () => rows.slice(1);

/** Node 0 asks, nodes from 1 on serve these. */
function world(sources: readonly BytesSource[]) {
  const network = createVirtualNetwork(1 + sources.length);
  const penalties: string[] = [];
  const transport = network.transports[0]!;
  transport.penalize = (peer, code) => void penalties.push(`${network.ids.indexOf(peer)} ${code}`);
  for (const [i, each] of sources.entries()) serveEvidenceBytes(network.transports[i + 1]!, [each]);
  const wait = async <T>(promise: Promise<T>): Promise<T> => {
    let settled: { readonly value: T } | undefined;
    void promise.then((value) => (settled = { value }));
    await network.clock.run(network.clock.nowMs() + 600_000, () => settled !== undefined);
    assert.ok(settled, 'still waiting');
    return settled.value;
  };
  const abort = new AbortController();
  const fetcher = (shelf = createEvidenceShelf({ bytesMax: 1e6 }), local: readonly BytesSource[] = []) => {
    const request = { transport, shelf, local, peers: network.ids.slice(1), signal: abort.signal };
    const fetch = createBytesFetch(request);
    return (bytesMax = rows.length, wanted = hash) => wait(fetch(wanted, bytesMax));
  };
  return { network, penalties, fetcher, wait, abort };
}

test('what a peer has is taken, kept on the shelf, and served on without it', async () => {
  const { fetcher, network } = world([nothing, has]);
  const shelf = createEvidenceShelf({ bytesMax: 1e6 });
  assert.deepEqual(await fetcher(shelf)(), rows);
  assert.deepEqual(shelf.bytesOf(hash), rows);
  assert.equal(shelf.bytes, rows.length);
  assert.equal(await shelf.index(hash), undefined, 'a state is something else');
  const relay = world([async (wanted) => shelf.bytesOf(wanted)]);
  assert.deepEqual(await relay.fetcher()(), rows);
  assert.equal(network.ids.length, 3);
});

test('what this node itself kept is not asked for', async () => {
  const { fetcher, penalties } = world([liar]);
  assert.deepEqual(await fetcher(undefined, [has])(), rows);
  assert.deepEqual(penalties, []);
  // Nor trusted: a disk may be damaged.
  assert.equal(await fetcher(undefined, [liar])(), undefined);
});

test('who sends other bytes is penalised once and not asked again; the others are', async () => {
  const { fetcher, penalties } = world([liar, has]);
  const fetch = fetcher();
  assert.deepEqual(await fetch(), rows);
  assert.equal(await fetch(10, sha256Hex(rows.slice(2))), undefined);
  assert.deepEqual(penalties, ['1 bad-evidence']);
});

test('more bytes than there can be are not taken, and what nobody has is not there', async () => {
  const { fetcher, abort } = world([has]);
  assert.equal(await fetcher()(rows.length - 1), undefined);
  assert.equal(await world([nothing]).fetcher()(), undefined);
  abort.abort();
  assert.equal(await fetcher()(), undefined, 'nobody is asked any more');
});

test('questions that are none are refused with a code', async () => {
  const { network, wait } = world([has]);
  const ask = async (body: Uint8Array) => {
    const answer: Outcome<Uint8Array> = await wait(
      network.transports[0]!.request(network.ids[1]!, evidenceBytesProtocol, body),
    );
    return answer.ok ? 'accepted' : answer.code;
  };
  assert.equal(await ask(encodeCanonical(fromHex(hash))), 'accepted');
  assert.equal(await ask(encodeCanonical(new Uint8Array(32))), 'unknown-evidence');
  for (const body of [new Uint8Array(31), [fromHex(hash)], hash.slice(0, 32), null])
    assert.equal(await ask(encodeCanonical(body)), 'malformed');
  assert.equal(await ask(new Uint8Array([1, 2, 3])), 'malformed');
});

test('property: a shelf never keeps more than its bound but for the newest, whatever is put', () => {
  const size = fc.integer({ min: 1, max: 300 });
  fc.assert(
    fc.property(fc.array(size, { maxLength: 30 }), (sizes) => {
      const shelf = createEvidenceShelf({ bytesMax: 1_000 });
      for (const [i, length] of sizes.entries()) {
        const bytes = new Uint8Array(length).fill(i);
        shelf.putBytes(sha256Hex(bytes), bytes);
        assert.ok(shelf.bytes <= 1_000);
        assert.deepEqual(shelf.bytesOf(sha256Hex(bytes)), bytes);
      }
    }),
  );
});
