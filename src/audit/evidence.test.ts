/** Evidence over the network: from the prover, from whoever fetched it before, and never from who sends something else. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { auditSettings, interpretedProver } from '../../test/audit-world.ts';
import { assertNeverThrows } from '../../test/fuzz.ts';
import { createVirtualNetwork } from '../../test/virtual-network.ts';
import { decodeStateIndex } from '../diloco/local-state.ts';
import { evidenceProtocol } from '../net/protocol.ts';
import type { Transport } from '../net/transport.ts';
import { fromHex } from '../std/bytes.ts';
import { encodeCanonical } from '../std/codec.ts';
import { accept, type Outcome } from '../std/outcome.ts';
import { wantedStates } from './claim.ts';
import {
  createEvidenceShelf,
  type EvidenceShelf,
  type EvidenceSource,
  fetchEvidence,
  replicaSource,
  serveEvidence,
  shelveEvidence,
  type WantedState,
} from './evidence.ts';

const prover = await interpretedProver('prover');
await prover.round();
const claim = await prover.round();
const wanted = Object.values(wantedStates(claim, 0)) as WantedState[];
const { flatLength } = await prover.replica.info();
const source = replicaSource(prover.replica);
const codeOf = (outcome: Outcome<unknown>) => (outcome.ok ? 'accepted' : outcome.code);
const shelfOf = (bytesMax = 1e9) => createEvidenceShelf({ bytesMax });

/** Node 0 asks, nodes from 1 on serve these. */
function world(sources: readonly (EvidenceSource | undefined)[]) {
  const network = createVirtualNetwork(1 + sources.length);
  const penalties: string[] = [];
  const asking = network.transports[0]!;
  asking.penalize = (peer, code) => void penalties.push(`${network.ids.indexOf(peer)} ${code}`);
  for (const [i, each] of sources.entries()) if (each) serveEvidence(network.transports[i + 1]!, [each]);
  const wait = async <T>(promise: Promise<T>): Promise<T> => {
    let settled: { readonly value: T } | undefined;
    void promise.then((value) => (settled = { value }));
    await network.clock.run(network.clock.nowMs() + 600_000, () => settled !== undefined);
    assert.ok(settled, 'still waiting');
    return settled.value;
  };
  const fetch = (shelf: EvidenceShelf, states = wanted) =>
    wait(
      fetchEvidence(
        {
          transport: asking,
          shelf,
          local: [],
          peers: network.ids.slice(1),
          plan: auditSettings.plan,
          flatLength,
          signal: new AbortController().signal,
        },
        states,
      ),
    );
  const ask = (body: Uint8Array, transport: Transport = asking) =>
    wait(transport.request(network.ids[1]!, evidenceProtocol, body));
  return { fetch, ask, penalties };
}

test('what the prover serves is taken, kept and served on, without the prover', async () => {
  const shelf = shelfOf();
  const first = await world([source]).fetch(shelf);
  assert.ok(first.ok);
  assert.equal(first.value.length, wanted.length);
  const relayed = await world([undefined, shelf]).fetch(shelfOf());
  assert.deepEqual(relayed, first);
  const own = await world([]).fetch(shelf);
  assert.deepEqual(own, first);
});

test('states share leaves, and what is forgotten leaves nothing behind', async () => {
  const shelf = shelfOf();
  const tensors = ['firstMoments', 'secondMoments'] as const;
  // The moments of one round's end are those of the next one's start.
  const states = [claim.previous!.state, claim.states[0]!].map((hash) => ({ hash, tensors }));
  const sizes = [];
  for (const state of states) {
    assert.ok((await world([source]).fetch(shelf, [state])).ok);
    sizes.push(shelf.bytes);
  }
  assert.ok(sizes[0]! > 2 * 4 * flatLength);
  assert.ok(sizes[1]! < sizes[0]! + 4 * flatLength);
  shelf.forget(states[0]!.hash);
  assert.deepEqual(await shelf.leaf(states[1]!.hash, 1), await source.leaf(states[0]!.hash, 1));
  shelf.forget(states[1]!.hash);
  assert.equal(shelf.bytes, 0);
});

test('a bounded shelf lets go of the oldest states', async () => {
  const bytesMax = 5 * 4 * flatLength;
  const shelf = shelfOf(bytesMax);
  assert.ok((await world([source]).fetch(shelf)).ok);
  assert.ok(shelf.bytes <= bytesMax);
  assert.equal(await shelf.index(wanted[0]!.hash), undefined);
  assert.ok(await shelf.index(wanted.at(-1)!.hash));
});

test('who sends something else is penalised, and the others are asked', async () => {
  const flip = (bytes: Uint8Array | undefined) => bytes?.map((byte, i) => (i === 20 ? byte ^ 1 : byte));
  const liars: EvidenceSource[] = [
    { index: async (hash) => flip(await source.index(hash)), leaf: source.leaf },
    { index: source.index, leaf: async (hash, index) => flip(await source.leaf(hash, index)) },
    { index: async () => new Uint8Array(3), leaf: async () => new Uint8Array(3) },
    { index: async () => source.index(claim.states[2]!), leaf: source.leaf },
  ];
  for (const liar of liars) {
    const { fetch, penalties } = world([liar, source]);
    assert.ok((await fetch(shelfOf())).ok);
    assert.deepEqual(penalties, ['1 bad-evidence']);
    assert.equal(codeOf(await world([liar]).fetch(shelfOf())), 'withheld');
  }
});

test('what nobody has is withheld', async () => {
  const nothing = { index: async () => undefined, leaf: async () => undefined };
  for (const peers of [[], [undefined], [nothing], [{ ...source, leaf: nothing.leaf }]])
    assert.equal(codeOf(await world(peers).fetch(shelfOf())), 'withheld');
});

test('a prover takes its evidence over from the replica, or learns that it must replay', async () => {
  const shelf = shelfOf();
  assert.ok((await shelveEvidence(source, shelf, wanted, flatLength)).ok);
  assert.ok((await world([shelf]).fetch(shelfOf())).ok);
  const unknown = [{ hash: '00'.repeat(32), tensors: [] }];
  assert.equal(codeOf(await shelveEvidence(source, shelf, unknown, flatLength)), 'not-kept');
  const thin = { ...source, leaf: async () => undefined };
  assert.equal(codeOf(await shelveEvidence(thin, shelfOf(), wanted, flatLength)), 'not-kept');
});

test('questions that are none are refused with a code', async () => {
  const { ask } = world([source]);
  const hash = fromHex(claim.states[0]!);
  const questions: [Parameters<typeof encodeCanonical>[0], string][] = [
    [[hash, null], 'accepted'],
    [[hash, 0], 'accepted'],
    [[hash, 1_000_000], 'unknown-evidence'],
    [[new Uint8Array(32), null], 'unknown-evidence'],
    [[new Uint8Array(31), null], 'malformed'],
    [[hash, -1], 'malformed'],
    [[hash, 0.5], 'malformed'],
    [[hash], 'malformed'],
    ['hash', 'malformed'],
  ];
  for (const [question, code] of questions) assert.equal(codeOf(await ask(encodeCanonical(question))), code);
  assert.equal(codeOf(await ask(new Uint8Array([1, 2, 3]))), 'malformed');
});

test('property: no bytes make the index reader throw', async () => {
  const encoded = await source.index(claim.base);
  assert.ok(encoded);
  assertNeverThrows((bytes) => decodeStateIndex(bytes), encoded);
  assert.equal(codeOf(accept(undefined)), 'accepted');
});
