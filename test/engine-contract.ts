/**
 * What every engine promises, as one suite: the same results as the f64 oracle on every primitive, results in the
 * caller's own views, misfits refused before anything runs, and the same bits on every run.
 */
import assert from 'node:assert/strict';
import { after, describe, test } from 'node:test';
import { wholeModel } from '../src/model/parameters.ts';
import { buildTrainingGraph } from '../src/model/stage-graph.ts';
import { seededRandom, uniform, uniformBelow } from '../src/std/random.ts';
import type { Engine } from '../src/tensor/engine.ts';
import { type Graph, GraphBuilder, sizeOf, type TensorData } from '../src/tensor/graph.ts';
import { evaluate } from '../src/tensor/interpreter.ts';
import { TensorMismatchError } from '../src/tensor/program.ts';
import { allSamples, sampleFeeds, sampleGraph } from './primitive-samples.ts';

/** Views for every output, filled with what no correct result contains. */
function poisonedFetches(graph: Graph): Record<string, TensorData> {
  return Object.fromEntries(
    [...graph.outputs].map(([name, { dtype, shape }]) => [
      name,
      dtype === 'f32' ? new Float32Array(sizeOf(shape)).fill(1e30) : new Int32Array(sizeOf(shape)).fill(1e9),
    ]),
  );
}

/** ‖a − b‖ / ‖b‖; a result that should be (nearly) zero is measured against elements of 0.01 instead. */
export function relativeError(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  assert.equal(actual.length, expected.length);
  let difference = 0;
  let norm = 0;
  for (let i = 0; i < expected.length; i++) {
    difference += (actual[i]! - expected[i]!) ** 2;
    norm += expected[i]! ** 2;
  }
  return Math.sqrt(difference) / Math.max(Math.sqrt(norm), 0.01 * Math.sqrt(expected.length));
}

/** y = x·w + c with a second output: enough to tell whether anything ran. */
function smallGraph(): Graph {
  const builder = new GraphBuilder();
  const x = builder.input('x', 'f32', [2, 3]);
  const w = builder.input('w', 'f32', [3, 2]);
  const ids = builder.input('ids', 'i32', [2]);
  const y = builder.add(builder.matmul(x, w), builder.gatherRows(w, ids));
  return builder.finish({ y, double: builder.add(y, y) });
}

const smallFeeds = {
  x: Float32Array.of(1, 2, 3, 4, 5, 6),
  w: Float32Array.of(1, 0, 0, 1, 1, 1),
  ids: Int32Array.of(2, 0),
};

const misfits: Record<
  string,
  (feeds: Record<string, TensorData>, fetches: Record<string, TensorData>) => void
> = {
  'a missing feed': (feeds) => void delete feeds.w,
  'an unknown feed': (feeds) => void (feeds.other = new Float32Array(1)),
  'a feed of the wrong length': (feeds) => void (feeds.x = new Float32Array(5)),
  'a feed of the wrong kind': (feeds) => void (feeds.ids = new Float32Array(2)),
  'a missing fetch': (_, fetches) => void delete fetches.double,
  'an unknown fetch': (_, fetches) => void (fetches.other = new Float32Array(1)),
  'a fetch of the wrong length': (_, fetches) => void (fetches.y = new Float32Array(8)),
  'a fetch of the wrong kind': (_, fetches) => void (fetches.y = new Int32Array(4)),
};
/** `create` makes the engine; the suite closes it. */
export function engineContract(name: string, create: () => Engine): void {
  describe(`engine contract: ${name}`, () => {
    const engine = create();
    after(() => engine.close());
    test('has its id', () => assert.equal(engine.id, name));
    testAgainstOracle(engine);
    testViews(engine);
    testMisfits(engine);
    testExtremes(engine);
  });
}

function testAgainstOracle(engine: Engine): void {
  for (const sample of allSamples) {
    test(`agrees with the oracle: ${sample.name}`, async () => {
      const graph = sampleGraph(sample);
      const program = await engine.compile(graph);
      const feeds = sampleFeeds(sample);
      const fetches = poisonedFetches(graph);
      await program.run(feeds, fetches);
      assertAgrees(graph, feeds, fetches, 2e-6);
      const again = poisonedFetches(graph);
      await program.run(feeds, again);
      assert.deepEqual(again, fetches, 'a second run gives other bits');
      await program.release();
    });
  }

  for (const tiedEmbeddings of [false, true]) {
    test(`agrees with the oracle on a whole training graph, tied ${tiedEmbeddings}`, async () => {
      const dimensions = {
        layers: 2,
        width: 16,
        heads: 4,
        kvHeads: 2,
        headWidth: 4,
        ffn: 24,
        vocabulary: 19,
      };
      const model = { ...dimensions, context: 16, ropeTheta: 10_000, normEpsilon: 1e-5, tiedEmbeddings };
      const graph = buildTrainingGraph(model, wholeModel(model), { batch: 2, sequence: 11, lossChunk: 8 });
      const feeds = randomFeeds(graph, model.vocabulary);
      const program = await engine.compile(graph);
      const fetches = poisonedFetches(graph);
      await program.run(feeds, fetches);
      assertAgrees(graph, feeds, fetches, 5e-6);
    });
  }
}

function assertAgrees(
  graph: Graph,
  feeds: Readonly<Record<string, TensorData>>,
  fetches: Readonly<Record<string, TensorData>>,
  errorMax: number,
): void {
  const oracle = evaluate(graph, feeds);
  for (const [output, value] of graph.outputs) {
    const error = relativeError(fetches[output]!, oracle.get(value)!.data);
    assert.ok(error < errorMax, `${output}: relative error ${error}`);
  }
}

/** Ids below `vocabulary`, and numbers in [−0.5, 0.5). */
function randomFeeds(graph: Graph, vocabulary: number): Record<string, TensorData> {
  const random = seededRandom(new Uint8Array(16).fill(3));
  const feeds: Record<string, TensorData> = {};
  for (const [input, { dtype, shape }] of graph.inputs) {
    const length = sizeOf(shape);
    feeds[input] =
      dtype === 'i32'
        ? Int32Array.from({ length }, () => uniformBelow(random, vocabulary))
        : Float32Array.from({ length }, () => uniform(random) - 0.5);
  }
  return feeds;
}

function testViews(engine: Engine): void {
  test('computes known numbers into views of WebAssembly memory', async () => {
    const graph = smallGraph();
    const program = await engine.compile(graph);
    const memory = new WebAssembly.Memory({ initial: 1, maximum: 1 });
    const x = new Float32Array(memory.buffer, 64, 6);
    x.set(smallFeeds.x);
    const y = new Float32Array(memory.buffer, 256, 4);
    const double = new Float32Array(memory.buffer, 512, 4);
    await program.run({ ...smallFeeds, x }, { y, double });
    assert.deepEqual([...y], [4 + 1, 5 + 1, 10 + 1, 11 + 0]);
    assert.deepEqual([...double], [10, 12, 22, 22]);
    assert.deepEqual([...x], [1, 2, 3, 4, 5, 6]);
    assert.equal(new Float32Array(memory.buffer, 256 + 16, 1)[0], 0, 'wrote past the view');
  });

  test('reads feeds anew on every run', async () => {
    const program = await engine.compile(smallGraph());
    const fetches = { y: new Float32Array(4), double: new Float32Array(4) };
    await program.run(smallFeeds, fetches);
    const first = [...fetches.y];
    await program.run({ ...smallFeeds, x: new Float32Array(6) }, fetches);
    assert.notDeepEqual([...fetches.y], first);
    assert.deepEqual([...fetches.y], [1, 1, 1, 0]);
  });
}

function testMisfits(engine: Engine): void {
  for (const [what, spoil] of Object.entries(misfits)) {
    test(`refuses ${what} before running`, async () => {
      const program = await engine.compile(smallGraph());
      const feeds: Record<string, TensorData> = { ...smallFeeds };
      const fetches: Record<string, TensorData> = { y: new Float32Array(4), double: new Float32Array(4) };
      spoil(feeds, fetches);
      await assert.rejects(program.run(feeds, fetches), TensorMismatchError);
      for (const view of Object.values(fetches)) assert.ok(view.every((element) => element === 0));
    });
  }
}

function testExtremes(engine: Engine): void {
  test('an id outside the table is an error, not a crash', async () => {
    const program = await engine.compile(smallGraph());
    const fetches = { y: new Float32Array(4), double: new Float32Array(4) };
    await assert.rejects(program.run({ ...smallFeeds, ids: Int32Array.of(0, 3) }, fetches));
    await program.run(smallFeeds, fetches);
    assert.deepEqual([...fetches.y], [5, 6, 11, 11]);
  });

  test('a loss of a token that the softmax rounds to zero stays finite in its gradient', async () => {
    const builder = new GraphBuilder();
    const logits = builder.input('logits', 'f32', [1, 2]);
    const labels = builder.input('labels', 'i32', [1]);
    const loss = builder.crossEntropy(logits, labels);
    const gradient = builder.crossEntropyGrad(logits, labels, builder.constant(Float32Array.of(1), [1]));
    const program = await engine.compile(builder.finish({ loss, gradient }));
    const fetches = { loss: new Float32Array(1), gradient: new Float32Array(2) };
    await program.run({ logits: Float32Array.of(0, 300), labels: Int32Array.of(0) }, fetches);
    assert.ok(fetches.loss[0]! > 80 && Number.isFinite(fetches.loss[0]));
    assert.deepEqual([...fetches.gradient], [-1, 1]);
  });
}
