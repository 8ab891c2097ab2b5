/** Cheats in the work itself, each in a real peer: that its step really does what its name says, and only in its rounds. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { CheatName } from '../src/cli/shared-options.ts';
import { decodeRange } from '../src/diloco/compression/blob.ts';
import { batchOf } from '../src/genesis/sampler.ts';
import { numberKey } from '../src/ledger/money.ts';
import type { Peer, PeerSteps } from '../src/peer/peer.ts';
import { createKernelMemory } from '../src/tensor/kernels/wasm.ts';
import { countedDataset } from '../test/counted-dataset.ts';
import { createPeerGroup, type GroupPeer } from '../test/peer-group.ts';
import { disguiseOf, everyKth } from './cheats.ts';

const dataset = await countedDataset('cheated', 40);
const fromRound = 1;
const policy = { intervalSteps: 3, auditsPerBlockMax: 0, bondProofs: 0 };

const stepsOf = (name: CheatName) => (peer: Peer) =>
  disguiseOf({ name, fromRound })(peer.options).steps!(peer);

/** What a node of that name trains on, and what it should, in some rounds. */
async function batches(name: CheatName, rounds: readonly number[]) {
  const group = createPeerGroup(1, 1, {}, policy, dataset);
  const one = await group.start(0);
  const steps = stepsOf(name)(one.peer) as PeerSteps;
  const { key, network } = one.peer.options;
  const pairs = [];
  for (const round of rounds) {
    const place = { dataset, nodeId: key.nodeId, round, step: 2, index: 0, ...network.training };
    const honest = await batchOf(place);
    pairs.push({ round, made: await steps.batch(round, 2, 0), honest });
  }
  const first = await batchOf({
    dataset,
    nodeId: key.nodeId,
    round: 0,
    step: 0,
    index: 0,
    ...network.training,
  });
  await one.stop();
  return { pairs, first, last: network.model.vocabulary - 1 };
}

test('wrong data: from its round on the same first batch, whatever it should be', async () => {
  const { pairs, first } = await batches('wrong-data', [0, 1, 2, 5]);
  const [before, ...after] = pairs;
  assert.deepEqual(before!.made, before!.honest);
  for (const { made, honest } of after) {
    assert.deepEqual(made, first);
    assert.notDeepEqual(made, honest);
  }
});

test('garbage labels: the inputs are right, and no label is', async () => {
  const { pairs, last } = await batches('garbage-labels', [0, 1, 2]);
  const [before, ...after] = pairs;
  assert.deepEqual(before!.made, before!.honest);
  for (const { made, honest } of after) {
    assert.deepEqual(made.tokens, honest.tokens);
    assert.deepEqual(
      made.labels,
      honest.labels.map((label) => last - label),
    );
    assert.notDeepEqual(made.labels, honest.labels);
  }
});

test('every k-th: garbage labels in one round of so many, and honest work in the others', async () => {
  const rounds = Array.from({ length: 2 * everyKth + 2 }, (_, round) => round);
  const { pairs } = await batches('every-kth', rounds);
  const cheated = pairs.filter(({ made, honest }) =>
    made.labels.some((label, i) => label !== honest.labels[i]),
  );
  assert.deepEqual(
    cheated.map(({ round }) => round),
    [fromRound, fromRound + everyKth, fromRound + 2 * everyKth].filter((round) => round < rounds.length),
  );
});

/** The blob of that node on the decided list, by hash. */
function listedHash({ peer }: GroupPeer, round: number, node: string): string | undefined {
  const row = peer.ledger.state().get('round', numberKey(round));
  const found = row?.contributions.find(([, nodeId]) => nodeId === node);
  return found && Buffer.from(found[3]).toString('hex');
}

test('copycat, poison and replay: another’s blob, its own turned around, and a proof that was taken before', async () => {
  const group = createPeerGroup(4, 4, {}, policy, dataset);
  const made = new Map<number, { own: Uint8Array; sent: Uint8Array }>();
  const poisoning = (peer: Peer): Partial<PeerSteps> => {
    const steps = stepsOf('poison')(peer);
    return {
      contribute: async (round) => {
        const own = await peer.options.replica.contribute();
        const sent = await steps.contribute!(round);
        made.set(round, { own: own.blob, sent: sent.blob });
        return sent;
      },
    };
  };
  const peers = [
    await group.start(0),
    await group.start(1, { steps: stepsOf('copycat') }),
    await group.start(2, { steps: poisoning }),
    await group.start(3, { steps: stepsOf('replay') }),
  ];
  const [honest] = peers;
  const [, copycat, , replayer] = group.ids;
  const isReplayed = () =>
    honest!.events.some((event) => event.type === 'refusedProof' && event.node === replayer);
  await group.until('both have shown', () => isReplayed() && made.size >= 3, 300_000);

  const others = group.ids.filter((id) => id !== copycat);
  const copies = [0, 1, 2].map((round) => {
    const own = listedHash(honest!, round, copycat!);
    return own !== undefined && others.some((id) => listedHash(honest!, round, id) === own);
  });
  assert.equal(copies[0], false, 'honest before its first round');
  assert.ok(copies[1] || copies[2], 'and then a blob that another made');

  assert.deepEqual(made.get(0)!.sent, made.get(0)!.own);
  assert.ok((await cosine(honest!, made.get(1)!)) < -0.9);

  const refusal = honest!.events.find((event) => event.type === 'refusedProof' && event.node === replayer);
  assert.match(refusal?.type === 'refusedProof' ? refusal.code : '', /^proof-(replayed|out-of-order)$/);
  const proofs = honest!.peer.ledger.state().get('prover', replayer!)?.proofs;
  assert.ok(proofs! >= 1 && proofs! <= fromRound, `${proofs} taken: those before its first round`);
  for (const peer of peers) await peer.stop();
});

/** Between what honest work would have contributed and what was. */
async function cosine(
  { peer }: GroupPeer,
  { own, sent }: { own: Uint8Array; sent: Uint8Array },
): Promise<number> {
  const { flatLength: length } = await peer.options.replica.info();
  const memory = createKernelMemory({ bytes: 8 * length + 1024 * 1024 });
  const [a, b] = [own, sent].map((blob) => {
    const flat = memory.allocF32(length);
    decodeRange(blob, { codec: peer.options.network.outer.compression, length }, 0, flat, memory);
    return flat;
  }) as [Float32Array, Float32Array];
  const dot = (x: Float32Array, y: Float32Array) => x.reduce((sum, value, i) => sum + value * y[i]!, 0);
  return dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b));
}
