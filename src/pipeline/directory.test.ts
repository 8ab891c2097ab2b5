import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { createVirtualClock } from '../../sim/virtual-clock.ts';
import { keyPairFrom } from '../identity/keys.ts';
import { createMemoryHub } from '../net/memory-transport.ts';
import { utf8 } from '../std/bytes.ts';
import { sha256 } from '../std/hash.ts';
import { seededRandom } from '../std/random.ts';
import { createStageDirectory, staleMs } from './directory.ts';
import {
  decodeStageAnnouncement,
  encodeStageAnnouncement,
  isSignedByAuthor,
  stageAnnouncementBytesMax,
  stageTopic,
} from './stage-announcement.ts';

const networkId = new Uint8Array(32).fill(9);
const keys = [1, 2, 3, 4].map((byte) => keyPairFrom(new Uint8Array(32).fill(byte)));
const ids = keys.map(({ nodeId }) => nodeId);
const state = { stage: 1, memoryBytes: 8e9, tokensPerSecond: 1234.5, round: 7, accepting: true };

function start(count = 3) {
  const clock = createVirtualClock();
  const random = seededRandom(sha256(utf8('directory')));
  const hub = createMemoryHub({ clock, random });
  const join = (index: number, network = networkId) => {
    const key = keys[index]!;
    const transport = hub.join(key.nodeId);
    const directory = createStageDirectory({ networkId: network, key, transport, clock, random });
    return { transport, directory };
  };
  return { clock, hub, join, nodes: Array.from({ length: count }, (_, index) => join(index)) };
}

test('a node that announces a stage is its candidate everywhere but at home', async () => {
  const { clock, nodes } = start();
  nodes[0]!.directory.announceSelf({ ...state, stage: 0 });
  nodes[1]!.directory.announceSelf(state);
  nodes[2]!.directory.announceSelf(state);
  await clock.advance(100);
  assert.deepEqual(nodes[0]!.directory.candidates(1), [ids[1], ids[2]].sort());
  assert.deepEqual(nodes[1]!.directory.candidates(1), [ids[2]]);
  assert.deepEqual(nodes[1]!.directory.candidates(0), [ids[0]]);
  assert.deepEqual(nodes[0]!.directory.candidates(2), []);
  const { seq, ...heard } = nodes[0]!.directory.of(ids[1]!)!;
  assert.deepEqual(heard, { nodeId: ids[1], ...state });
  assert.ok(seq >= 1_700_000_000_000);
  assert.deepEqual(nodes[1]!.directory.of(ids[1]!), nodes[0]!.directory.of(ids[1]!));
  assert.deepEqual(
    nodes[2]!.directory.all().map(({ nodeId }) => nodeId),
    ids.slice(0, 3).sort(),
  );
});

test('says nothing before it has a stage, then every few seconds, and changes within a second', async () => {
  const { clock, nodes } = start(2);
  const said: number[] = [];
  nodes[1]!.transport.subscribe(stageTopic, 1_000, () => void said.push(clock.nowMs()));
  const [{ directory }] = nodes as [(typeof nodes)[0]];
  directory.announceSelf({ accepting: true });
  await clock.advance(20_000);
  assert.equal(said.length, 0);
  directory.announceSelf(state);
  await clock.advance(60_000);
  assert.ok(said.length >= 9 && said.length <= 18, String(said.length));
  said.length = 0;
  for (let round = 8; round < 1_008; round++) {
    directory.announceSelf({ round });
    await clock.advance(10);
  }
  await clock.advance(1_010);
  assert.ok(said.length >= 8 && said.length <= 13, String(said.length));
  assert.equal(nodes[1]!.directory.of(ids[0]!)!.round, 1_007);
});

test('who stops accepting, falls silent or disconnects is no candidate, and is again when it comes back', async () => {
  const { clock, hub, nodes, join } = start();
  let changes = 0;
  const candidates = () => nodes[0]!.directory.candidates(1).length;
  nodes[0]!.directory.onChange(() => changes++);
  for (const node of nodes.slice(1)) node.directory.announceSelf(state);
  await clock.advance(2_000);
  assert.equal(candidates(), 2);
  assert.equal(changes, 2);

  nodes[1]!.directory.announceSelf({ accepting: false });
  await clock.advance(2_000);
  assert.equal(candidates(), 1);
  nodes[1]!.directory.announceSelf({ accepting: true });
  await clock.advance(2_000);
  assert.equal(candidates(), 2);
  assert.equal(changes, 4);

  hub.crash(ids[2]!);
  assert.equal(candidates(), 1);
  const again = join(2);
  again.directory.announceSelf(state);
  await clock.advance(2_000);
  assert.equal(candidates(), 2);

  nodes[1]!.directory.close();
  nodes[1]!.directory.close();
  nodes[1]!.directory.announceSelf({ accepting: true });
  await clock.advance(100);
  assert.equal(candidates(), 1);
  await clock.advance(staleMs);
  assert.equal(nodes[0]!.directory.of(ids[1]!), undefined);
});

test('a node that comes late is told within a second, not at the next turn', async () => {
  const { clock, nodes, join } = start(2);
  for (const { directory } of nodes) directory.announceSelf(state);
  await clock.advance(6_500);
  const { directory } = join(2);
  await clock.advance(1_100);
  assert.equal(directory.candidates(1).length, 2);
});

test('listeners that left hear nothing', async () => {
  const { clock, nodes } = start(2);
  let changes = 0;
  nodes[0]!.directory.onChange(() => changes++)();
  nodes[1]!.directory.announceSelf(state);
  await clock.advance(1_000);
  assert.equal(changes, 0);
});

test('another network’s, a forger’s and a malformed announcement change nothing and are scored', async () => {
  const { clock, nodes, hub } = start(2);
  const hostile = hub.join(ids[2]!);
  const body = { ...state, seq: clock.nowMs() };
  const genuine = encodeStageAnnouncement(networkId, body, keys[2]!);
  const forged = genuine.slice();
  forged[forged.length - 1]! ^= 1;
  const elsewhere = encodeStageAnnouncement(new Uint8Array(32), body, keys[2]!);
  for (const message of [new Uint8Array([1, 2, 3]), forged, elsewhere, forged]) {
    await hostile.publish(stageTopic, message);
    await clock.advance(100);
    assert.equal(nodes[0]!.directory.of(ids[2]!), undefined);
  }
  // Its rule breaks have made every node refuse it.
  assert.ok(!nodes[0]!.transport.peers().includes(ids[2]!));
});

test('the latest counts: what was said before is not news when it is said again', async () => {
  const { clock, nodes, hub } = start(1);
  const author = hub.join(ids[1]!);
  const say = async (seq: number, stage: number) => {
    await author.publish(stageTopic, encodeStageAnnouncement(networkId, { ...state, stage, seq }, keys[1]!));
    await clock.advance(100);
    return nodes[0]!.directory.of(ids[1]!)!.stage;
  };
  assert.equal(await say(10, 1), 1);
  assert.equal(await say(11, 2), 2);
  assert.equal(await say(10, 1), 2);
  assert.equal(await say(11, 3), 2);
  // A node whose clock was set back is heard again once it had been silent.
  await clock.advance(staleMs);
  assert.equal(await say(5, 4), 4);
});

test('an author that announces without end is not listened to, and its flood is not passed on', async () => {
  const { clock, nodes, hub } = start(1);
  const author = hub.join(ids[1]!);
  for (let seq = 1; seq <= 200; seq++) {
    const body = { ...state, round: seq, seq };
    await author.publish(stageTopic, encodeStageAnnouncement(networkId, body, keys[1]!));
    await clock.advance(10);
  }
  await clock.advance(100);
  assert.ok(nodes[0]!.directory.of(ids[1]!)!.round < 120);
  assert.ok(!nodes[0]!.transport.peers().includes(ids[1]!));
});

test('an announcement comes through whole, within its size, and signed by its author alone', () => {
  const bodies = fc.record({
    seq: fc.maxSafeNat(),
    stage: fc.integer({ min: 0, max: 1023 }),
    memoryBytes: fc.maxSafeNat(),
    tokensPerSecond: fc.double({ min: 0, max: 1e12, noNaN: true }),
    round: fc.maxSafeNat(),
    accepting: fc.boolean(),
  });
  fc.assert(
    fc.property(bodies, (body) => {
      const message = encodeStageAnnouncement(networkId, body, keys[0]!);
      assert.ok(message.length <= stageAnnouncementBytesMax);
      const decoded = decodeStageAnnouncement(message);
      assert.ok(decoded.ok);
      assert.deepEqual(decoded.value.announcement, { nodeId: ids[0], ...body });
      assert.ok(isSignedByAuthor(networkId, decoded.value));
      const altered = { ...decoded.value.announcement, round: body.round === 0 ? 1 : 0 };
      assert.ok(!isSignedByAuthor(networkId, { ...decoded.value, announcement: altered }));
    }),
    { numRuns: 50 },
  );
});

test('bytes that are no announcement have a code', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => {
      const decoded = decodeStageAnnouncement(bytes);
      assert.equal(decoded.ok ? '' : decoded.code, 'malformed-announcement');
    }),
  );
});

test('who left and came back is no candidate before it has announced itself again', async () => {
  const { clock, nodes, join } = start(2);
  nodes[1]!.directory.announceSelf(state);
  await clock.advance(100);
  assert.deepEqual(nodes[0]!.directory.candidates(1), [ids[1]]);
  // Killed: it says no farewell.
  await nodes[1]!.transport.close();
  await clock.advance(100);
  assert.ok(!nodes[0]!.transport.peers().includes(ids[1]!));
  const again = join(1);
  await clock.advance(100);
  assert.ok(nodes[0]!.transport.peers().includes(ids[1]!));
  assert.deepEqual(nodes[0]!.directory.candidates(1), []);
  again.directory.announceSelf(state);
  await clock.advance(100);
  assert.deepEqual(nodes[0]!.directory.candidates(1), [ids[1]]);
});
