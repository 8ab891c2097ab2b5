/** Nodes of an in-memory network whose gossip of stages is lost, and the directory that brings them together. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createVirtualClock } from '../../sim/virtual-clock.ts';
import { testKeys } from '../../test/consensus-group.ts';
import { createMemoryHub } from '../net/memory-transport.ts';
import { stageProtocol } from '../net/protocol.ts';
import type { Transport } from '../net/transport.ts';
import { utf8 } from '../std/bytes.ts';
import { sha256 } from '../std/hash.ts';
import { accept } from '../std/outcome.ts';
import { seededRandom } from '../std/random.ts';
import { createStageDirectory } from './directory.ts';
import { encodeStageAnnouncement, stageTopic } from './stage-announcement.ts';
import { createStageLookup } from './stage-lookup.ts';

const networkId = new Uint8Array(32).fill(9);
const keys = testKeys(6);
const ids = keys.map(({ nodeId }) => nodeId);
const state = { stage: 1, memoryBytes: 8e9, tokensPerSecond: 100, round: 7, accepting: true };
const keyOf = (stage: number) => `stage ${stage}`;

function start() {
  const clock = createVirtualClock();
  const random = seededRandom(sha256(utf8('lookup')));
  const hub = createMemoryHub({ clock, random });
  const lookups: string[] = [];
  const penalties: string[] = [];
  /** A transport that never carries stage announcements, as to a node that no author is connected to. */
  const deaf = (index: number): Transport => {
    const real = hub.join(ids[index]!);
    return {
      ...real,
      subscribe: (topic, bytesMax, handler) =>
        real.subscribe(topic, bytesMax, topic === stageTopic ? () => {} : handler),
      findProviders: (key, signal) => {
        lookups.push(key);
        return real.findProviders(key, signal);
      },
      penalize: (peer, code) => {
        penalties.push(`${ids.indexOf(peer)} ${code}`);
        real.penalize(peer, code);
      },
    };
  };
  const join = (index: number) => {
    const transport = deaf(index);
    const directory = createStageDirectory({ networkId, key: keys[index]!, transport, clock, random });
    const lookup = createStageLookup({ directory, transport, clock, keyOf });
    return { transport, directory, lookup };
  };
  return { clock, hub, lookups, penalties, join };
}

test('a candidate that gossip never told of is found by its record and asked for its announcement', async () => {
  const { clock, join, penalties } = start();
  const caller = join(0);
  for (const index of [1, 2]) join(index).directory.announceSelf(state);
  join(3).directory.announceSelf({ ...state, stage: 2 });
  await clock.advance(3_000);
  assert.deepEqual(caller.directory.all(), []);
  assert.deepEqual(caller.lookup.candidates(1), []);
  await clock.advance(200);
  assert.deepEqual(caller.lookup.candidates(1), [ids[1], ids[2]].sort());
  const { seq: _seq, ...heard } = caller.directory.of(ids[1]!)!;
  assert.deepEqual(heard, { nodeId: ids[1], ...state });
  assert.deepEqual(caller.directory.candidates(2), []);
  assert.deepEqual(penalties, []);
});

test('with two candidates nobody looks; with fewer, again and again, ever more rarely', async () => {
  const { clock, join, lookups } = start();
  const caller = join(0);
  const want = async (ms: number) => {
    lookups.length = 0;
    for (let passed = 0; passed < ms; passed += 100) {
      caller.lookup.candidates(1);
      await clock.advance(100);
    }
    return lookups.length;
  };
  const starving = await want(300_000);
  assert.ok(starving >= 20 && starving <= 25, String(starving));
  for (const index of [1, 2]) join(index).directory.announceSelf(state);
  await clock.advance(16_000);
  assert.ok((await want(1_000)) <= 1);
  assert.equal(caller.lookup.candidates(1).length, 2);
  assert.equal(await want(10_000), 0);
  caller.lookup.close();
  await clock.advance(60_000);
  assert.equal(await want(10_000), 0);
});

test('who serves no stage, or takes no work, is no candidate', async () => {
  const { clock, join, penalties } = start();
  const caller = join(0);
  const silent = join(1);
  await silent.transport.provide(keyOf(1));
  const resting = join(2);
  await resting.transport.provide(keyOf(1));
  resting.directory.announceSelf({ ...state, accepting: false });
  await clock.advance(1_000);
  caller.lookup.candidates(1);
  await clock.advance(1_000);
  assert.deepEqual(caller.lookup.candidates(1), []);
  assert.equal(caller.directory.of(ids[2]!)?.accepting, false);
  assert.deepEqual(penalties, []);
});

test('an answer that is malformed, forged or of another author makes no candidate and is scored', async () => {
  const { clock, hub, join, penalties } = start();
  const caller = join(0);
  const body = { ...state, seq: clock.nowMs() };
  const genuine = encodeStageAnnouncement(networkId, body, keys[4]!);
  const forged = genuine.slice();
  forged[forged.length - 1]! ^= 1;
  const answers = [new Uint8Array([1, 2, 3]), genuine, encodeStageAnnouncement(networkId, body, keys[3]!)];
  answers[2]![answers[2]!.length - 1]! ^= 1;
  for (const [place, answer] of answers.entries()) {
    const hostile = hub.join(ids[place + 1]!);
    await hostile.provide(keyOf(1));
    hostile.handle(stageProtocol, async () => accept(answer));
  }
  caller.lookup.candidates(1);
  await clock.advance(1_000);
  assert.deepEqual(caller.lookup.candidates(1), []);
  assert.deepEqual(caller.directory.all(), []);
  assert.deepEqual(penalties.sort(), ['1 malformed-announcement', '2 wrong-author', '3 bad-signature']);
});
