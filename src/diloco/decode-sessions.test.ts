import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { ModelConfig } from '../model/config.ts';
import { packCalls, unpackResults } from '../model/decode-batch.ts';
import { initialParameter } from '../model/initialize.ts';
import { parameterList, wholeModel } from '../model/parameters.ts';
import { utf8 } from '../std/bytes.ts';
import { createInterpreter } from '../tensor/interpreter.ts';
import { createDecodeSessions } from './decode-sessions.ts';

const config: ModelConfig = {
  layers: 1,
  width: 8,
  heads: 2,
  kvHeads: 1,
  headWidth: 4,
  ffn: 12,
  vocabulary: 17,
  context: 12,
  ropeTheta: 10_000,
  normEpsilon: 1e-5,
  tiedEmbeddings: false,
};
const stage = wholeModel(config);

/** A stage whose weights change with every round. */
function training() {
  let round = 0;
  const bases = Object.fromEntries(
    parameterList(config, stage).map(({ name, shape }) => [
      name,
      initialParameter(utf8('seed'), name, shape, config).map((value) => value * 20),
    ]),
  );
  const sessions = createDecodeSessions({
    engine: createInterpreter(),
    engineClass: 'interpreter',
    config,
    stage,
    bases,
    round: () => round,
  });
  const change = () => {
    for (const view of Object.values(bases)) for (let i = 0; i < view.length; i++) view[i] = -view[i]! + 0.1;
  };
  const positions = new Map<string, number>();
  return {
    sessions,
    change,
    outerStep() {
      sessions.keepBase();
      change();
      round += 1;
    },
    /** The code of a refusal, or which token is likeliest. */
    async next(session: string) {
      const position = positions.get(session) ?? 0;
      positions.set(session, position + 1);
      const call = { session, position, entry: Int32Array.of(5) };
      const [outcome] = unpackResults(await sessions.decode(packCalls([call])));
      return outcome!.ok ? Array.from(outcome!.value.output) : outcome!.code;
    },
    async open(session: string, at?: number) {
      const opened = await sessions.openSession({ session, ...(at !== undefined && { round: at }) });
      return opened.ok ? opened.value.round : opened.code;
    },
  };
}

test('a session goes on with the weights it began with, whatever becomes of the rounds', async () => {
  const still = training();
  const moving = training();
  assert.equal(await still.open('a'), 0);
  assert.equal(await moving.open('a'), 0);
  for (let i = 0; i < 3; i++) {
    assert.deepEqual(await moving.next('a'), await still.next('a'), `after ${i} outer steps`);
    if (i < 2) moving.outerStep();
    if (i === 0) assert.equal(await moving.open('b'), 1);
  }
  assert.equal(await still.open('c'), 0);
  assert.notDeepEqual(await moving.next('b'), await still.next('c'));
  // Two older rounds are kept, and there are three with sessions.
  assert.equal(await moving.open('d'), 2);
  moving.outerStep();
  assert.equal(await moving.next('a'), 'round-gone');
  assert.equal(await moving.next('a'), 'unknown-session');
  assert.equal(typeof (await moving.next('b')), 'object');
});

test('the round before is kept for sessions that come from elsewhere, an older one only for its own', async () => {
  const { open, outerStep, sessions } = training();
  assert.equal(await open('a'), 0);
  await sessions.closeSession('a');
  outerStep();
  assert.equal(await open('b', 0), 0);
  await sessions.closeSession('b');
  outerStep();
  assert.equal(await open('c', 0), 'round-gone');
  assert.equal(await open('d', 1), 1);
  outerStep();
  assert.equal(await open('e', 1), 1, 'its own session holds it');
  assert.equal(await open('f', 9), 'round-gone');
});

test('weights that were replaced end their sessions', async () => {
  const { open, next, change, outerStep, sessions } = training();
  await open('a');
  outerStep();
  await open('b');
  sessions.forget();
  change();
  assert.equal(await next('a'), 'unknown-session');
  assert.equal(await next('b'), 'unknown-session');
  assert.equal(await open('c', 0), 'round-gone');
  assert.equal(await open('d'), 1);
});
