/**
 * PyTorch's numbers for Hugging Face's `LlamaForCausalLM`: logits, losses, gradients, three AdamW steps with clipping,
 * and greedy decoding, on every `llama-*` fixture. Norm-wise, since single elements may differ by rounding.
 */
import assert from 'node:assert/strict';
import { after, describe, test } from 'node:test';
import { type ModelConfig, parameterCount } from '../../src/model/config.ts';
import { createDecoder } from '../../src/model/generate.ts';
import { fromHuggingFaceConfig } from '../../src/model/huggingface.ts';
import {
  embeddingName,
  type ParameterSpec,
  parameterList,
  type StageSpec,
  wholeModel,
} from '../../src/model/parameters.ts';
import { greedy, samplingRandom } from '../../src/model/sampler.ts';
import {
  buildEvaluationGraph,
  buildForwardGraph,
  buildTrainingGraph,
  gradientOutput,
  rowGradientOutput,
} from '../../src/model/stage-graph.ts';
import { createNativeEngine } from '../../src/platform/nodejs/onnx-native.ts';
import { must } from '../../src/std/assert.ts';
import type { Engine } from '../../src/tensor/engine.ts';
import { type Graph, sizeOf } from '../../src/tensor/graph.ts';
import { createInterpreter } from '../../src/tensor/interpreter.ts';
import type { KernelMemory } from '../../src/tensor/kernels/kernels.ts';
import { createKernelMemory } from '../../src/tensor/kernels/wasm.ts';
import { type FixtureTensor, fixtureJson, fixtureNames, fixtureTensors, relativeError } from './fixtures.ts';

/** Relative L2 error allowed against PyTorch, per tensor. */
const tolerance = 1e-5;

interface Expected {
  readonly config: Record<string, unknown>;
  readonly optimizer: {
    readonly lr: number;
    readonly beta1: number;
    readonly beta2: number;
    readonly eps: number;
    readonly weightDecay: number;
    readonly clip: number;
  };
  readonly batch: number;
  readonly seq: number;
  readonly steps: number;
  readonly losses: readonly number[];
  readonly gradNormsBeforeClip: readonly number[];
}

interface Fixture {
  readonly name: string;
  readonly expected: Expected;
  readonly config: ModelConfig;
  readonly list: readonly ParameterSpec[];
  readonly tensor: (name: string) => FixtureTensor;
}

function loadFixture(name: string): Fixture {
  const expected = fixtureJson(name) as Expected;
  const config = fromHuggingFaceConfig({ model_type: 'llama', ...expected.config });
  assert(config.ok, config.ok ? '' : config.detail);
  const tensors = fixtureTensors(name);
  const tensor = (key: string) => must(tensors.get(key), `${name} has no tensor ${key}`);
  const list = parameterList(config.value, wholeModel(config.value));
  return { name, expected, config: config.value, list, tensor };
}

function initialParameters({ list, tensor }: Fixture): Record<string, Float32Array> {
  return Object.fromEntries(list.map(({ name }) => [name, tensor(`param.${name}`).data as Float32Array]));
}

/** Tokens and the tokens after them of one step's [batch, seq + 1]. */
function batchOf({ expected, tensor }: Fixture, step: number): { tokens: Int32Array; labels: Int32Array } {
  const { batch, seq } = expected;
  const all = tensor('tokens').data;
  const tokens = new Int32Array(batch * seq);
  const labels = new Int32Array(batch * seq);
  for (let row = 0; row < batch; row++) {
    const start = (step * batch + row) * (seq + 1);
    tokens.set(all.subarray(start, start + seq), row * seq);
    labels.set(all.subarray(start + 1, start + seq + 1), row * seq);
  }
  return { tokens, labels };
}

function assertClose(actual: ArrayLike<number>, expected: ArrayLike<number>, what: string): void {
  const error = relativeError(actual, expected);
  assert(error <= tolerance, `${what}: relative error ${error}`);
}

interface State {
  readonly memory: KernelMemory;
  readonly weights: Record<string, Float32Array>;
  readonly gradients: Record<string, Float32Array>;
  readonly first: Record<string, Float32Array>;
  readonly second: Record<string, Float32Array>;
  readonly ids: Int32Array;
  readonly rows: Float32Array;
}

function createState(fixture: Fixture): State {
  const { config, list, expected } = fixture;
  const rowCount = expected.batch * expected.seq;
  const memory = createKernelMemory({
    bytes: 20 * parameterCount(config) + 8 * rowCount * config.width + 1_048_576,
  });
  const slab = () =>
    Object.fromEntries(
      list.map(({ name, shape }) => [
        name,
        memory.allocF32(shape.reduce((size, length) => size * length, 1)),
      ]),
    );
  const weights = slab();
  for (const [name, values] of Object.entries(initialParameters(fixture))) weights[name]!.set(values);
  return {
    memory,
    weights,
    gradients: slab(),
    first: slab(),
    second: slab(),
    ids: memory.allocI32(rowCount),
    rows: memory.allocF32(rowCount * config.width),
  };
}

/** Runs the training graph and completes the embedding's gradient; returns the loss. */
async function backward(fixture: Fixture, engine: Engine, state: State, step: number): Promise<number> {
  const { config, expected, list } = fixture;
  const { batch, seq: sequence } = expected;
  const program = await engine.compile(buildTrainingGraph(config, wholeModel(config), { batch, sequence }));
  const { tokens, labels } = batchOf(fixture, step);
  const loss = new Float32Array(1);
  const fetches: Record<string, Float32Array> = { loss, [rowGradientOutput(embeddingName)]: state.rows };
  for (const { name } of list) {
    if (name !== embeddingName || config.tiedEmbeddings)
      fetches[gradientOutput(name)] = state.gradients[name]!;
  }
  const table = state.gradients[embeddingName]!;
  table.fill(0);
  await program.run({ ...state.weights, tokens, labels }, fetches);
  await program.release();
  state.ids.set(tokens);
  state.memory.scatterAddRows(table, state.ids, state.rows, config.width);
  return loss[0]!;
}

/** One AdamW step with global-norm clipping; returns the norm before clipping. */
function optimize(fixture: Fixture, state: State, step: number): number {
  const { optimizer } = fixture.expected;
  let squares = 0;
  for (const { name } of fixture.list) squares += state.memory.sumSquares(state.gradients[name]!);
  const norm = Math.sqrt(squares);
  for (const { name, kind } of fixture.list) {
    state.memory.adamw(
      state.weights[name]!,
      state.gradients[name]!,
      state.first[name]!,
      state.second[name]!,
      {
        learningRate: optimizer.lr,
        beta1: optimizer.beta1,
        beta2: optimizer.beta2,
        epsilon: optimizer.eps,
        weightDecay: kind === 'matrix' ? optimizer.weightDecay : 0,
        step: step + 1,
        // PyTorch's clip_grad_norm_ divides by norm + 1e-6.
        gradientScale: Math.min(1, optimizer.clip / (norm + 1e-6)),
      },
    );
  }
  return norm;
}

async function checkLogits(fixture: Fixture, engine: Engine): Promise<void> {
  const { config, expected, tensor } = fixture;
  const { batch, seq: sequence } = expected;
  const program = await engine.compile(buildForwardGraph(config, wholeModel(config), { batch, sequence }));
  const logits = new Float32Array(batch * sequence * config.vocabulary);
  await program.run({ ...initialParameters(fixture), tokens: batchOf(fixture, 0).tokens }, { logits });
  await program.release();
  assertClose(logits, tensor('logits').data, 'logits');
}

async function checkGradients(fixture: Fixture, engine: Engine): Promise<void> {
  const state = createState(fixture);
  const loss = await backward(fixture, engine, state, 0);
  assertClose([loss], fixture.expected.losses.slice(0, 1), 'loss');
  for (const { name } of fixture.list) {
    assertClose(state.gradients[name]!, fixture.tensor(`grad.${name}`).data, `gradient of ${name}`);
  }
}

async function checkEvaluation(fixture: Fixture, engine: Engine): Promise<void> {
  const { config, expected } = fixture;
  const { batch, seq: sequence } = expected;
  const graph = buildEvaluationGraph(config, wholeModel(config), { batch, sequence, lossChunk: 32 });
  const program = await engine.compile(graph);
  const loss = new Float32Array(1);
  await program.run({ ...initialParameters(fixture), ...batchOf(fixture, 0) }, { loss });
  await program.release();
  assertClose(loss, expected.losses.slice(0, 1), 'evaluation loss');
}

/** The gradients of the fixture again, with the model cut before and after every layer. */
async function checkStages(fixture: Fixture, engine: Engine): Promise<void> {
  const { config, expected } = fixture;
  const shape = { batch: expected.batch, sequence: expected.seq };
  const { tokens, labels } = batchOf(fixture, 0);
  const weights = initialParameters(fixture);
  const runStage = async (graph: Graph, more: Record<string, Float32Array | Int32Array>) => {
    const available: Record<string, Float32Array | Int32Array> = { ...weights, tokens, labels, ...more };
    const feeds = Object.fromEntries([...graph.inputs.keys()].map((name) => [name, available[name]!]));
    const fetches: Record<string, Float32Array> = {};
    for (const [name, value] of graph.outputs) fetches[name] = new Float32Array(sizeOf(value.shape));
    const program = await engine.compile(graph);
    await program.run(feeds, fetches);
    await program.release();
    return fetches;
  };
  const stages: StageSpec[] = [{ firstLayer: 0, endLayer: 0, embedding: true, head: false }];
  for (let layer = 0; layer < config.layers; layer++) {
    stages.push({ firstLayer: layer, endLayer: layer + 1, embedding: false, head: false });
  }
  stages.push({ firstLayer: config.layers, endLayer: config.layers, embedding: false, head: true });
  const entries: Float32Array[] = [new Float32Array()];
  for (const stage of stages.slice(0, -1)) {
    entries.push((await runStage(buildForwardGraph(config, stage, shape), { x: entries.at(-1)! })).y!);
  }
  let dy = new Float32Array();
  for (const [i, stage] of [...stages.entries()].reverse()) {
    const outputs = await runStage(buildTrainingGraph(config, stage, shape), { x: entries[i]!, dy });
    if (outputs.loss) assertClose(outputs.loss, expected.losses.slice(0, 1), 'loss of the last stage');
    for (const { name } of parameterList(config, stage)) {
      if (name === embeddingName) continue;
      assertClose(
        outputs[gradientOutput(name)]!,
        fixture.tensor(`grad.${name}`).data,
        `staged gradient of ${name}`,
      );
    }
    dy = (outputs.dx ?? dy) as typeof dy;
    const rows = outputs[rowGradientOutput(embeddingName)];
    if (rows) assertClose(rows, dy, 'rows of a stage that is the embedding alone');
  }
}

async function checkTraining(fixture: Fixture, engine: Engine): Promise<void> {
  const { expected, list, tensor } = fixture;
  const state = createState(fixture);
  for (let step = 0; step < expected.steps; step++) {
    const loss = await backward(fixture, engine, state, step);
    assertClose([loss], [expected.losses[step]!], `loss of step ${step}`);
    assertClose(
      [optimize(fixture, state, step)],
      [expected.gradNormsBeforeClip[step]!],
      `norm of step ${step}`,
    );
  }
  for (const { name } of list) {
    assertClose(
      state.weights[name]!,
      tensor(`after${expected.steps}.${name}`).data,
      `${name} after training`,
    );
  }
}

async function checkGreedy(fixture: Fixture, engine: Engine): Promise<void> {
  const { config, tensor } = fixture;
  const weights = initialParameters(fixture);
  const sequence = Array.from(tensor('greedy').data);
  const promptLength = sequence.length - 20;
  const decoder = await createDecoder({
    engine,
    config,
    parameters: (name) => weights[name]!,
    prefillChunk: 4,
  });
  const tokens = sequence.slice(0, promptLength);
  const request = { prompt: tokens.slice(), sampling: greedy, random: samplingRandom(0), maxTokens: 20 };
  for await (const token of decoder.generate(request)) tokens.push(token);
  await decoder.close();
  assert.deepEqual(tokens, sequence);
}

for (const name of fixtureNames('llama-')) {
  describe(name, () => {
    const fixture = loadFixture(name);
    const engines = { native: createNativeEngine({ threads: 1 }), interpreter: createInterpreter() };
    after(async () => {
      for (const engine of Object.values(engines)) await engine.close();
    });
    for (const [kind, engine] of Object.entries(engines)) {
      test(`${kind}: logits`, () => checkLogits(fixture, engine));
      test(`${kind}: loss and gradients`, () => checkGradients(fixture, engine));
      if (!fixture.config.tiedEmbeddings)
        test(`${kind}: cut into stages`, () => checkStages(fixture, engine));
      test(`${kind}: evaluation in chunks`, () => checkEvaluation(fixture, engine));
      test(`${kind}: AdamW steps with clipping`, () => checkTraining(fixture, engine));
      test(`${kind}: greedy decoding`, () => checkGreedy(fixture, engine));
    }
  });
}
