/**
 * One side of the training-step benchmark, in a process of its own: whole training steps of our model on the native
 * engine, one for each line on stdin, with its time and the process's peak memory on stdout. See `../training-step.ts`.
 */
import { createInterface } from 'node:readline';
import type { ModelConfig } from '../../src/model/config.ts';
import { embeddingName, parameterList, wholeModel } from '../../src/model/parameters.ts';
import { buildTrainingGraph, gradientOutput, rowGradientOutput } from '../../src/model/stage-graph.ts';
import { createNativeEngine } from '../../src/platform/nodejs/onnx-native.ts';
import { seededRandom, uniform, uniformBelow } from '../../src/std/random.ts';
import { sizeOf, type TensorData } from '../../src/tensor/graph.ts';
import { createKernelMemory } from '../../src/tensor/kernels/wasm.ts';

export interface StepCase {
  readonly name: string;
  readonly model: ModelConfig;
  readonly batch: number;
  readonly sequence: number;
}

const { model, batch, sequence } = JSON.parse(process.argv[2]!) as StepCase;
const stage = wholeModel(model);
const random = seededRandom(new Uint8Array(16).fill(7));
const graph = buildTrainingGraph(model, stage, { batch, sequence });
const engine = createNativeEngine({ threads: 1 });
const program = await engine.compile(graph);

const parameters = parameterList(model, stage).map((spec) => {
  const length = sizeOf(spec.shape);
  // Weight, gradient and both moments, with room for alignment and rounding to pages.
  const memory = createKernelMemory({ bytes: 16 * length + (1 << 17) });
  const [weight, gradient, m, v] = Array.from({ length: 4 }, () => memory.allocF32(length)) as [
    Float32Array,
    Float32Array,
    Float32Array,
    Float32Array,
  ];
  if (spec.kind === 'vector') weight.fill(1);
  else for (let i = 0; i < length; i++) weight[i] = 0.07 * (uniform(random) - 0.5);
  return { ...spec, memory, weight, gradient, m, v };
});
const embedding = parameters.find((parameter) => parameter.name === embeddingName)!;
const tokensPerStep = batch * sequence;
const tokens = new Int32Array(tokensPerStep).map(() => uniformBelow(random, model.vocabulary));
const labels = new Int32Array(tokensPerStep).map(() => uniformBelow(random, model.vocabulary));

const feeds: Record<string, TensorData> = { tokens, labels };
const fetches: Record<string, TensorData> = { loss: new Float32Array(1) };
for (const { name, weight, gradient } of parameters) {
  feeds[name] = weight;
  if (graph.outputs.has(gradientOutput(name))) fetches[gradientOutput(name)] = gradient;
}
const rows = new Float32Array(tokensPerStep * model.width);
fetches[rowGradientOutput(embeddingName)] = rows;

let step = 0;
async function trainingStep(): Promise<{ graphMs: number; wallMs: number; cpuMs: number }> {
  const started = performance.now();
  const cpuStarted = process.cpuUsage();
  await program.run(feeds, fetches);
  const graphMs = performance.now() - started;
  embedding.gradient.fill(0);
  scatterRows();
  let squares = 0;
  for (const { memory, gradient } of parameters) squares += memory.sumSquares(gradient);
  const gradientScale = Math.min(1, 1 / Math.sqrt(squares));
  step++;
  for (const { memory, weight, gradient, m, v, kind } of parameters) {
    const weightDecay = kind === 'matrix' ? 0.1 : 0;
    const rates = { learningRate: 3e-4, beta1: 0.9, beta2: 0.95, epsilon: 1e-8 };
    memory.adamw(weight, gradient, m, v, { ...rates, weightDecay, step, gradientScale });
  }
  const { user, system } = process.cpuUsage(cpuStarted);
  return { graphMs, wallMs: performance.now() - started, cpuMs: (user + system) / 1000 };
}

/** The rows lie outside the table's memory here, so plain code adds them; it is a thousandth of the step. */
function scatterRows(): void {
  const { gradient } = embedding;
  for (let i = 0; i < tokensPerStep; i++) {
    const target = tokens[i]! * model.width;
    for (let j = 0; j < model.width; j++) gradient[target + j]! += rows[i * model.width + j]!;
  }
}

function report(fields: Record<string, unknown>): void {
  process.stdout.write(`${JSON.stringify({ ...fields, peakRssKb: process.resourceUsage().maxRSS })}\n`);
}

report({ ready: true });
for await (const _ of createInterface({ input: process.stdin })) {
  const times = await trainingStep();
  report({ ...times, loss: fetches.loss![0] });
}
await engine.close();
