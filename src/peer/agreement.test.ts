import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createVirtualNetwork } from '../../test/virtual-network.ts';
import { makeStatement, statementFields } from '../diloco/statement.ts';
import { statusProtocol } from '../net/protocol.ts';
import { utf8 } from '../std/bytes.ts';
import { type Canonical, encodeCanonical } from '../std/codec.ts';
import { sha256, sha256Hex } from '../std/hash.ts';
import { accept } from '../std/outcome.ts';
import { trackAgreement } from './agreement.ts';
import type { NetworkManifest } from './network.ts';

const networkId = sha256(utf8('a network'));
const [hashA, hashB] = [sha256Hex(utf8('a')), sha256Hex(utf8('b'))];

/** All nodes track; the first `members` have votes. */
function trackersOf(count: number, members = count, stages = 1) {
  const network = createVirtualNetwork(count);
  const { keys, transports } = network;
  const list = keys.slice(0, members).map(({ nodeId, publicKey }, i) => {
    return { nodeId, publicKey, weight: 1, stage: i % stages };
  });
  const manifest = { networkId, members: list, training: { stages } } as unknown as NetworkManifest;
  const penalties: string[] = [];
  for (const [i, transport] of transports.entries())
    transport.penalize = (peer, code) => void penalties.push(`${i} ${network.ids.indexOf(peer)} ${code}`);
  const track = (index: number, stage = index % stages) =>
    trackAgreement({ network: manifest, stage, key: keys[index]!, transport: transports[index]! });
  const say = (index: number, fields: Canonical) =>
    transports[index]!.publish('state', encodeCanonical(fields));
  const statement = (index: number, round: number, stateHash: string, stage = index % stages) =>
    statementFields(makeStatement(networkId, { round, stage, stateHash }, keys[index]!));
  return { ...network, network, penalties, track, say, statement };
}

test('members tell each other where they stand, and each sees what is agreed', async () => {
  const { run, track } = trackersOf(4);
  const trackers = [0, 1, 2, 3].map((index) => track(index));
  let changes = 0;
  const unlisten = trackers[3]!.onChange(() => changes++);
  await trackers[0]!.state(5, hashA);
  await run(100);
  assert.equal(trackers[3]!.newest(), undefined, 'a quarter');
  await trackers[1]!.state(5, hashA);
  await run(100);
  for (const tracker of trackers) assert.deepEqual(tracker.newest(), { round: 5, stateHash: hashA });
  assert.equal(changes, 2);
  unlisten();
  await trackers[2]!.state(5, hashA);
  await run(100);
  assert.equal(changes, 2);
});

test('a newcomer asks, and learns what was agreed before it came; strangers state nothing', async () => {
  const { run, track, clock } = trackersOf(4, 3);
  const members = [0, 1, 2].map((index) => track(index));
  for (const member of members) await member.state(7, hashA);
  await run(100);
  const newcomer = track(3);
  assert.equal(newcomer.newest(), undefined);
  let done = false;
  void newcomer.inquire().then(() => (done = true));
  await clock.run(clock.nowMs() + 10_000, () => done);
  assert.deepEqual(newcomer.newest(), { round: 7, stateHash: hashA });
  await newcomer.state(8, hashB);
  await run(100);
  assert.equal(members[0]!.agreed(8), undefined);
});

test('lies by gossip: forged and malformed ones fall on who sent them, equivocation on its author', async () => {
  const { run, track, say, statement, penalties, transports } = trackersOf(4);
  const tracker = track(0);
  const forged = statement(1, 3, hashA) as Canonical[];
  const [round, , hash] = forged as [number, number, Uint8Array];
  await say(2, forged.with(4, new Uint8Array(64)));
  await say(2, [round, hash]);
  await transports[2]!.publish('state', new Uint8Array([0xff]));
  await say(1, statement(1, 3, hashA));
  await run(100);
  // The second statement of member 1 is passed on by member 2, who may be honest.
  await say(2, statement(1, 3, hashB));
  await run(100);
  assert.deepEqual(penalties.sort(), [
    '0 1 equivocation',
    '0 2 bad-signature',
    '0 2 malformed',
    '0 2 malformed-statement',
  ]);
  await say(3, statement(3, 3, hashA));
  await run(100);
  assert.equal(tracker.agreed(3), hashA, 'the first one stands');
});

test('a node that found itself different does not state twice', async () => {
  const { run, track, penalties } = trackersOf(4);
  const trackers = [0, 1, 2, 3].map((index) => track(index));
  for (const [i, tracker] of trackers.entries()) await tracker.state(4, i === 0 ? hashB : hashA);
  await run(100);
  assert.equal(trackers[0]!.agreed(4), hashA);
  await trackers[0]!.state(4, hashA);
  await trackers[0]!.state(5, hashA);
  await trackers[1]!.state(5, hashA);
  await run(100);
  assert.deepEqual(penalties, []);
  assert.deepEqual(trackers[3]!.newest(), { round: 5, stateHash: hashA });
});

test('answers to an inquiry that lie are penalised; peers that do not answer hold it up no longer than the deadline', async () => {
  const { clock, track, statement, penalties, transports } = trackersOf(6);
  const tracker = track(0);
  const forged = statement(1, 3, hashA) as Canonical[];
  const answers: Canonical[] = [
    'what?',
    [forged.with(4, new Uint8Array(64))],
    Array.from({ length: 300 }, () => 0),
  ];
  for (const [i, answer] of answers.entries())
    transports[i + 1]!.handle(statusProtocol, async () => accept(encodeCanonical(answer)));
  transports[4]!.handle(statusProtocol, () => new Promise(() => {}));
  transports[5]!.handle(statusProtocol, async () =>
    accept(encodeCanonical([statement(4, 3, hashA), statement(5, 3, hashA), statement(3, 3, hashA)])),
  );
  let done = false;
  void tracker.inquire().then(() => (done = true));
  await clock.run(clock.nowMs() + 10_000, () => done);
  assert.ok(done);
  assert.deepEqual(penalties.sort(), ['0 1 malformed', '0 2 bad-signature', '0 3 malformed']);
  assert.equal(tracker.agreed(3), hashA, 'honest statements count, whoever hands them over');
});

test('closed, it neither hears nor answers', async () => {
  const { run, track, say, statement, transports } = trackersOf(4);
  const tracker = track(0);
  tracker.close();
  for (const member of [1, 2, 3]) await say(member, statement(member, 3, hashA));
  let code = '';
  void transports[1]!
    .request(transports[0]!.self, statusProtocol, new Uint8Array([0x80]))
    .then((answer) => (code = answer.ok ? 'answered' : answer.code));
  await run(1000);
  assert.equal(tracker.newest(), undefined);
  assert.equal(code, 'unknown-protocol');
});

test('each cohort agrees by itself, on the word of its own members, and a newcomer learns of all', async () => {
  const { run, track, say, statement, clock } = trackersOf(7, 6, 2);
  const trackers = [0, 1, 2, 3, 4, 5].map((index) => track(index));
  for (const index of [0, 2]) await trackers[index]!.state(5, hashA);
  await run(100);
  assert.equal(trackers[4]!.agreed(5), hashA);
  assert.equal(trackers[1]!.agreed(5), undefined, 'the other cohort has said nothing');
  assert.equal(trackers[1]!.agreed(5, 0), hashA);
  for (const index of [1, 3]) await trackers[index]!.state(4, hashB);
  // Members of stage 0 have no say in stage 1, nor in a stage that is not there.
  for (const index of [0, 2, 4]) await say(index, statement(index, 5, hashA, 1));
  await say(0, statement(0, 5, hashA, 2));
  await run(100);
  assert.deepEqual(trackers[5]!.newest(), { round: 4, stateHash: hashB });
  assert.equal(trackers[5]!.agreed(5), undefined);
  const newcomer = track(6, 1);
  let done = false;
  void newcomer.inquire().then(() => (done = true));
  await clock.run(clock.nowMs() + 10_000, () => done);
  assert.deepEqual(newcomer.newest(), { round: 4, stateHash: hashB });
  assert.equal(newcomer.agreed(5, 0), hashA);
});

test('a member that holds another stage than its own states nothing', async () => {
  const { run, track } = trackersOf(4, 4, 2);
  const [stray, other] = [track(0, 1), track(1)];
  await stray.state(3, hashA);
  await run(100);
  assert.equal(other.agreed(3), undefined);
});
