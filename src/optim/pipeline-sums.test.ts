/**
 * What is in a path's sum, over real segments and kernels and a backward pass whose gradient tells which microbatch it
 * is of: element n is 1 for the n-th pass that was ever asked for.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { tinyConfig } from '../../test/tiny-replica.ts';
import { wholeModel } from '../model/parameters.ts';
import type { Outcome } from '../std/outcome.ts';
import { createKernelMemory } from '../tensor/kernels/wasm.ts';
import { addScratch, createGradientSums, type GradientSum, sumSquares } from './pipeline-gradients.ts';
import { createPipelineSums, type PipelineLimits, pipelineLimits } from './pipeline-sums.ts';
import { createSegments } from './segments.ts';

const segments = createSegments({
  config: tinyConfig,
  stage: wholeModel(tinyConfig),
  createMemory: createKernelMemory,
  embeddingScratchBytes: 0,
});
const layer = segments.findIndex(({ name }) => name === 'layer.0');
const rows = (mark: number) => Float32Array.of(mark, mark);

/** The gradient of a microbatch is `gradientOf(mark)` in one segment, and its mark comes in its target. */
function stageOf(
  limits: Partial<PipelineLimits> = {},
  gradientOf: (mark: number, element: number) => number = (mark, element) => (element === mark ? 1 : 0),
  stepsTaken = () => 0,
) {
  let passes = 0;
  const applied: { readonly sum: Float32Array; readonly step: number }[] = [];
  const sums = createPipelineSums(
    {
      sums: createGradientSums(segments),
      isEntry: (entry) => entry.length === 2,
      isTarget: (target) => target.length === 2,
      forward: async (entry) => Float32Array.from(entry, (x) => 2 * x),
      backward: async (entry, target, sum) => {
        assert.equal(entry[0], target[0], 'the target goes with its entry');
        passes += 1;
        for (const [i, { slabs }] of segments.entries()) {
          const into = sum?.count === 0 ? sum.slabs[i]! : slabs.scratch;
          for (let element = 0; element < into.length; element++)
            into[element] = i === layer ? gradientOf(target[0]!, element) : 0;
        }
        if (sum) {
          if (sum.count > 0) addScratch(segments, sum, true);
          sum.count += 1;
        }
        return { inputGradient: null, loss: target[0]! };
      },
      sumSquares: (sum: GradientSum) => sumSquares(segments, sum),
      apply: (sum, { step }) => void applied.push({ sum: sum.slabs[layer]!.slice(), step }),
    },
    { ...pipelineLimits, ...limits },
    stepsTaken,
  );
  return { sums, applied, passes: () => passes };
}

type Stage = ReturnType<typeof stageOf>['sums'];

const codeOf = (outcome: Outcome<unknown>) => (outcome.ok ? 'accepted' : outcome.code);
const apply = (sums: Stage, path: string) =>
  sums.applyStep({ path, learningRate: 1, gradientScale: 1, step: 1 });

async function both(sums: Stage, path: string, id: string, mark: number): Promise<void> {
  assert.equal(codeOf(await sums.forward({ path, id, entry: rows(mark) })), 'accepted');
  assert.equal(codeOf(await sums.backward({ path, id, target: rows(mark) })), 'accepted');
}

test('the sum of those that came, and no pass is made twice', async () => {
  const { sums, applied, passes } = stageOf();
  for (const [mark, id] of ['a', 'b', 'c'].entries()) await both(sums, 'p', id, mark);
  const prepared = await sums.prepareStep({ path: 'p', ids: ['c', 'a', 'b'] });
  assert.ok(prepared.ok);
  assert.deepEqual(
    prepared.value,
    segments.map((_, i) => (i === layer ? 3 : 0)),
  );
  assert.equal(codeOf(await apply(sums, 'p')), 'accepted');
  assert.equal(passes(), 3);
  assert.deepEqual([...applied[0]!.sum.subarray(0, 5)], [1, 1, 1, 0, 0]);
  assert.equal(codeOf(await apply(sums, 'p')), 'not-prepared', 'a step is applied once');
});

test('a sum made again is summed in the order of the ids; without need the order is that of arrival', async () => {
  const values = [1, 2 ** -24, 2 ** -24, 5];
  const gradientOf = (mark: number, element: number) => (element === 0 ? values[mark]! : 0);
  const { sums, applied } = stageOf({}, gradientOf);
  for (const path of ['arrival', 'again'])
    for (const [mark, id] of ['big', 'small', 'small too', 'late'].entries())
      if (path === 'again' || id !== 'late') await both(sums, path, id, mark);
  const ids = ['small', 'small too', 'big'];
  for (const path of ['arrival', 'again']) {
    await sums.prepareStep({ path, ids });
    await apply(sums, path);
  }
  assert.equal(applied[0]!.sum[0], 1, '(1 + ε) + ε');
  assert.equal(applied[1]!.sum[0], 1 + 2 ** -23, '(ε + ε) + 1');
});

test('what comes between prepare and apply is answered and waits to be named', async () => {
  const { sums, applied } = stageOf();
  await both(sums, 'p', 'a', 0);
  await sums.prepareStep({ path: 'p', ids: ['a'] });
  await both(sums, 'p', 'b', 1);
  await apply(sums, 'p');
  assert.deepEqual([...applied[0]!.sum.subarray(0, 2)], [1, 0]);
  assert.equal(codeOf(await sums.prepareStep({ path: 'p', ids: ['b'] })), 'unknown-microbatch');
  // Had the step been prepared again, it would have been in.
  await both(sums, 'p', 'c', 2);
  await sums.prepareStep({ path: 'p', ids: ['c'] });
  await both(sums, 'p', 'd', 3);
  await sums.prepareStep({ path: 'p', ids: ['c', 'd'] });
  await apply(sums, 'p');
  assert.deepEqual([...applied[1]!.sum.subarray(0, 5)], [0, 0, 1, 1, 0]);
});

test('who takes a step is told what was summed, in order, and after how many steps of the stage', async () => {
  let taken = 0;
  const { sums, applied, passes } = stageOf({}, undefined, () => taken);
  await both(sums, 'p', 'a', 0);
  await both(sums, 'q', 'b', 1);
  taken = 1;
  await both(sums, 'p', 'c', 2);
  await sums.prepareStep({ path: 'p', ids: ['a', 'c'] });
  const first = await apply(sums, 'p');
  assert.deepEqual(first, {
    ok: true,
    value: [
      { id: 'a', madeAt: 0, summedAt: 0 },
      { id: 'c', madeAt: 1, summedAt: 1 },
    ],
  });
  taken = 2;
  await both(sums, 'q', 'd', 3);
  await sums.prepareStep({ path: 'q', ids: ['b', 'd'] });
  assert.equal(passes(), 4);
  // Prepared or not, what is to be renewed is summed again.
  sums.renew();
  taken = 3;
  await both(sums, 'q', 'e', 4);
  assert.deepEqual(await apply(sums, 'q'), {
    ok: true,
    value: [
      { id: 'b', madeAt: 0, summedAt: 3 },
      { id: 'd', madeAt: 2, summedAt: 3 },
    ],
  });
  assert.equal(passes(), 7);
  assert.deepEqual([...applied[1]!.sum.subarray(0, 5)], [0, 1, 0, 1, 0]);
});

test('what is discarded is in no step, a prepared one neither', async () => {
  const { sums, applied } = stageOf();
  for (const [mark, id] of ['a', 'b', 'c'].entries()) await both(sums, 'p', id, mark);
  await sums.prepareStep({ path: 'p', ids: ['a', 'b', 'c'] });
  await sums.discard({ path: 'p', ids: ['b', 'never seen'] });
  assert.equal(codeOf(await apply(sums, 'p')), 'not-prepared');
  assert.equal(codeOf(await sums.prepareStep({ path: 'p', ids: ['a', 'b', 'c'] })), 'unknown-microbatch');
  // The same id again is another microbatch.
  await both(sums, 'p', 'b', 3);
  await sums.prepareStep({ path: 'p', ids: ['a', 'b', 'c'] });
  await apply(sums, 'p');
  assert.deepEqual([...applied[0]!.sum.subarray(0, 5)], [1, 0, 1, 1, 0]);
});

test('who is given up on before its backward pass is gone after the second step', async () => {
  const { sums } = stageOf();
  await sums.forward({ path: 'p', id: 'lost', entry: rows(9) });
  const step = async (id: string, mark: number) => {
    await both(sums, 'p', id, mark);
    await sums.prepareStep({ path: 'p', ids: [id] });
    await apply(sums, 'p');
  };
  await step('a', 0);
  assert.equal(codeOf(await sums.forward({ path: 'p', id: 'lost', entry: rows(9) })), 'duplicate-microbatch');
  await step('b', 1);
  assert.equal(codeOf(await sums.backward({ path: 'p', id: 'lost', target: rows(9) })), 'unknown-microbatch');
});

test('limits and shapes are refused, and change nothing', async () => {
  const { sums, applied, passes } = stageOf({ pathsMax: 2, bytesMax: 39 });
  await both(sums, 'p', 'a', 0);
  await sums.forward({ path: 'q', id: 'a', entry: rows(1) });
  const refused = [
    ['too-many-paths', sums.forward({ path: 'r', id: 'a', entry: rows(2) })],
    ['duplicate-microbatch', sums.forward({ path: 'p', id: 'a', entry: rows(2) })],
    ['duplicate-microbatch', sums.backward({ path: 'p', id: 'a', target: rows(2) })],
    ['duplicate-microbatch', sums.backward({ path: 'q', id: 'a', entry: rows(1), target: rows(1) })],
    ['unknown-microbatch', sums.backward({ path: 'p', id: 'b', target: rows(2) })],
    ['unknown-microbatch', sums.backward({ path: 'r', id: 'a', target: rows(2) })],
    ['wrong-shape', sums.forward({ path: 'p', id: 'b', entry: new Float32Array(3) })],
    ['wrong-shape', sums.backward({ path: 'q', id: 'a', target: new Float32Array(1) })],
    ['too-many-microbatches', sums.backward({ path: 'p', id: 'b', entry: rows(2), target: rows(2) })],
    ['unknown-microbatch', sums.prepareStep({ path: 'p', ids: [] })],
    ['unknown-microbatch', sums.prepareStep({ path: 'q', ids: ['a'] })],
    ['duplicate-microbatch', sums.prepareStep({ path: 'p', ids: ['a', 'a'] })],
  ] as const;
  for (const [code, outcome] of refused) assert.equal(codeOf(await outcome), code);
  assert.equal(codeOf(await sums.backward({ path: 'q', id: 'a', target: rows(1) })), 'accepted', '32 bytes');
  assert.equal(codeOf(await sums.forward({ path: 'q', id: 'b', entry: rows(1) })), 'too-many-microbatches');
  await sums.prepareStep({ path: 'p', ids: ['a'] });
  await apply(sums, 'p');
  assert.deepEqual([...applied[0]!.sum.subarray(0, 2)], [1, 0]);
  assert.equal(passes(), 2);
  // The path that has nothing left makes room for another.
  assert.equal(codeOf(await sums.forward({ path: 'r', id: 'a', entry: rows(2) })), 'accepted');
  sums.clear();
  for (const path of ['s', 't']) await both(sums, path, 'a', 3);
});

test('microbatches are counted over all paths', async () => {
  const { sums } = stageOf({ microbatchesMax: 2 });
  await both(sums, 'p', 'a', 0);
  await both(sums, 'q', 'a', 1);
  assert.equal(codeOf(await sums.forward({ path: 'q', id: 'b', entry: rows(2) })), 'too-many-microbatches');
  await sums.discard({ path: 'p' });
  await both(sums, 'q', 'b', 2);
});

const ids = ['a', 'b', 'c', 'd'] as const;
const paths = ['p', 'q'] as const;
const name = fc.record({ path: fc.constantFrom(...paths), id: fc.constantFrom(...ids) });
const command = fc.oneof(
  { weight: 4, arbitrary: fc.record({ kind: fc.constant('forward' as const), name }) },
  { weight: 6, arbitrary: fc.record({ kind: fc.constant('backward' as const), name, entry: fc.boolean() }) },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constant('discard' as const),
      path: fc.constantFrom(...paths),
      ids: fc.option(fc.subarray([...ids])),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constant('prepare' as const),
      path: fc.constantFrom(...paths),
      // Mostly what can be prepared, so that most runs come to a step.
      choose: fc.oneof(fc.constant(undefined), fc.shuffledSubarray([...ids])),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({ kind: fc.constant('apply' as const), path: fc.constantFrom(...paths) }),
  },
  {
    weight: 1,
    arbitrary: fc.record({ kind: fc.constant('renew' as const), path: fc.constantFrom(...paths) }),
  },
);

type Command = typeof command extends fc.Arbitrary<infer One> ? One : never;

/** What must be known of a path: the mark of each id and how far it is, and the marks in a prepared step. */
interface ModelPath {
  readonly kept: Map<string, { readonly mark: number; done: boolean; old: boolean }>;
  prepared: readonly number[] | undefined;
}

/** Does the command on both the stage and the model, which must agree. */
async function execute(
  { sums, applied }: ReturnType<typeof stageOf>,
  path: ModelPath,
  one: Command,
  next: number,
) {
  if (one.kind === 'forward' || one.kind === 'backward') {
    const known = path.kept.get(one.name.id);
    const mark = known?.mark ?? next;
    const isNew = one.kind === 'forward' || one.entry;
    const isDuplicate = isNew ? known !== undefined : known?.done;
    const isUnknown = !isNew && !known;
    const code = isDuplicate ? 'duplicate-microbatch' : isUnknown ? 'unknown-microbatch' : 'accepted';
    const call = { ...one.name, entry: rows(mark), target: rows(mark) };
    const { entry: _, ...withoutEntry } = call;
    const outcome =
      one.kind === 'forward'
        ? await sums.forward(call)
        : await sums.backward(one.entry ? call : withoutEntry);
    assert.equal(codeOf(outcome), code);
    const done = one.kind === 'backward';
    if (outcome.ok) path.kept.set(one.name.id, { mark, done, old: known?.old ?? false });
  } else if (one.kind === 'discard') {
    await sums.discard({ path: one.path, ...(one.ids && { ids: one.ids }) });
    for (const id of one.ids ?? [...path.kept.keys()]) {
      if (path.prepared?.includes(path.kept.get(id)?.mark ?? -1)) path.prepared = undefined;
      path.kept.delete(id);
    }
  } else if (one.kind === 'renew') {
    sums.renew();
  } else if (one.kind === 'prepare') {
    const done = [...path.kept].filter(([, { done }]) => done).map(([id]) => id);
    const named = one.choose ?? done;
    const isKnown = named.length > 0 && named.every((id) => path.kept.get(id)?.done);
    const outcome = await sums.prepareStep({ path: one.path, ids: named });
    assert.equal(codeOf(outcome), isKnown ? 'accepted' : 'unknown-microbatch');
    if (!outcome.ok) return;
    path.prepared = named.map((id) => path.kept.get(id)!.mark);
    assert.equal(outcome.value[layer], named.length);
  } else {
    assert.equal(codeOf(await apply(sums, one.path)), path.prepared ? 'accepted' : 'not-prepared');
    if (!path.prepared) return;
    const made = applied.at(-1)!.sum;
    const expected = new Float32Array(made.length);
    for (const mark of path.prepared) expected[mark] = 1;
    assert.deepEqual(made, expected);
    path.prepared = undefined;
    for (const [id, microbatch] of path.kept)
      if (microbatch.done || microbatch.old) path.kept.delete(id);
      else microbatch.old = true;
  }
}

test('property: whatever comes in whatever order, a step has exactly the microbatches it names, once', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(command, { maxLength: 60, size: 'max' }), async (commands) => {
      const stage = stageOf();
      const model = new Map<(typeof paths)[number], ModelPath>(
        paths.map((path) => [path, { kept: new Map(), prepared: undefined }]),
      );
      for (const [mark, one] of commands.entries()) {
        const path = model.get('name' in one ? one.name.path : one.path)!;
        await execute(stage, path, one, mark);
        if (path.kept.size === 0) path.prepared = undefined;
      }
      // In the end, what is kept and done can be applied on every path, and is alone.
      for (const [path, { kept }] of model) {
        const marks = [...kept].filter(([, { done }]) => done).map(([id]) => id);
        if (marks.length === 0) continue;
        await execute(stage, model.get(path)!, { kind: 'prepare', path, choose: undefined }, 0);
        await execute(stage, model.get(path)!, { kind: 'apply', path }, 0);
      }
    }),
    { numRuns: 200 },
  );
});
