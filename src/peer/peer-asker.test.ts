import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createVirtualClock } from '../../sim/virtual-clock.ts';
import { createMemoryHub } from '../net/memory-transport.ts';
import { type Protocol, shardProtocol } from '../net/protocol.ts';
import { utf8 } from '../std/bytes.ts';
import { sha256 } from '../std/hash.ts';
import { accept } from '../std/outcome.ts';
import { seededRandom } from '../std/random.ts';
import { type Attempt, createPeerAsker } from './peer-asker.ts';

function createWorld(protocol: Protocol = shardProtocol) {
  const clock = createVirtualClock();
  const hub = createMemoryHub({ clock, random: seededRandom(sha256(utf8('seed'))) });
  const asker = createPeerAsker({
    transport: hub.join('asker'),
    clock,
    protocol,
    signal: new AbortController().signal,
    unavailableCode: 'not-to-be-had',
  });
  return { clock, hub, asker };
}

test('requests stay within the rate that the protocol allows', async () => {
  const protocol = { ...shardProtocol, requestsPerMinuteMax: 50 };
  const { clock, hub, asker } = createWorld(protocol);
  const answers: boolean[] = [];
  hub.join('a').handle(protocol, async () => accept(new Uint8Array()));
  const asking = (async () => {
    for (let i = 0; i < 120; i++) answers.push((await asker.request('a', new Uint8Array())).ok);
  })();
  await clock.advance(60_000);
  assert.ok(answers.length >= 70 && answers.length < 120);
  await clock.advance(120_000);
  await asking;
  assert.deepEqual(answers, new Array(120).fill(true));
});

test('a peer that fails is asked again after pauses that double, one that lied never', async () => {
  const { clock, hub, asker } = createWorld();
  for (const name of ['failing', 'lying', 'without']) hub.join(name);
  const kinds: Record<string, Attempt<never>> = {
    failing: { kind: 'failed' },
    lying: { kind: 'lied', code: 'bad-proof' },
    without: { kind: 'absent' },
  };
  const startMs = clock.nowMs();
  const asked: Record<string, number[]> = { failing: [], lying: [], without: [] };
  const question = (topic: string) =>
    asker.ask({
      topic,
      patienceMs: 20_000,
      attempt: async (peer): Promise<Attempt<never>> => {
        asked[peer]!.push(clock.nowMs() - startMs);
        return kinds[peer]!;
      },
    });
  const ended = assert.rejects(question('the moon'), {
    code: 'not-to-be-had',
    message: /the moon within 20 seconds \(3 connected\)/,
  });
  await clock.advance(20_000);
  await ended;
  assert.equal(asked.lying!.length, 1);
  assert.deepEqual(asked.failing, asked.without);
  const gaps = asked.failing!.slice(1).map((atMs, i) => atMs - asked.failing![i]!);
  assert.ok(gaps.length >= 3 && gaps.every((gap, i) => gap >= 1_000 * 2 ** i), String(gaps));

  // Who has not got one thing may have another; who fails is left alone for all.
  const before = { without: asked.without!.length, failing: asked.failing!.length };
  const other = assert.rejects(question('the sun'), { code: 'not-to-be-had' });
  await clock.advance(100);
  assert.equal(asked.without!.length, before.without + 1);
  assert.equal(asked.failing!.length, before.failing);
  await clock.advance(20_000);
  await other;
});
