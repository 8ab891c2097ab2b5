import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { temporaryFolder } from '../../test/small-world.ts';
import { createVirtualNetwork } from '../../test/virtual-network.ts';
import { presets } from '../model/config.ts';
import type { NodeEvent } from '../peer/events.ts';
import { requireNetwork } from '../peer/network.ts';
import { stageBytes } from '../peer/plan.ts';
import { defaultOuter, defaultTraining } from '../peer/policy.ts';
import { createStageDirectory } from '../pipeline/directory.ts';
import { CodedError } from '../std/outcome.ts';
import { seededRandom } from '../std/random.ts';
import { clusterNetwork } from './cluster.ts';
import { stageOfNode } from './node-stage.ts';

const random = seededRandom(new Uint8Array(16));
const never = new AbortController().signal;
const hasCode = (code: string) => (error: unknown) => error instanceof CodedError && error.code === code;

function start(t: TestContext, stages: number) {
  const net = createVirtualNetwork(4);
  const document = clusterNetwork({
    seed: 1,
    model: presets.tiny,
    datasetHash: '0'.repeat(64),
    training: { ...defaultTraining(presets.tiny), stages },
    outer: defaultOuter('int8', 'default'),
    keys: net.keys.slice(0, 3),
  });
  const network = requireNetwork(document, 'test');
  const events: NodeEvent[] = [];
  let opened = 0;
  const directory = temporaryFolder(t);
  const stageOf = (index: number, memoryBytes = 1e12) =>
    stageOfNode(
      {
        network,
        key: net.keys[index]!,
        directory,
        memoryBytes,
        transport: async () => {
          opened++;
          return net.transports[index]!;
        },
        clock: net.clock,
        random,
        events: (event) => events.push(event),
      },
      never,
    );
  const warnings = () => events.map((event) => event.type === 'warning' && event.code);
  return { net, network, directory, stageOf, warnings, opened: () => opened };
}

test('members hold what the manifest says, and are warned where it may not fit', async (t) => {
  const { stageOf, network, directory, warnings, opened } = start(t, 3);
  writeFileSync(join(directory, 'stage.json'), '{"stage": 0}');
  for (const { stage } of network.members) assert.equal(await stageOf(stage), stage);
  assert.deepEqual(warnings(), []);
  assert.equal(await stageOf(1, stageBytes(network)[1]! - 1), 1);
  assert.deepEqual(warnings(), ['memory-short']);
  assert.equal(opened(), 0);
});

test('of a model in one piece everybody holds it, and nobody is asked', async (t) => {
  const { stageOf, warnings, opened } = start(t, 1);
  assert.equal(await stageOf(3), 0);
  assert.equal(await stageOf(3, 1), 0);
  assert.deepEqual(warnings(), ['memory-short']);
  assert.equal(opened(), 0);
});

test('a newcomer keeps the stage it was given, whatever it hears later', async (t) => {
  const { net, network, stageOf, directory, warnings, opened } = start(t, 3);
  for (const stage of [0, 2]) {
    const parts = { networkId: network.networkId, key: net.keys[stage]!, clock: net.clock, random };
    const others = createStageDirectory({ ...parts, transport: net.transports[stage]! });
    others.announceSelf({ stage, accepting: true });
  }
  const chosen = stageOf(3);
  // The folder is real, and time is not: it goes on as long as that takes.
  let stage: number | undefined;
  void chosen.then((value) => (stage = value));
  while (stage === undefined) {
    await net.run(1_000);
    await new Promise((resolve) => setImmediate(resolve));
  }
  assert.equal(stage, 1);
  assert.deepEqual(JSON.parse(readFileSync(join(directory, 'stage.json'), 'utf8')), { stage: 1 });
  assert.equal(await stageOf(3), 1);
  assert.equal(opened(), 1);
  assert.equal(await stageOf(3, 1), 1);
  assert.deepEqual(warnings(), ['memory-short']);
});

test('where no stage fits, or the folder is damaged, that is said and nothing is opened', async (t) => {
  const { stageOf, directory, opened } = start(t, 2);
  await assert.rejects(stageOf(3, 1000), hasCode('no-stage-fits'));
  for (const text of ['{"stage": 2}', '{"stage": -1}', '{"stage": "0"}', 'x', '']) {
    writeFileSync(join(directory, 'stage.json'), text);
    await assert.rejects(stageOf(3), hasCode('stage-damaged'));
  }
  assert.equal(opened(), 0);
});
