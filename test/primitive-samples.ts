/**
 * Small graphs that together use every primitive in every form: what the engine contract runs and the gradient tests
 * differentiate. The table is exhaustive, so a new primitive without a sample does not compile.
 */
import { seededRandom, uniform, uniformBelow } from '../src/std/random.ts';
import {
  type Graph,
  GraphBuilder,
  type PrimitiveTable,
  type Shape,
  sizeOf,
  type TensorData,
  type Value,
} from '../src/tensor/graph.ts';

export interface Sample {
  readonly name: string;
  /** f32 inputs by shape; values are uniform in [−1, 1), or [0.5, 1.5) for those listed in `positive`. */
  readonly inputs: readonly Shape[];
  readonly positive?: boolean;
  /** i32 inputs [length] with values below `bound`. */
  readonly ids?: readonly { readonly length: number; readonly bound: number }[];
  readonly build: (
    builder: GraphBuilder,
    inputs: readonly Value[],
    ids: readonly Value[],
  ) => readonly Value[];
  /** Inputs by position whose gradient is defined; all by default, none for gradients themselves. */
  readonly differentiable?: readonly number[];
}

function elementwise(op: 'add' | 'sub' | 'mul' | 'div'): Sample[] {
  const pairs: [Shape, Shape][] = [
    [
      [3, 4],
      [3, 4],
    ],
    [[3, 4], [4]],
    [
      [3, 1],
      [1, 4],
    ],
    [
      [2, 1, 3],
      [4, 1],
    ],
    [[], [2, 2]],
  ];
  return pairs.map(([a, b]) => ({
    name: `${op} [${a}] [${b}]`,
    inputs: [a, b],
    positive: op === 'div',
    build: (builder, [x, y]) => [builder[op](x!, y!)],
  }));
}

function unary(op: 'neg' | 'sqrt' | 'reciprocal' | 'sigmoid' | 'silu'): Sample[] {
  const positive = op === 'sqrt' || op === 'reciprocal';
  return [{ name: op, inputs: [[3, 5]], positive, build: (builder, [x]) => [builder[op](x!)] }];
}

const flags = [
  [false, false],
  [false, true],
  [true, false],
  [true, true],
] as const;

function matmuls(): Sample[] {
  const plain = flags.map(
    ([transA, transB]): Sample => ({
      name: `matmul ${transA} ${transB}`,
      inputs: [transA ? [4, 3] : [3, 4], transB ? [5, 4] : [4, 5]],
      build: (builder, [a, b]) => [builder.matmul(a!, b!, { transA, transB })],
    }),
  );
  const residual: Sample = {
    name: 'matmul plus residuals',
    inputs: [[3, 4], [5, 4], [3, 5], [5]],
    build: (builder, [a, b, c, bias]) => {
      const product = () => builder.matmul(a!, b!, { transB: true });
      const sum = builder.add(c!, product());
      // A sum of two products, a bias, and a product that is used twice and so cannot be absorbed.
      const twice = builder.matmul(sum, b!);
      return [
        builder.add(builder.add(product(), builder.mul(sum, bias!)), product()),
        builder.add(twice, a!),
        twice,
      ];
    },
  };
  return [...plain, residual];
}

function batchMatmuls(): Sample[] {
  return flags.map(([transA, transB]) => ({
    name: `batchMatmul ${transA} ${transB}`,
    inputs: [transA ? [2, 2, 4, 3] : [2, 2, 3, 4], transB ? [2, 2, 5, 4] : [2, 2, 4, 5]],
    build: (builder, [a, b]) => [builder.batchMatmul(a!, b!, { transA, transB, scale: 0.25 })],
  }));
}

function attention(op: 'causalAttention' | 'causalAttentionGrad'): Sample[] {
  // Lengths on both sides of a chunk boundary, and groups of one, two and four query heads.
  const layouts = [
    { batch: 2, heads: 4, kvHeads: 2, length: 7, width: 4 },
    { batch: 1, heads: 4, kvHeads: 1, length: 131, width: 2 },
    { batch: 1, heads: 1, kvHeads: 1, length: 1, width: 4 },
  ];
  return layouts.map(({ batch, heads, kvHeads, length, width }) => {
    const q = [batch, heads, length, width];
    const kv = [batch, kvHeads, length, width];
    const forward = op === 'causalAttention';
    return {
      name: `${op} ${heads}/${kvHeads} heads, ${length} tokens`,
      inputs: forward ? [q, kv, kv] : [q, kv, kv, q],
      differentiable: forward && length < 100 ? [0, 1, 2] : [],
      build: (builder, [query, k, v, dOut]) => {
        const out = builder.causalAttention(query!, k!, v!);
        return forward ? [out] : builder.causalAttentionGrad(query!, k!, v!, out, dOut!);
      },
    };
  });
}

const nothing: readonly number[] = [];

export const primitiveSamples: PrimitiveTable<readonly Sample[]> = {
  input: [{ name: 'input as output', inputs: [[2, 3]], build: (_, [x]) => [x!, x!] }],
  constant: [
    {
      name: 'constant',
      inputs: [[2]],
      build: (builder, [x]) => {
        const constant = builder.constant(Float32Array.of(0.1, -3e-39), [2]);
        return [builder.add(x!, constant), constant, builder.constant(Int32Array.of(5, -7), [2])];
      },
    },
  ],
  add: elementwise('add'),
  sub: elementwise('sub'),
  mul: [
    ...elementwise('mul'),
    { name: 'square', inputs: [[3, 2]], build: (builder, [x]) => [builder.mul(x!, x!)] },
  ],
  div: elementwise('div'),
  neg: unary('neg'),
  sqrt: unary('sqrt'),
  reciprocal: unary('reciprocal'),
  sigmoid: unary('sigmoid'),
  silu: unary('silu'),
  siluGrad: [
    {
      name: 'siluGrad',
      inputs: [
        [3, 5],
        [3, 5],
      ],
      differentiable: nothing,
      build: (builder, [x, dy]) => [builder.siluGrad(x!, dy!)],
    },
  ],
  matmul: matmuls(),
  batchMatmul: batchMatmuls(),
  reshape: [{ name: 'reshape', inputs: [[2, 6]], build: (builder, [x]) => [builder.reshape(x!, [3, 1, 4])] }],
  broadcast: [
    {
      name: 'broadcast',
      inputs: [[3, 1], [2], []],
      build: (builder, [x, y, z]) => [
        builder.broadcast(x!, [2, 3, 4]),
        builder.broadcast(y!, [3, 2]),
        builder.broadcast(z!, [2]),
      ],
    },
  ],
  transpose: [
    { name: 'transpose', inputs: [[2, 3, 4]], build: (builder, [x]) => [builder.transpose(x!, [2, 0, 1])] },
  ],
  slice: [
    {
      name: 'slice',
      inputs: [[2, 5, 3]],
      build: (builder, [x]) => [builder.slice(x!, 1, 1, 4), builder.slice(x!, 2, 2, 3)],
    },
    {
      name: 'slices that tile an axis',
      inputs: [[5, 3]],
      build: (builder, [x]) => {
        const [head, tail] = [builder.slice(x!, 0, 0, 2), builder.slice(x!, 0, 2, 5)];
        return [builder.concat([builder.mul(tail, tail), head], 0)];
      },
    },
  ],
  pad: [{ name: 'pad', inputs: [[2, 3]], build: (builder, [x]) => [builder.pad(x!, 1, 2, 1)] }],
  concat: [
    {
      name: 'concat',
      inputs: [
        [2, 3],
        [2, 1],
      ],
      build: (builder, [x, y]) => [builder.concat([x!, y!, x!], 1)],
    },
  ],
  reduceSum: [
    {
      name: 'reduceSum',
      inputs: [[2, 3, 4]],
      build: (builder, [x]) => [
        builder.reduceSum(x!, [2]),
        builder.reduceSum(x!, [0, 1]),
        builder.reduceSum(x!, [1]),
      ],
    },
    { name: 'reduceSum of rows', inputs: [[9, 4]], build: (builder, [x]) => [builder.reduceSum(x!, [0])] },
  ],
  reduceMean: [
    {
      name: 'reduceMean',
      inputs: [[2, 3, 4]],
      build: (builder, [x]) => [builder.reduceMean(x!, [2]), builder.reduceMean(x!, [0, 1])],
    },
    {
      name: 'rms norm',
      inputs: [[3, 4], [4]],
      build: (builder, [x, weight]) => {
        const square = builder.reduceMean(builder.mul(x!, x!), [1]);
        const inverse = builder.reciprocal(builder.sqrt(builder.add(square, builder.scalar(1e-5))));
        return [builder.mul(builder.mul(x!, inverse), weight!)];
      },
    },
  ],
  softmax: [{ name: 'softmax', inputs: [[2, 3, 4]], build: (builder, [x]) => [builder.softmax(x!)] }],
  rope: [
    {
      name: 'rope',
      inputs: [
        [2, 3, 5, 4],
        [5, 2],
        [5, 2],
      ],
      differentiable: [0],
      build: (builder, [x, cos, sin]) => [builder.rope(x!, cos!, sin!)],
    },
  ],
  gatherRows: [
    {
      name: 'gatherRows',
      inputs: [[6, 3]],
      ids: [{ length: 9, bound: 6 }],
      differentiable: nothing,
      build: (builder, [table], [ids]) => [builder.gatherRows(table!, ids!)],
    },
  ],
  crossEntropy: [
    {
      name: 'crossEntropy',
      inputs: [[5, 7]],
      ids: [{ length: 5, bound: 7 }],
      build: (builder, [logits], [labels]) => [builder.crossEntropy(logits!, labels!)],
    },
  ],
  crossEntropyGrad: [
    {
      name: 'crossEntropyGrad',
      inputs: [[5, 7], [5]],
      ids: [{ length: 5, bound: 7 }],
      differentiable: nothing,
      build: (builder, [logits, dLoss], [labels]) => [
        builder.crossEntropy(logits!, labels!),
        builder.crossEntropyGrad(logits!, labels!, dLoss!),
      ],
    },
  ],
  causalAttention: attention('causalAttention'),
  causalAttentionGrad: attention('causalAttentionGrad'),
};

export const allSamples: readonly Sample[] = Object.values(primitiveSamples).flat();

export interface BuiltSample {
  readonly builder: GraphBuilder;
  readonly inputs: readonly Value[];
  readonly outputs: readonly Value[];
}

export function buildSample(sample: Sample): BuiltSample {
  const builder = new GraphBuilder();
  const inputs = sample.inputs.map((shape, i) => builder.input(`x${i}`, 'f32', shape));
  const ids = (sample.ids ?? []).map(({ length }, i) => builder.input(`ids${i}`, 'i32', [length]));
  return { builder, inputs, outputs: sample.build(builder, inputs, ids) };
}

/** The sample's own outputs, named y0, y1, … */
export function sampleGraph(sample: Sample): Graph {
  const { builder, outputs } = buildSample(sample);
  return builder.finish(Object.fromEntries(outputs.map((value, i) => [`y${i}`, value])));
}

export function sampleFeeds(sample: Sample, seed = 1): Record<string, TensorData> {
  const random = seededRandom(new Uint8Array(16).fill(seed));
  const feeds: Record<string, TensorData> = {};
  sample.inputs.forEach((shape, i) => {
    feeds[`x${i}`] = Float32Array.from({ length: sizeOf(shape) }, () =>
      sample.positive ? uniform(random) + 0.5 : 2 * uniform(random) - 1,
    );
  });
  sample.ids?.forEach(({ length, bound }, i) => {
    feeds[`ids${i}`] = Int32Array.from({ length }, () => uniformBelow(random, bound));
  });
  return feeds;
}
