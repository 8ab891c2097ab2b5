import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { createNativeEngine } from '../platform/nodejs/onnx-native.ts';
import { must } from '../std/assert.ts';
import { utf8 } from '../std/bytes.ts';
import type { Engine } from '../tensor/engine.ts';
import { createInterpreter } from '../tensor/interpreter.ts';
import type { ModelConfig } from './config.ts';
import { sessionCacheBytes, slotsOf } from './decode-cache.ts';
import { chunkTokens, type DecodeCall } from './decode-call.ts';
import { type DecodeShape, planCalls } from './decode-plan.ts';
import { createDecodeStage, type DecodeStage } from './decode-stage.ts';
import { createDecoder } from './generate.ts';
import { initialParameter } from './initialize.ts';
import { parameterList, type StageSpec, wholeModel } from './parameters.ts';

const config: ModelConfig = {
  layers: 2,
  width: 32,
  heads: 4,
  kvHeads: 2,
  headWidth: 8,
  ffn: 48,
  vocabulary: 61,
  context: 48,
  ropeTheta: 10_000,
  normEpsilon: 1e-5,
  tiedEmbeddings: false,
};
const whole = wholeModel(config);
const sessionBytes = sessionCacheBytes(config, whole, config.context);
const native = createNativeEngine({ threads: 1 });
after(() => native.close());

function weightsOf(seed: string): Record<string, Float32Array> {
  return Object.fromEntries(
    parameterList(config, whole).map(({ name, shape, kind }) => {
      const values = initialParameter(utf8(seed), name, shape, config);
      return [name, kind === 'matrix' ? values.map((value) => value * 10) : values];
    }),
  );
}
const weights = [weightsOf('first'), weightsOf('second')];

function only(names: readonly string[], all: Record<string, Float32Array>): Record<string, Float32Array> {
  return Object.fromEntries(names.map((name) => [name, must(all[name], name)]));
}

function stageOf(more: { engine?: Engine; stage?: StageSpec; slots?: number; rounds?: number[] } = {}) {
  const { engine = native, stage = whole, slots = 32, rounds = [0] } = more;
  const names = parameterList(config, stage).map(({ name }) => name);
  return createDecodeStage({
    engine,
    config,
    stage,
    cacheBytesMax: slots * sessionCacheBytes(config, stage, config.context),
    parameters: (round) => (rounds.includes(round) ? only(names, weights[round % 2]!) : undefined),
  });
}

/** Runs calls of which none may be refused. */
async function run(stage: DecodeStage, calls: readonly DecodeCall[]) {
  return (await stage.run(calls)).map((outcome) => {
    assert(outcome.ok, outcome.ok ? '' : `${outcome.code} ${outcome.detail}`);
    return outcome.value;
  });
}

function open(stage: DecodeStage, session: string, round = 0): void {
  assert.deepEqual(stage.open({ session, round }), { ok: true, value: undefined });
}

function tokensOf(session: number, count: number): Int32Array {
  return Int32Array.from({ length: count }, (_, i) => (session * 17 + i * 7 + 3) % config.vocabulary);
}

/** Opens sessions 0 to count − 1, each with its own prompt of 3 + (session mod 5) tokens. */
async function prefilled(stage: DecodeStage, count: number): Promise<DecodeCall[]> {
  for (let i = 0; i < count; i++) open(stage, `${i}`);
  await run(
    stage,
    Array.from({ length: count }, (_, i) => ({
      session: `${i}`,
      position: 0,
      entry: tokensOf(i, 3 + (i % 5)),
    })),
  );
  return Array.from({ length: count }, (_, i) => ({
    session: `${i}`,
    position: 3 + (i % 5),
    entry: tokensOf(i + 1, 1),
  }));
}

test('a prompt in chunks and single tokens gives the logits of whole-model decoding, bit for bit', async () => {
  const all = weights[0]!;
  const decoder = await createDecoder({
    engine: native,
    config,
    parameters: (name) => must(all[name], name),
  });
  const expected = decoder.session();
  const stage = stageOf();
  open(stage, 'a');
  const prompt = tokensOf(1, chunkTokens + 5);
  const wanted = await expected.append(prompt);
  await run(stage, [{ session: 'a', position: 0, entry: prompt.subarray(0, chunkTokens) }]);
  const rest = prompt.subarray(chunkTokens);
  const [last] = await run(stage, [{ session: 'a', position: chunkTokens, entry: rest }]);
  assert.deepEqual(last, { output: wanted, shape: '1x32' });
  for (let i = 0; i < 4; i++) {
    const entry = tokensOf(i, 1);
    const [single] = await run(stage, [{ session: 'a', position: prompt.length + i, entry }]);
    assert.deepEqual(single, { output: await expected.append(entry), shape: '1x1' });
  }
  await stage.release();
});

test('a batch gives every session what it gets alone, in f64 arithmetic to rounding', async () => {
  const engine = createInterpreter();
  const together = stageOf({ engine, slots: 8 });
  const calls = await prefilled(together, 6);
  const batch = await run(together, calls);
  assert.deepEqual(new Set(batch.map(({ shape }) => shape)), new Set(['8x1']));
  const alone = stageOf({ engine, slots: 8 });
  await prefilled(alone, 6);
  for (const [i, call] of calls.entries()) {
    const [single] = await run(alone, [call]);
    assert.equal(single!.shape, '1x1');
    for (const [j, value] of single!.output.entries())
      assert(Math.abs(value - batch[i]!.output[j]!) < 1e-5, `session ${i}, logit ${j}`);
  }
});

for (const shape of ['8x1', '32x1'] as const) {
  test(`native, ${shape}: bits depend neither on the slot nor on what runs beside`, async () => {
    const full = stageOf();
    const calls = (await prefilled(full, 32)).map((call): DecodeCall => ({ ...call, shape }));
    const together = await run(full, calls);
    assert.deepEqual(new Set(together.map((result) => result.shape)), new Set([shape]));
    const other = stageOf();
    // The other way round, so that every session stands in another slot.
    for (let i = 31; i >= 0; i--) open(other, `${i}`);
    for (const [i, call] of calls.entries()) {
      await run(other, [{ session: `${i}`, position: 0, entry: tokensOf(i, 3 + (i % 5)) }]);
      const [alone] = await run(other, [call]);
      assert.deepEqual(alone!.output, together[i]!.output, `session ${i}`);
    }
    await full.release();
    await other.release();
  });
}

test('a cut stage passes rows on, and they say what the whole says', async () => {
  const front = stageOf({ stage: { firstLayer: 0, endLayer: 1, embedding: true, head: false } });
  const back = stageOf({ stage: { firstLayer: 1, endLayer: 2, embedding: false, head: true } });
  const all = stageOf();
  for (const stage of [front, back, all]) open(stage, 'a');
  let position = 0;
  for (const count of [7, 1, 1, 4]) {
    const entry = tokensOf(position, count);
    const [rows] = await run(front, [{ session: 'a', position, entry }]);
    assert.equal(rows!.output.length, count * config.width);
    const [logits] = await run(back, [{ session: 'a', position, entry: rows!.output }]);
    const [expected] = await run(all, [{ session: 'a', position, entry }]);
    assert.deepEqual(logits, expected);
    position += count;
  }
  for (const stage of [front, back, all]) await stage.release();
});

test('calls that do not fit are refused one by one and disturb nothing', async () => {
  const stage = stageOf({ slots: 2, rounds: [0] });
  const back = stageOf({ stage: { firstLayer: 1, endLayer: 2, embedding: false, head: true } });
  open(stage, 'a');
  open(back, 'a');
  const prompt = tokensOf(0, 4);
  const refused: [Partial<DecodeCall>, string][] = [
    [{ session: 'b' }, 'unknown-session'],
    [{ position: 1 }, 'out-of-order'],
    [{ position: -1 }, 'out-of-order'],
    [{ entry: new Int32Array(0) }, 'wrong-shape'],
    [{ entry: new Int32Array(chunkTokens + 1) }, 'wrong-shape'],
    [{ entry: new Float32Array(config.width) }, 'wrong-shape'],
    [{ shape: '1x1' }, 'wrong-shape'],
    [{ entry: Int32Array.of(config.vocabulary) }, 'bad-token'],
    [{ entry: Int32Array.of(-1) }, 'bad-token'],
    [{ entry: Int32Array.of(1), shape: '8x1' }, 'shape-unavailable'],
  ];
  const good: DecodeCall = { session: 'a', position: 0, entry: prompt };
  for (const [more, code] of refused) {
    const [outcome] = await stage.run([{ ...good, ...more }]);
    assert.equal(outcome!.ok ? '' : outcome!.code, code);
  }
  const rows = new Float32Array(config.width);
  for (const value of [Number.NaN, Number.POSITIVE_INFINITY]) {
    const [outcome] = await back.run([{ session: 'a', position: 0, entry: rows.map(() => value) }]);
    assert.equal(outcome!.ok ? '' : outcome!.code, 'not-finite');
  }
  const [first, second] = await stage.run([good, good]);
  assert(first!.ok);
  assert.equal(second!.ok ? '' : second!.code, 'out-of-order');
  const [repeated] = await stage.run([good]);
  assert.equal(repeated!.ok ? '' : repeated!.code, 'out-of-order');
  const fresh = stageOf({ slots: 2 });
  open(fresh, 'a');
  assert.deepEqual((await run(fresh, [good]))[0], first!.value, 'what was refused left no trace');
  for (let position = 4; position < config.context; position++)
    await run(stage, [{ session: 'a', position, entry: Int32Array.of(position) }]);
  const [over] = await stage.run([{ session: 'a', position: config.context, entry: Int32Array.of(1) }]);
  assert.equal(over!.ok ? '' : over!.code, 'context-full');
});

test('memory admits so many sessions and no more; what ends makes room, and leaves nothing behind', async () => {
  const stage = stageOf({ slots: 3 });
  assert.equal(stage.sessionsMax, 3);
  for (const name of ['a', 'b', 'c']) open(stage, name);
  const codeOf = (session: string) => {
    const outcome = stage.open({ session, round: 0 });
    return outcome.ok ? '' : outcome.code;
  };
  assert.equal(codeOf('d'), 'cache-full');
  assert.equal(codeOf('a'), 'duplicate-session');
  await run(stage, [{ session: 'b', position: 0, entry: tokensOf(1, 9) }]);
  stage.close('b');
  stage.close('nobody');
  assert.equal(codeOf('d'), '');
  const call = (session: string): DecodeCall => ({ session, position: 0, entry: tokensOf(2, 5) });
  const [again, other] = await run(stage, [call('d'), call('a')]);
  assert.deepEqual(again, other);
  assert.equal(stageOf({ slots: 0 }).sessionsMax, 0);
});

test('sessions stay with the weights of their round until these are gone', async () => {
  const rounds = [0];
  const stage = stageOf({ rounds });
  open(stage, 'old');
  rounds.push(1);
  open(stage, 'new', 1);
  assert.deepEqual(stage.rounds(), [0, 1]);
  const call = (session: string): DecodeCall => ({ session, position: 0, entry: tokensOf(1, 1) });
  const [old, fresh] = await run(stage, [call('old'), call('new')]);
  assert.notDeepEqual(old!.output, fresh!.output);
  rounds.shift();
  const [gone, stays] = await stage.run([
    { ...call('old'), position: 1 },
    { ...call('new'), position: 1 },
  ]);
  assert.equal(gone!.ok ? '' : gone!.code, 'round-gone');
  assert(stays!.ok);
  assert.deepEqual(stage.rounds(), [1]);
  const late = stage.open({ session: 'late', round: 0 });
  assert.equal(late.ok ? '' : late.code, 'round-gone');
});

test('runs are planned where they are cheapest, and every call once', () => {
  const plan = (slots: readonly number[], width = 32, shape?: DecodeShape) =>
    planCalls(
      slots.map((slot) => ({ session: { slot }, count: 1, shape })),
      width,
    ).map((planned) => [planned.shape, planned.firstSlot, planned.calls.length]);
  const upTo = (count: number) => Array.from({ length: count }, (_, i) => i);
  assert.deepEqual(plan([5]), [['1x1', 5, 1]]);
  assert.deepEqual(plan([3, 9]), [
    ['1x1', 3, 1],
    ['1x1', 9, 1],
  ]);
  assert.deepEqual(plan(upTo(9)), [
    ['8x1', 0, 8],
    ['1x1', 8, 1],
  ]);
  assert.deepEqual(plan(upTo(32)), [['32x1', 0, 32]]);
  assert.deepEqual(plan(upTo(40)), [
    ['32x1', 0, 32],
    ['8x1', 32, 8],
  ]);
  assert.deepEqual(plan(upTo(8), 1).length, 8);
  assert.deepEqual(plan([7, 8], 32, '32x1'), [['32x1', 0, 2]]);
  assert.deepEqual(plan([7, 8], 32, '8x1'), [
    ['8x1', 0, 1],
    ['8x1', 8, 1],
  ]);
});

test('memory is cut into the widest slabs that fit', () => {
  assert.deepEqual(slotsOf(100 * sessionBytes, sessionBytes), { slots: 96, width: 32 });
  assert.deepEqual(slotsOf(31 * sessionBytes, sessionBytes), { slots: 24, width: 8 });
  assert.deepEqual(slotsOf(7 * sessionBytes, sessionBytes), { slots: 7, width: 1 });
  assert.deepEqual(slotsOf(sessionBytes - 1, sessionBytes), { slots: 0, width: 1 });
});
