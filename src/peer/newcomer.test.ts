/** Newcomers in virtual time: what they hear, and the stage they take. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createVirtualNetwork } from '../../test/virtual-network.ts';
import { presets } from '../model/config.ts';
import { createStageDirectory } from '../pipeline/directory.ts';
import { utf8 } from '../std/bytes.ts';
import { sha256 } from '../std/hash.ts';
import type { Outcome } from '../std/outcome.ts';
import { seededRandom } from '../std/random.ts';
import type { NodeEvent } from './events.ts';
import { createNetworkDocument, requireNetwork } from './network.ts';
import { chooseStage } from './newcomer.ts';
import { stageBytes } from './plan.ts';
import { defaultOuter, defaultTraining } from './policy.ts';

/** Members hold stages 0, 1, 2, 0; the rest are none. */
const members = 4;

function start(nodes = 7) {
  const net = createVirtualNetwork(nodes);
  const document = createNetworkDocument(
    {
      name: 'newcomers',
      seed: new Uint8Array(32),
      model: presets.tiny,
      dataset: '0'.repeat(64),
      training: { ...defaultTraining(presets.tiny), stages: 3 },
      outer: defaultOuter('int8', 'default'),
      members: net.keys.slice(0, members).map(({ publicKey }) => ({ publicKey, weight: 1 })),
    },
    net.keys[0]!,
  );
  const network = requireNetwork(document, 'newcomers');
  const partsOf = (index: number) => ({
    network,
    key: net.keys[index]!,
    transport: net.transports[index]!,
    clock: net.clock,
    random: seededRandom(sha256(utf8(`newcomer ${index}`))),
  });
  const announce = (index: number, stage: number) => {
    const directory = createStageDirectory({ ...partsOf(index), networkId: network.networkId });
    directory.announceSelf({ stage, accepting: true });
  };
  const events: NodeEvent[] = [];
  const choose = (index: number, memoryBytes = 1e12, signal = new AbortController().signal) => {
    const result: { value?: Outcome<number>; error?: unknown } = {};
    const parts = { ...partsOf(index), memoryBytes, events: (event: NodeEvent) => events.push(event) };
    chooseStage(parts, signal).then(
      (value) => (result.value = value),
      (error) => (result.error = error),
    );
    return result;
  };
  const join = () => {
    for (let index = 0; index < members; index++) announce(index, network.members[index]!.stage);
  };
  return { net, network, announce, choose, join, events };
}

const chosen = ({ value }: { value?: Outcome<number> }) => (value?.ok ? value.value : value?.code);

test('newcomers who start together spread over the stages with the fewest replicas', async () => {
  const { net, join, choose } = start();
  join();
  const results = [4, 5].map((index) => choose(index));
  await net.run(30_000);
  assert.deepEqual(results.map(chosen).sort(), [1, 2]);
});

test('a stage that does not fit is not taken; where none fits nobody is waited for', async () => {
  const { net, network, join, choose, announce } = start();
  const bytes = stageBytes(network);
  const smallest = Math.min(...bytes);
  assert.ok(
    bytes.some((one) => one > smallest),
    `${bytes}`,
  );
  const none = choose(4, smallest - 1);
  await net.run(1);
  assert.equal(chosen(none), 'no-stage-fits');
  join();
  announce(5, bytes.indexOf(smallest));
  announce(6, bytes.indexOf(smallest));
  const small = choose(4, smallest);
  await net.run(30_000);
  assert.equal(chosen(small), bytes.indexOf(smallest));
});

test('alone it waits, says so once, and decides when somebody comes', async () => {
  const { net, choose, announce, events } = start();
  const result = choose(4);
  await net.run(60_000);
  assert.equal(result.value, undefined);
  assert.deepEqual(
    events.map((event) => event.type === 'warning' && event.code),
    ['no-peers'],
  );
  announce(0, 0);
  await net.run(30_000);
  assert.equal(chosen(result), 1);
});

test('a node that is neither a member nor connected does not count', async () => {
  const { net, join, choose, announce } = start();
  join();
  announce(6, 1);
  const crowded = choose(4);
  await net.run(30_000);
  assert.equal(chosen(crowded), 2);
  const after = choose(5);
  await net.run(7_000);
  net.hub.crash(net.ids[6]!);
  await net.run(30_000);
  assert.equal(chosen(after), 1);
});

test('a signal ends the waiting', async () => {
  const { net, choose } = start();
  const abort = new AbortController();
  const result = choose(4, 1e12, abort.signal);
  await net.run(2_000);
  abort.abort(new Error('enough'));
  await net.run(1);
  assert.match(String(result.error), /enough/);
});
