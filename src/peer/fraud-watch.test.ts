/** Nodes of an in-memory network that check the claims of Drivers, and accuse each other. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { countedDataset } from '../../test/counted-dataset.ts';
import { createVirtualNetwork } from '../../test/virtual-network.ts';
import type { Dataset } from '../genesis/dataset.ts';
import { batchOf } from '../genesis/sampler.ts';
import { keyPairFrom } from '../identity/keys.ts';
import { claimBytesMax, contentHash, encodeClaim, fraudTopic, makeClaim } from '../pipeline/claim.ts';
import { CodedError, type Outcome } from '../std/outcome.ts';
import { seededRandom } from '../std/random.ts';
import { memoryStore, type Store } from '../std/store.ts';
import type { NodeEvent } from './events.ts';
import { watchFraud } from './fraud-watch.ts';
import type { NetworkManifest } from './network.ts';

const dataset = await countedDataset('fraud', 40);
const training = { batch: 2, sequence: 16, innerSteps: 5, microbatches: 3 };
const network = { networkId: new Uint8Array(32).fill(7), training } as unknown as NetworkManifest;
const place = { round: 3, step: 2, index: 1 };
const driver = 0;

interface WatcherOptions {
  readonly share?: number;
  readonly round?: number;
  readonly dataset?: Dataset;
  readonly store?: Store;
}

function start(options: Readonly<Record<number, WatcherOptions>> = {}, count = 5) {
  const net = createVirtualNetwork(count);
  const stores = net.keys.map(() => memoryStore());
  const watchAs = (index: number) => {
    const key = net.keys[index]!;
    const own = options[index] ?? {};
    const events: NodeEvent[] = [];
    const convicted: string[] = [];
    const penalties: string[] = [];
    const published: Uint8Array[] = [];
    const real = net.transports[index]!;
    const transport: typeof real = {
      ...real,
      penalize: (peer, code) => {
        penalties.push(`${net.ids.indexOf(peer)} ${code}`);
        real.penalize(peer, code);
      },
      publish: (topic, message) => {
        published.push(message);
        return real.publish(topic, message);
      },
    };
    const watch = watchFraud({
      network,
      self: key.nodeId,
      dataset: own.dataset ?? dataset,
      transport,
      clock: net.clock,
      random: seededRandom(new Uint8Array(16).fill(index)),
      store: own.store ?? stores[index]!,
      share: own.share ?? 1,
      round: () => own.round ?? 3,
      events: (event) => events.push(event),
      onConvicted: (node) => convicted.push(node),
    });
    const codes = () => events.map((event) => event.type === 'warning' && event.code);
    return { watch, transport, convicted, penalties, published, codes };
  };
  const nodes = net.keys.map((_, index) => watchAs(index));
  /** Another process of the node, with its store. */
  const restart = (index: number) => {
    nodes[index]!.watch.close();
    nodes[index] = watchAs(index);
    return nodes[index]!;
  };
  const settle = async () => {
    // Shards are read in real time, the wire is virtual.
    for (let i = 0; i < 20; i++) {
      await net.run(50);
      await new Promise((resolve) => setImmediate(resolve));
    }
  };
  return { net, nodes, settle, stores, restart };
}

async function microbatch(net: ReturnType<typeof createVirtualNetwork>, at = place, of = driver) {
  const key = net.keys[of]!;
  const batch = await batchOf({ dataset, nodeId: key.nodeId, ...at, ...training });
  const sign = (content: string) => encodeClaim(makeClaim(network.networkId, { ...at, content }, key));
  const claim = sign(contentHash(batch.tokens, batch.labels));
  const labels = batch.labels.map((label) => 259 - label);
  const flipped = { labels, claim: sign(contentHash(batch.tokens, labels)) };
  return { ...at, labels: batch.labels, claim, flipped };
}

const codeOf = (outcome: Outcome<unknown>) => (outcome.ok ? 'ok' : outcome.code);

test('a wrong batch convicts its Driver here, and by gossip everywhere; it knows itself', async () => {
  const { net, nodes, settle } = start();
  const { flipped, ...honest } = await microbatch(net);
  assert.equal(codeOf(await nodes[1]!.watch.check(honest)), 'ok');
  assert.equal(codeOf(await nodes[1]!.watch.check({ ...place, ...flipped })), 'wrong-batch');
  await settle();
  for (const { watch, convicted, penalties, codes } of nodes.slice(1)) {
    assert.equal(watch.isConvicted(net.ids[driver]!), true);
    assert.deepEqual(convicted, [net.ids[driver]]);
    assert.deepEqual(codes(), ['driver-fraud']);
    assert.deepEqual(penalties, []);
    // Not even what is right, in this round or in a later one.
    assert.equal(codeOf(await watch.check(honest)), 'convicted');
    assert.equal(codeOf(await watch.check(await microbatch(net, { ...place, round: 9 }))), 'convicted');
  }
  assert.deepEqual(nodes[driver]!.codes(), ['self-convicted']);
  assert.deepEqual(nodes[driver]!.convicted, []);
  assert.equal(nodes[driver]!.watch.refused('convicted'), true);
  assert.equal(nodes[driver]!.watch.refused('busy'), false);
  assert.deepEqual(nodes[driver]!.codes(), ['self-convicted']);
  for (const { published } of nodes) assert.equal(published.length, 1, 'each who judged tells it once');
});

test('a step that no round has is found out by everyone, without a look at the dataset', async () => {
  const unread = { ...dataset, shard: () => Promise.reject(new Error('read')) };
  const { net, nodes } = start({ 1: { share: 1e-9, dataset: unread } });
  const content = contentHash(new Int32Array(1), new Int32Array(1));
  const at = { ...place, step: training.innerSteps };
  const claim = encodeClaim(makeClaim(network.networkId, { ...at, content }, net.keys[driver]!));
  const labels = new Int32Array(1);
  assert.equal(codeOf(await nodes[1]!.watch.check({ ...at, claim, labels })), 'wrong-batch');
  assert.equal(nodes[1]!.watch.isConvicted(net.ids[driver]!), true);
});

test('wrong labels beside a right claim convict nobody', async () => {
  const { net, nodes, settle } = start();
  const { flipped, ...honest } = await microbatch(net);
  const judged = await nodes[1]!.watch.check({ ...honest, labels: flipped.labels });
  assert.equal(codeOf(judged), 'wrong-labels');
  await settle();
  assert.equal(codeOf(await nodes[1]!.watch.check(honest)), 'ok');
  assert.ok(nodes.every(({ watch, published }) => watch.convicted() === 0 && published.length === 0));
});

test('who accuses an honest Driver is penalised, and is not repeated', async () => {
  const { net, nodes, settle } = start();
  const { claim } = await microbatch(net);
  await nodes[4]!.transport.publish(fraudTopic, claim);
  await settle();
  for (const { watch, penalties, published } of nodes.slice(0, 4)) {
    assert.equal(watch.convicted(), 0);
    assert.deepEqual(penalties, ['4 not-fraud']);
    assert.deepEqual(published, []);
  }
  await nodes[4]!.transport.publish(fraudTopic, claim);
  await settle();
  assert.deepEqual(nodes[1]!.penalties, ['4 not-fraud', '4 not-fraud']);
});

test('bytes that are no claim are blamed on their sender; nothing is read for far rounds', async () => {
  const { net, nodes, settle } = start();
  const { claim } = await microbatch(net);
  const forged = claim.slice();
  forged[forged.length - 1]! ^= 1;
  await nodes[4]!.transport.publish(fraudTopic, forged);
  await nodes[4]!.transport.publish(fraudTopic, new Uint8Array(claimBytesMax));
  await settle();
  assert.deepEqual(nodes[1]!.penalties, ['4 bad-signature', '4 malformed-claim']);
  // True claims of a round to come and of one long past: nothing is read for them.
  const far = start({ 1: { round: 500 } });
  for (const round of [3, 435, 502, 2 ** 31]) {
    const { claim } = await microbatch(far.net, { ...place, round });
    await far.nodes[4]!.transport.publish(fraudTopic, claim);
  }
  await far.settle();
  assert.deepEqual(far.nodes[1]!.penalties, []);
});

test('one sender is listened to only so often, however right it is', async () => {
  const { net, nodes, settle } = start();
  for (let i = 0; i < 60; i++) {
    const key = keyPairFrom(new Uint8Array(32).fill(100 + i));
    const claim = makeClaim(network.networkId, { ...place, step: 99, content: '00'.repeat(32) }, key);
    await nodes[4]!.transport.publish(fraudTopic, encodeClaim(claim));
    await net.run(5);
  }
  await settle();
  const convicted = nodes[1]!.watch.convicted();
  assert.ok(convicted > 0 && convicted <= 30, `${convicted}`);
});

test('without the dataset nobody is judged or blamed, and only who must check every claim refuses', async () => {
  const shard = async () => {
    throw new CodedError('dataset-unavailable', 'nobody has it');
  };
  const away = { ...dataset, shard } as Dataset;
  const { net, nodes, settle } = start({ 1: { dataset: away }, 2: { dataset: away, share: 0.999_999 } });
  const { flipped, ...honest } = await microbatch(net);
  assert.equal(codeOf(await nodes[1]!.watch.check(honest)), 'unchecked');
  assert.equal(codeOf(await nodes[2]!.watch.check(honest)), 'ok');
  await nodes[4]!.transport.publish(fraudTopic, flipped.claim);
  await settle();
  assert.deepEqual([nodes[1]!.penalties, nodes[1]!.watch.convicted()], [[], 0]);
  assert.equal(nodes[3]!.watch.convicted(), 1);
});

test('a claim of another place, or not signed as said, is refused and convicts nobody', async () => {
  const { net, nodes } = start();
  const { claim, labels } = await microbatch(net);
  const { watch } = nodes[1]!;
  for (const other of [{ round: 4 }, { step: 1 }, { index: 0 }])
    assert.equal(codeOf(await watch.check({ ...place, ...other, claim, labels })), 'bad-claim');
  const forged = { ...place, labels, claim: new Uint8Array(3) };
  assert.equal(codeOf(await watch.check(forged)), 'bad-claim');
  assert.equal(watch.convicted(), 0);
});

test('a conviction outlives the process, by its evidence', async () => {
  const { net, nodes, settle, stores, restart } = start();
  const { flipped, ...honest } = await microbatch(net);
  assert.equal(codeOf(await nodes[1]!.watch.check({ ...place, ...flipped })), 'wrong-batch');
  await settle();
  assert.deepEqual(await stores[2]!.list('fraud-'), [`fraud-${net.ids[driver]}`]);
  const again = restart(2);
  // Asked at once: it answers when it has read what it kept.
  assert.equal(codeOf(await again.watch.check(honest)), 'convicted');
  assert.equal(again.watch.isConvicted(net.ids[driver]!), true);
  await settle();
  await net.run(5_000);
  await settle();
  assert.equal(again.watch.convicted(), 1);
  assert.deepEqual(again.codes(), ['convictions-kept']);
  assert.deepEqual(again.published, [], 'told once, before');
});

test('evidence that is damaged, or another Driver’s, convicts nobody, is told and goes; the rest counts', async () => {
  const { net, nodes, settle, stores, restart } = start();
  const claims = await Promise.all([0, 3, 4].map((of) => microbatch(net, place, of)));
  for (const { flipped } of claims) await nodes[1]!.watch.check({ ...place, ...flipped });
  await settle();
  const store = stores[1]!;
  const keyOf = (index: number) => `fraud-${net.ids[index]}`;
  const damaged = (await store.get(keyOf(0)))!;
  damaged[20]! ^= 1;
  await store.put(keyOf(0), damaged);
  await store.put(keyOf(2), (await store.get(keyOf(3)))!);
  await store.put('fraud-cut', (await store.get(keyOf(4)))!.subarray(0, 50));
  const { watch, codes } = restart(1);
  await watch.ready;
  assert.deepEqual(
    net.ids.map((id) => watch.isConvicted(id)),
    [false, false, false, true, true],
  );
  const damages = ['evidence-damaged', 'evidence-damaged', 'evidence-damaged'];
  assert.deepEqual(codes(), [...damages, 'convictions-kept']);
  assert.deepEqual(await store.list('fraud-'), [keyOf(3), keyOf(4)].sort());
  assert.equal(codeOf(await watch.check(claims[0]!)), 'ok');
});

test('kept evidence is judged again: a right claim put among it convicts nobody for long', async () => {
  const { net, stores, settle, restart } = start();
  const { claim, ...honest } = await microbatch(net);
  const key = `fraud-${net.ids[driver]}`;
  await stores[1]!.put(key, claim);
  const { watch, codes } = restart(1);
  await watch.ready;
  await net.run(1_100);
  await settle();
  assert.equal(watch.convicted(), 0);
  assert.deepEqual(await stores[1]!.list('fraud-'), []);
  assert.deepEqual(codes(), ['convictions-kept', 'conviction-void']);
  assert.equal(codeOf(await watch.check({ ...honest, claim })), 'ok');
});

test('a store that fails is told of, and Drivers are convicted all the same', async () => {
  const fail = async () => {
    throw new CodedError('disk-full', 'no room');
  };
  const store: Store = { get: fail, put: fail, delete: fail, list: fail };
  const { net, nodes, settle } = start({ 1: { store } });
  const { flipped } = await microbatch(net);
  assert.equal(codeOf(await nodes[1]!.watch.check({ ...place, ...flipped })), 'wrong-batch');
  await settle();
  assert.equal(nodes[1]!.watch.isConvicted(net.ids[driver]!), true);
  assert.deepEqual(nodes[1]!.codes(), ['evidence-unread', 'driver-fraud', 'evidence-not-kept']);
});
