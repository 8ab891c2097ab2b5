import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { utf8 } from '../std/bytes.ts';
import { seededRandom, uniform, uniformBelow } from '../std/random.ts';
import { type Graph, sizeOf, type TensorData } from '../tensor/graph.ts';
import { createInterpreter, evaluate } from '../tensor/interpreter.ts';
import type { ModelConfig } from './config.ts';
import { initialParameter } from './initialize.ts';
import { lossChunkTokens } from './loss-graph.ts';
import { embeddingName, finalNormName, parameterList, type StageSpec, wholeModel } from './parameters.ts';
import { buildEvaluationGraph, buildForwardGraph, buildTrainingGraph } from './stage-graph.ts';

const config: ModelConfig = {
  layers: 3,
  width: 16,
  heads: 4,
  kvHeads: 2,
  headWidth: 6,
  ffn: 20,
  vocabulary: 23,
  context: 8,
  ropeTheta: 10_000,
  normEpsilon: 1e-5,
  tiedEmbeddings: false,
};
const shape = { batch: 2, sequence: 7 };
const rows = shape.batch * shape.sequence;
const engine = createInterpreter();

function randomParameters(of: ModelConfig): Record<string, Float32Array> {
  const random = seededRandom(utf8('sixteen byte seed'));
  return Object.fromEntries(
    parameterList(of, wholeModel(of)).map(({ name, shape: dims, kind }) => {
      const values = initialParameter(utf8('seed'), name, dims, of);
      // Larger than at initialisation, and norms off one, so that every path carries a gradient worth comparing.
      for (let i = 0; i < values.length; i++) {
        values[i] = kind === 'vector' ? 0.8 + 0.4 * uniform(random) : values[i]! * 15;
      }
      return [name, values];
    }),
  );
}

function randomBatch(of: ModelConfig): { tokens: Int32Array; labels: Int32Array } {
  const random = seededRandom(utf8('another 16 byte seed'));
  const ids = () => Int32Array.from({ length: rows }, () => uniformBelow(random, of.vocabulary));
  return { tokens: ids(), labels: ids() };
}

/** Runs a graph with what it asks for out of `available`, and returns all outputs. */
async function run(
  graph: Graph,
  available: Record<string, TensorData>,
): Promise<Record<string, Float32Array>> {
  const feeds = Object.fromEntries([...graph.inputs.keys()].map((name) => [name, available[name]!]));
  const fetches: Record<string, Float32Array> = {};
  for (const [name, value] of graph.outputs) fetches[name] = new Float32Array(sizeOf(value.shape));
  const program = await engine.compile(graph);
  await program.run(feeds, fetches);
  await program.release();
  return fetches;
}

function assertNear(
  actual: ArrayLike<number>,
  expected: ArrayLike<number>,
  bound: number,
  what: string,
): void {
  assert.equal(actual.length, expected.length, what);
  let difference = 0;
  let norm = 1e-30;
  for (let i = 0; i < expected.length; i++) {
    assert(Number.isFinite(actual[i]), `${what} is finite`);
    difference += (actual[i]! - expected[i]!) ** 2;
    norm += expected[i]! ** 2;
  }
  const error = Math.sqrt(difference / norm);
  assert(error < bound, `${what}: relative error ${error}`);
}

/** Forward through the stages, then backward in reverse, as the pipeline does; all outputs but `dx`. */
async function trainInStages(stages: readonly StageSpec[], weights: Record<string, Float32Array>) {
  const batch = randomBatch(config);
  const entries: Float32Array[] = [];
  let x = new Float32Array();
  for (const stage of stages.slice(0, -1)) {
    entries.push(x);
    x = (await run(buildForwardGraph(config, stage, shape), { ...weights, ...batch, x })).y! as typeof x;
  }
  entries.push(x);
  const outputs: Record<string, Float32Array> = {};
  let dy = new Float32Array();
  for (const [i, stage] of [...stages.entries()].reverse()) {
    const graph = buildTrainingGraph(config, stage, shape);
    const { dx, ...rest } = await run(graph, { ...weights, ...batch, x: entries[i]!, dy });
    assert.equal(dx === undefined, stage.embedding);
    if (dx) dy = dx as typeof dy;
    Object.assign(outputs, rest);
  }
  return outputs;
}

function stagesOf(bounds: readonly number[]): StageSpec[] {
  return bounds.slice(1).map((endLayer, i) => ({
    firstLayer: bounds[i]!,
    endLayer,
    embedding: i === 0,
    head: i === bounds.length - 2,
  }));
}

test('cut anywhere, the stages give the loss and gradients of the whole model', async () => {
  const weights = randomParameters(config);
  const whole = await run(buildTrainingGraph(config, wholeModel(config), shape), {
    ...weights,
    ...randomBatch(config),
  });
  assert(whole.loss![0]! > 1 && whole.loss![0]! < 20);
  for (const bounds of [
    [0, 0, 3, 3],
    [0, 1, 2, 3],
    [0, 2, 3],
    [0, 3, 3],
    [0, 1, 3],
  ]) {
    const cut = await trainInStages(stagesOf(bounds), weights);
    assert.deepEqual(Object.keys(cut).sort(), Object.keys(whole).sort());
    for (const [name, expected] of Object.entries(whole)) {
      assertNear(cut[name]!, expected, 1e-6, `${name} cut at ${bounds}`);
    }
  }
});

test('the loss in chunks of tokens is the loss at once, with its gradients', async () => {
  for (const tiedEmbeddings of [false, true]) {
    const model = { ...config, tiedEmbeddings };
    const available = { ...randomParameters(model), ...randomBatch(model) };
    const atOnce = await run(buildTrainingGraph(model, wholeModel(model), shape), available);
    const chunked = await run(
      buildTrainingGraph(model, wholeModel(model), { ...shape, lossChunk: 4 }),
      available,
    );
    for (const [name, expected] of Object.entries(atOnce)) assertNear(chunked[name]!, expected, 1e-6, name);
  }
});

test('gradients are those of finite differences of the loss', async () => {
  for (const tiedEmbeddings of [false, true]) {
    const model = { ...config, tiedEmbeddings };
    const weights = randomParameters(model);
    const batch = randomBatch(model);
    const gradients = await run(buildTrainingGraph(model, wholeModel(model), shape), {
      ...weights,
      ...batch,
    });
    // In f64 throughout, so that a small step keeps its digits.
    const graph = buildEvaluationGraph(model, wholeModel(model), shape);
    const lossWith = (changed: Record<string, Float64Array>) =>
      evaluate(graph, { ...weights, ...changed, ...batch }).get(graph.outputs.get('loss')!)!.data[0]!;
    const random = seededRandom(utf8('directions, 16 bytes'));
    for (const { name } of parameterList(model, wholeModel(model))) {
      const direction = Float64Array.from(weights[name]!, () => uniform(random) - 0.5);
      const moved = (by: number) =>
        Float64Array.from(weights[name]!, (value, i) => value + by * direction[i]!);
      const step = 1e-5;
      const slope = (lossWith({ [name]: moved(step) }) - lossWith({ [name]: moved(-step) })) / (2 * step);
      const gradient = denseGradient(model, gradients, name, batch.tokens);
      const expected = gradient.reduce((sum, value, i) => sum + value * direction[i]!, 0);
      assert(
        Math.abs(slope - expected) < 2e-3 * Math.max(0.05, Math.abs(expected)),
        `${name}: ${slope} ${expected}`,
      );
    }
  }
});

/** The gradient of a parameter, with the embedding's rows added as the host does. */
function denseGradient(
  model: ModelConfig,
  outputs: Record<string, Float32Array>,
  name: string,
  tokens: Int32Array,
): Float64Array {
  const dense = outputs[`grad.${name}`] ?? new Float32Array(model.vocabulary * model.width);
  const total = Float64Array.from(dense);
  if (name !== embeddingName) return total;
  const gathered = outputs[`gradRows.${name}`]!;
  for (const [row, token] of tokens.entries()) {
    for (let i = 0; i < model.width; i++) total[token * model.width + i]! += gathered[row * model.width + i]!;
  }
  return total;
}

test('evaluation gives the mean of the token losses, and the training loss', async () => {
  const available = { ...randomParameters(config), ...randomBatch(config) };
  const graph = buildEvaluationGraph(config, wholeModel(config), { ...shape, lossChunk: 4, perToken: true });
  const { loss, losses } = await run(graph, available);
  assertNear(loss!, [losses!.reduce((sum, value) => sum + value, 0) / rows], 1e-6, 'mean');
  const training = await run(buildTrainingGraph(config, wholeModel(config), shape), available);
  assertNear(loss!, training.loss!, 1e-6, 'training loss');
  const alone = buildEvaluationGraph(config, wholeModel(config), shape);
  assert.deepEqual([...alone.outputs.keys()], ['loss']);
});

test('a token sees only those before it', async () => {
  const weights = randomParameters(config);
  const { tokens } = randomBatch(config);
  const graph = buildForwardGraph(config, wholeModel(config), shape);
  const before = (await run(graph, { ...weights, tokens })).logits!;
  const changed = tokens.slice();
  changed[4] = (changed[4]! + 1) % config.vocabulary;
  const after = (await run(graph, { ...weights, tokens: changed })).logits!;
  for (let row = 0; row < rows; row++) {
    const [a, b] = [before, after].map((all) =>
      all.subarray(row * config.vocabulary, (row + 1) * config.vocabulary),
    );
    if (row >= 4 && row < shape.sequence) assert.notDeepEqual(a, b, `row ${row}`);
    else assert.deepEqual(a, b, `row ${row}`);
  }
});

test('inputs and outputs carry the agreed names, gradients in canonical order', () => {
  const middle: StageSpec = { firstLayer: 1, endLayer: 2, embedding: false, head: false };
  const graph = buildTrainingGraph(config, middle, shape);
  const names = parameterList(config, middle).map(({ name }) => name);
  assert.deepEqual([...graph.inputs.keys()].sort(), [...names, 'x', 'dy'].sort());
  assert.deepEqual([...graph.outputs.keys()], ['dx', ...names.map((name) => `grad.${name}`)]);
  const frozenBefore = buildTrainingGraph(config, middle, { ...shape, inputGradient: false });
  assert(!frozenBefore.outputs.has('dx'));
  const whole = buildTrainingGraph(config, wholeModel(config), shape);
  assert.deepEqual([...whole.outputs.keys()].slice(0, 1), ['loss']);
  assert.deepEqual([...whole.outputs.keys()].slice(-2), [
    `grad.${finalNormName}`,
    `gradRows.${embeddingName}`,
  ]);
  assert(!whole.outputs.has(`grad.${embeddingName}`));
});

test('sequences beyond the context and losses without a head are refused', () => {
  assert.throws(() => buildTrainingGraph(config, wholeModel(config), { batch: 1, sequence: 9 }), {
    code: 'bad-sequence',
  });
  const first: StageSpec = { firstLayer: 0, endLayer: 1, embedding: true, head: false };
  assert.throws(() => buildEvaluationGraph(config, first, shape), { code: 'bad-stage' });
});

test('chunks of the loss stay under their bound of logits, or at 32 tokens', () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 4_000_000 }), (vocabulary) => {
      const tokens = lossChunkTokens(vocabulary);
      assert(tokens === 32 || tokens * vocabulary <= 2_097_152);
      assert(tokens >= 32 && tokens <= 1024);
    }),
  );
});
