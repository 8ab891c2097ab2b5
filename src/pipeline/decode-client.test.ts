import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import {
  compilingOnce,
  createDecodeNetwork,
  type DecodeNetwork,
  type DecodeNode,
  decodeConfig,
  decodeWeights,
} from '../../test/decode-network.ts';
import { chunkTokens } from '../model/decode-call.ts';
import { createDecoder } from '../model/generate.ts';
import { createNativeEngine } from '../platform/nodejs/onnx-native.ts';
import { must } from '../std/assert.ts';
import type { DecodeSession } from './decode-client.ts';

const native = createNativeEngine({ threads: 1 });
const engine = compilingOnce(native);
after(() => native.close());

const prompt = Int32Array.from(
  { length: chunkTokens + 9 },
  (_, i) => (i * 37 + 11) % decodeConfig.vocabulary,
);

function argmax(logits: Float32Array): number {
  return logits.indexOf(Math.max(...logits));
}

/** Logits after the prompt and after each of `count` greedy tokens; `between` runs before each. */
async function write(
  session: DecodeSession,
  count: number,
  between: (made: number) => void = () => {},
  from = prompt,
): Promise<Float32Array[]> {
  const all = [await session.append(from)];
  for (let made = 0; made < count; made++) {
    between(made);
    all.push(await session.append(Int32Array.of(argmax(all.at(-1)!))));
  }
  return all;
}

async function undisturbed(): Promise<Float32Array[]> {
  const network = createDecodeNetwork({ engine, stages: 3, replicas: 1 });
  const session = await network.finish(network.client.open());
  return network.finish(write(session, 12));
}
const expected = await undisturbed();

/** The replica that holds the caller's session of a stage. */
function inUse(network: DecodeNetwork, stage: number): DecodeNode {
  return must(
    network.nodes[stage]!.find(({ decoder }) => decoder.sessions() > 0),
    'a replica with a session',
  );
}

test('text through three stages is that of the whole model in one process, bit for bit', async () => {
  const decoder = await createDecoder({
    engine,
    config: decodeConfig,
    parameters: (name) => must(decodeWeights[name], name),
  });
  const session = decoder.session();
  let logits = await session.append(prompt);
  for (const [i, through] of expected.entries()) {
    assert.deepEqual(through, logits, `after ${i} tokens`);
    logits = await session.append(Int32Array.of(argmax(logits)));
  }
});

for (const stage of [0, 1, 2]) {
  for (const how of ['killed', 'stopped'] as const) {
    test(`stage ${stage} ${how} in the middle: the text goes on as if nothing had been`, async () => {
      const network = createDecodeNetwork({ engine, stages: 3, replicas: 2, seed: stage });
      const session = await network.finish(network.client.open());
      const before = network.clock.nowMs();
      const all = await network.finish(
        write(session, 12, (made) => {
          if (made !== 6) return;
          const node = inUse(network, stage);
          if (how === 'killed') network.hub.crash(node.id);
          else node.isFrozen = true;
        }),
      );
      assert.deepEqual(all, expected);
      const [failover, ...others] = network.failovers;
      assert.deepEqual([failover?.stage, failover?.exact, others.length], [stage, true, 0]);
      assert.equal(failover!.replayed, 2 + 6, 'two chunks and six tokens');
      assert(failover!.tookMs < 1_000, `${failover!.tookMs} ms`);
      assert(network.clock.nowMs() - before < 2_000);
    });
  }
}

test('a replica dies while the prompt is read', async () => {
  const network = createDecodeNetwork({ engine, stages: 3, replicas: 2, serviceMs: 40 });
  const session = await network.finish(network.client.open());
  const writing = write(session, 12);
  await network.clock.advance(60);
  network.hub.crash(inUse(network, 1).id);
  assert.deepEqual(await network.finish(writing), expected);
  assert.equal(network.failovers.length, 1);
});

test('a replica that was started again is used again where there is no other', async () => {
  const network = createDecodeNetwork({ engine, stages: 3, replicas: 1 });
  const session = await network.finish(network.client.open());
  const all = await network.finish(
    write(session, 12, (made) => {
      if (made === 3) network.nodes[1]![0]!.decoder.closeAll();
    }),
  );
  assert.deepEqual(all, expected);
  assert.deepEqual(
    network.failovers.map(({ code, from, to }) => [code, from === to]),
    [['unknown-session', true]],
  );
});

test('many sessions share runs and messages, and survive a failure each to the bit', async () => {
  const network = createDecodeNetwork({ engine, stages: 3, replicas: 2, slots: 64 });
  const count = 12;
  const sessions = await network.finish(
    Promise.all(Array.from({ length: count }, () => network.client.open())),
  );
  let writing = 0;
  const texts = await network.finish(
    Promise.all(
      sessions.map((session, i) =>
        write(
          session,
          10,
          (made) => {
            writing += 1;
            if (i === 0 && made === 5) inUse(network, 1).isFrozen = true;
          },
          prompt.slice(i),
        ),
      ),
    ),
  );
  assert.equal(writing, count * 10);
  assert(network.failovers.length > 0 && network.failovers.every(({ exact, stage }) => exact && stage === 1));
  const stats = network.nodes[0]!.map(({ service }) => service.stats());
  const [positions, runs] = (['positions', 'runs'] as const).map((name) =>
    stats.reduce((sum, each) => sum + each[name], 0),
  ) as [number, number];
  assert(positions > 4 * runs, `${positions} positions in ${runs} runs`);
  for (const [i, text] of texts.entries()) {
    const alone = createDecodeNetwork({ engine, stages: 3, replicas: 1 });
    const session = await alone.finish(alone.client.open());
    const wanted = await alone.finish(write(session, 10, () => {}, prompt.slice(i)));
    for (const [made, logits] of text.entries())
      assert(
        logits.every((logit, j) => Math.abs(logit - wanted[made]![j]!) < 1e-3),
        `text ${i}, token ${made}`,
      );
  }
});

test("the caller's own stage is called directly", async () => {
  const network = createDecodeNetwork({ engine, stages: 3, replicas: 1, callerStage: 1 });
  const session = await network.finish(network.client.open());
  assert.deepEqual(await network.finish(write(session, 12)), expected);
  assert.equal(network.nodes[1]![0]!.service.stats().positions, 0);
  await network.finish(session.close());
  for (const node of network.nodes.flat()) assert.equal(node.decoder.sessions(), 0);
});

test('sessions end at every stage when they are closed, abandoned, or their caller is gone', async () => {
  const network = createDecodeNetwork({ engine, stages: 2, replicas: 1 });
  const sessions = () => network.nodes.flat().map(({ decoder }) => decoder.sessions());
  const session = await network.finish(network.client.open());
  assert.deepEqual(sessions(), [1, 1]);
  await network.finish(session.close());
  assert.deepEqual(sessions(), [0, 0]);
  await network.finish(network.client.open());
  await network.clock.advance(70_000);
  assert.deepEqual(sessions(), [0, 0], 'idle ones end by themselves');
  await network.finish(network.client.open());
  network.hub.crash(network.caller.self);
  await network.clock.advance(10);
  assert.deepEqual(sessions(), [0, 0]);
});

test('what cannot be had is said: no replica, no memory, no common round', async () => {
  const full = createDecodeNetwork({ engine, stages: 2, replicas: 2, slots: 2 });
  for (let i = 0; i < 4; i++) await full.finish(full.client.open());
  await assert.rejects(full.finish(full.client.open()), { code: 'cache-full' });
  assert.deepEqual(
    full.nodes.flat().map(({ decoder }) => decoder.sessions()),
    [2, 2, 2, 2],
    'refused openings leave nothing',
  );
  const empty = createDecodeNetwork({ engine, stages: 2, replicas: 1 });
  empty.forget(empty.nodes[1]![0]!);
  await assert.rejects(empty.finish(empty.client.open()), { code: 'no-route' });
  const apart = createDecodeNetwork({ engine, stages: 2, replicas: 1 });
  apart.nodes[0]![0]!.rounds = [7];
  await assert.rejects(apart.finish(apart.client.open()), { code: 'round-gone' });
  apart.nodes[0]![0]!.rounds = [3, 4];
  apart.nodes[1]![0]!.rounds = [2, 3];
  assert.equal((await apart.finish(apart.client.open())).round, 3, 'one stage is a round behind');
});

test('a session whose weights are gone says so', async () => {
  const network = createDecodeNetwork({ engine, stages: 2, replicas: 2 });
  const session = await network.finish(network.client.open());
  await network.finish(session.append(prompt));
  for (const { rounds } of network.nodes.flat()) rounds.splice(0, 1, 1);
  await assert.rejects(network.finish(session.append(Int32Array.of(1))), { code: 'round-gone' });
});

test('bad tokens and full contexts are refused before anything runs', async () => {
  const network = createDecodeNetwork({ engine, stages: 2, replicas: 1 });
  const session = await network.finish(network.client.open());
  await network.finish(session.append(prompt));
  await assert.rejects(session.append(Int32Array.of(decodeConfig.vocabulary)), { code: 'bad-token' });
  await assert.rejects(session.append(new Int32Array(decodeConfig.context)), { code: 'context-full' });
  assert.equal(session.length, prompt.length);
  const aborted = new AbortController();
  const appending = session.append(Int32Array.of(1), aborted.signal);
  aborted.abort(new Error('enough'));
  await assert.rejects(network.finish(appending), /enough/);
});
