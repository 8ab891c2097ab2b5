/** Nodes that join a network without the dataset that it trains on: they fetch what they need, train on it, and keep it. */
import assert from 'node:assert/strict';
import { cp, mkdtemp, readdir, rename, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import type { ChildSpec } from '../../src/cli/child-nodes.ts';
import type { NodeEvent } from '../../src/peer/events.ts';
import { buildDatasetFolder, readManifest } from '../../src/platform/nodejs/dataset-files.ts';
import { programFile } from '../../src/platform/nodejs/installation.ts';
import { shippedRecipe } from '../../src/platform/nodejs/shipped-dataset.ts';
import { agreedHashes, createHarness, type Harness } from './cluster-harness.ts';

const home = await mkdtemp(join(tmpdir(), 'neuroshard-not-shipped-'));
after(() => rm(home, { recursive: true, force: true }));
const dataset = join(home, 'dataset');
/** Shards of four chunks. */
await buildDatasetFolder(dataset, { ...shippedRecipe(300), name: 'not shipped', shardTokens: 131_072 });
const buildDataset = (folder: string) => cp(dataset, folder, { recursive: true });

/** As the first member, but with a folder of its own and without the dataset. */
function newcomer(harness: Harness, directory: string): ChildSpec {
  const like = harness.cluster.nodes[0]!.spec.args;
  const args = like.flatMap((arg, i) => {
    if (arg === '--dataset' || like[i - 1] === '--dataset') return [];
    if (like[i - 1] === '--data') return [directory];
    if (like[i - 1] === '--listen') return ['/ip4/127.0.0.1/tcp/0'];
    return [arg];
  });
  return { name: 'late', program: programFile('src/cli/main'), args };
}

type FetchedEvent = NodeEvent & { type: 'fetched' };

test('a late joiner without the dataset trains on what it fetched, and fetches nothing twice', async () => {
  const harness = await createHarness({ nodes: 2, buildDataset });
  const members = harness.cluster.nodes.map((node) => node.spec.name);
  const lastRound = (name: string) => harness.rounds(name).at(-1)?.round ?? -1;
  const fetched = () =>
    harness.events('late').filter((event): event is FetchedEvent => event.type === 'fetched');
  const lateId = () => harness.events('late').find((event) => event.type === 'started')?.nodeId;
  const counts = () => {
    const id = lateId();
    return id !== undefined && harness.rounds(members[0]!).at(-1)!.contributions.includes(id);
  };
  try {
    harness.startAll();
    await harness.until('members close round 1', () => members.every((name) => lastRound(name) >= 1));
    const root = join(harness.cluster.nodes[0]!.directory, '..');
    const directory = join(root, 'late');
    const spec = newcomer(harness, directory);
    harness.startSpec(spec);
    await harness.until('its contribution counts', counts);
    await harness.until('it closes two rounds', () => harness.rounds('late').length >= 2);

    const { hash, manifest } = await readManifest(join(root, 'dataset'));
    assert.deepEqual(
      fetched()
        .slice(0, 2)
        .map(({ part }) => part),
      ['manifest', 'tokenizer'],
    );
    const shards = fetched().flatMap(({ shard }) => (shard === null ? [] : [shard]));
    assert.equal(new Set(shards).size, shards.length, 'no shard came twice');
    assert.ok(
      shards.some((shard) => !manifest.heldOut.includes(shard)),
      'one to train on',
    );
    assert.ok(
      shards.some((shard) => manifest.heldOut.includes(shard)),
      'one to evaluate on',
    );
    const kept = await readdir(join(directory, 'datasets', hash, 'shards'));
    assert.deepEqual(kept.map((name) => Number.parseInt(name, 10)).sort(), shards.sort());

    const upTo = lastRound('late');
    await harness.until('members are as far', () => members.every((name) => lastRound(name) >= upTo));
    agreedHashes(harness, [...members, 'late']);
    const lossAt = (name: string) => harness.rounds(name).find(({ round }) => round === upTo)?.heldOutLoss;
    assert.equal(lossAt('late'), lossAt(members[0]!), 'it evaluates on the same held-out tokens');

    await harness.group.get('late')!.stop();
    harness.startSpec(spec);
    await harness.until('started again it closes a round', () => harness.rounds('late').length >= 1);
    const again = fetched().map(({ part, shard }) => shard ?? part);
    assert.deepEqual(
      again.filter((part) => typeof part === 'string' || shards.includes(part)),
      [],
      'nothing that it had was fetched again',
    );
  } finally {
    await harness.close();
  }
});

test('a shard that nobody has leaves a node without its part of the rounds, until somebody has it', async () => {
  const harness = await createHarness({ nodes: 1, buildDataset });
  const members = harness.cluster.nodes.map((node) => node.spec.name);
  const lastRound = (name: string) => harness.rounds(name).at(-1)?.round ?? -1;
  const root = join(harness.cluster.nodes[0]!.directory, '..');
  const shards = join(root, 'dataset', 'shards');
  try {
    harness.startAll();
    await harness.until('members close round 1', () => members.every((name) => lastRound(name) >= 1));
    // Members go on with the shards that they have in memory.
    await rename(shards, `${shards}-away`);
    harness.startSpec(newcomer(harness, join(root, 'late')));
    const warned = () =>
      harness
        .events('late')
        .some((event) => event.type === 'warning' && event.code === 'dataset-unavailable');
    await harness.until('it says that its shard is not to be had', warned);
    await harness.until('it follows the network', () => harness.rounds('late').length >= 1);
    assert.ok(harness.rounds('late').every(({ trainingLoss }) => trainingLoss === null));
    await rename(`${shards}-away`, shards);
    await harness.until('it trains', () =>
      harness.rounds('late').some(({ trainingLoss }) => trainingLoss !== null),
    );
    const upTo = lastRound('late');
    await harness.until('members are as far', () => members.every((name) => lastRound(name) >= upTo));
    agreedHashes(harness, [...members, 'late']);
  } finally {
    await harness.close();
  }
});
