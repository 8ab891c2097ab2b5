import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { allSamples, buildSample, type Sample, sampleFeeds } from '../../test/primitive-samples.ts';
import { differentiate } from './autodiff.ts';
import { type Graph, GraphBuilder, GraphError, type TensorData, type Value } from './graph.ts';
import { evaluate } from './interpreter.ts';
import { verify } from './verify.ts';

type Feeds = Record<string, Float64Array>;

function toFeeds(feeds: Record<string, TensorData>): Feeds {
  return Object.fromEntries(Object.entries(feeds).map(([name, data]) => [name, Float64Array.from(data)]));
}

/** Appends Σ outputs·weights and its gradients; the weights tell every output element apart. */
function withGradients(builder: GraphBuilder, outputs: readonly Value[], wrt: readonly Value[]): Graph {
  const seeds = outputs
    .filter((output) => output.dtype === 'f32')
    .map((output, i): [Value, Value] => {
      const size = output.shape.reduce((a, b) => a * b, 1);
      const weights = Float32Array.from({ length: size }, (_, j) => 1 + ((3 * i + 7 * j) % 11) / 8);
      return [output, builder.constant(weights, output.shape)];
    });
  const gradients = differentiate(builder, { seeds, wrt });
  const sums = seeds.map(([output, weights]) => {
    const product = builder.mul(output, weights);
    return builder.reshape(
      product.shape.length > 0
        ? builder.reduceSum(
            product,
            product.shape.map((_, axis) => axis),
          )
        : product,
      [],
    );
  });
  const total = sums.reduce((a, b) => builder.add(a, b));
  return builder.finish({
    total,
    ...Object.fromEntries(gradients.map((gradient, i) => [`gradient${i}`, gradient])),
  });
}

/** Central differences of fourth order, in f64, of `total` against every element of every gradient. */
function checkGradients(graph: Graph, feeds: Feeds, names: readonly string[]): void {
  const total = (at: Feeds) => evaluate(graph, at).get(graph.outputs.get('total')!)!.data[0]!;
  const values = evaluate(graph, feeds);
  const step = 1e-3;
  names.forEach((name, i) => {
    const gradient = values.get(graph.outputs.get(`gradient${i}`)!)!;
    assert.deepEqual(gradient.shape, graph.inputs.get(name)!.shape, `gradient of ${name} has its shape`);
    gradient.data.forEach((element, j) => {
      const moved = (by: number) => {
        const data = feeds[name]!.slice();
        data[j]! += by;
        return total({ ...feeds, [name]: data });
      };
      const near = moved(step) - moved(-step);
      const far = moved(2 * step) - moved(-2 * step);
      const numeric = (8 * near - far) / (12 * step);
      assert.ok(
        Math.abs(numeric - element) <= 1e-5 * Math.max(1, Math.abs(numeric)),
        `${name}[${j}]: ${element}, finite differences ${numeric}`,
      );
    });
  });
}

function differentiableInputs(sample: Sample): readonly number[] {
  return sample.differentiable ?? sample.inputs.map((_, i) => i);
}

describe('every gradient rule meets finite differences', () => {
  for (const sample of allSamples.filter((candidate) => differentiableInputs(candidate).length > 0)) {
    test(sample.name, () => {
      const { builder, inputs, outputs } = buildSample(sample);
      const positions = differentiableInputs(sample);
      const graph = withGradients(
        builder,
        outputs,
        positions.map((i) => inputs[i]!),
      );
      verify(graph);
      checkGradients(
        graph,
        toFeeds(sampleFeeds(sample)),
        positions.map((i) => `x${i}`),
      );
    });
  }
});

/** One step of a random program on [2,3] tensors: which operation, on which two earlier values. */
const instruction = fc.record({
  op: fc.constantFrom(
    'add',
    'sub',
    'mul',
    'silu',
    'sigmoid',
    'matmul',
    'norm',
    'slices',
    'softmax',
    'broadcast',
  ),
  left: fc.nat(),
  right: fc.nat(),
});

function apply(builder: GraphBuilder, op: string, a: Value, b: Value): Value {
  switch (op) {
    case 'add':
    case 'sub':
    case 'mul':
      return builder[op](a, b);
    case 'silu':
    case 'sigmoid':
    case 'softmax':
      return builder[op](a);
    case 'matmul':
      return builder.matmul(builder.matmul(a, b, { transB: true }), a, { transA: true });
    case 'norm': {
      const square = builder.reduceMean(builder.mul(a, a), [1]);
      return builder.mul(a, builder.reciprocal(builder.sqrt(builder.add(square, builder.scalar(0.5)))));
    }
    case 'slices':
      return builder.concat([builder.slice(a, 1, 2, 3), builder.slice(b, 1, 0, 2)], 1);
    default:
      return builder.mul(b, builder.broadcast(builder.reduceSum(a, [0]), a.shape));
  }
}

test('random graphs: gradients meet finite differences', () => {
  fc.assert(
    fc.property(
      fc.array(instruction, { minLength: 1, maxLength: 7 }),
      fc.integer({ min: 1, max: 255 }),
      (steps, seed) => {
        const builder = new GraphBuilder();
        const values = ['x0', 'x1'].map((name) => builder.input(name, 'f32', [2, 3]));
        const wrt = values.slice();
        for (const { op, left, right } of steps) {
          values.push(apply(builder, op, values[left % values.length]!, values[right % values.length]!));
        }
        // Seeding every value gives each wrt a path and every intermediate two kinds of contribution.
        const graph = withGradients(builder, values, wrt);
        verify(graph);
        const shapes = {
          name: '',
          inputs: [
            [2, 3],
            [2, 3],
          ],
          build: () => [],
        };
        const feeds = toFeeds(sampleFeeds(shapes, seed));
        // Repeated products can grow beyond what differences resolve; such draws are passed over.
        const values64 = [...evaluate(graph, feeds).values()];
        fc.pre(values64.every(({ data }) => data.every((element) => Math.abs(element) < 50)));
        checkGradients(graph, feeds, ['x0', 'x1']);
      },
    ),
    { numRuns: 60 },
  );
});

test('a value without a gradient path is an error that names it', () => {
  const builder = new GraphBuilder();
  const x = builder.input('x', 'f32', [2]);
  const unused = builder.input('unused', 'f32', [2]);
  const y = builder.mul(x, x);
  const seeds: [Value, Value][] = [[y, builder.scalar(1)]];
  assert.throws(
    () => differentiate(builder, { seeds, wrt: [x, unused] }),
    /no gradient path to input unused \[2\]/,
  );
});

test('the table of gatherRows has no dense gradient, and its rows do', () => {
  const builder = new GraphBuilder();
  const table = builder.input('table', 'f32', [4, 2]);
  const rows = builder.gatherRows(table, builder.input('ids', 'i32', [3]));
  const seeds: [Value, Value][] = [[builder.mul(rows, rows), builder.scalar(1)]];
  assert.throws(
    () => differentiate(builder, { seeds, wrt: [table] }),
    (error) => error instanceof GraphError && /with respect to the gathered rows/.test(error.message),
  );
  const [gradient] = differentiate(builder, { seeds, wrt: [rows] });
  assert.deepEqual(gradient!.shape, [3, 2]);
});

test('second derivatives of the fused operations are refused', () => {
  const builder = new GraphBuilder();
  const x = builder.input('x', 'f32', [3]);
  const [first] = differentiate(builder, { seeds: [[builder.silu(x), builder.scalar(1)]], wrt: [x] });
  assert.throws(
    () => differentiate(builder, { seeds: [[first!, builder.scalar(1)]], wrt: [x] }),
    /siluGrad: second derivatives/,
  );
});

test('gradients of slices that tile an axis are joined, not padded and added', () => {
  const builder = new GraphBuilder();
  const x = builder.input('x', 'f32', [5, 3]);
  const parts = [builder.slice(x, 0, 2, 5), builder.slice(x, 0, 0, 2)];
  const seeds = parts.map((part): [Value, Value] => [builder.mul(part, part), builder.scalar(1)]);
  const [gradient] = differentiate(builder, { seeds, wrt: [x] });
  const live = verify(builder.finish({ gradient: gradient! }));
  const ops = live.nodes.map((node) => node.primitive.op);
  assert.ok(ops.includes('concat') && !ops.includes('pad'), `${ops}`);
});
