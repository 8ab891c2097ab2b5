import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { presets } from '../model/config.ts';
import { wholeModel } from '../model/parameters.ts';
import { cutStages } from '../model/stage-cut.ts';
import { createSegments } from '../optim/segments.ts';
import { embeddingScratchBytes } from '../optim/stage-trainer.ts';
import type { Outcome } from '../std/outcome.ts';
import { createKernelMemory } from '../tensor/kernels/wasm.ts';
import { assignMembers, stageForNewcomer, stagesFor } from './assignment.ts';
import { stageBills, stageMemoryBytes } from './memory-bill.ts';

const codeOf = (outcome: Outcome<unknown>) => (outcome.ok ? String(outcome.value) : outcome.code);
const node = (i: number) => `node-${i}`;

test('members take stages in the manifest’s order', () => {
  const assigned = assignMembers(['a', 'b', 'c', 'd', 'e'], 3);
  assert.deepEqual(
    [...assigned],
    [
      ['a', 0],
      ['b', 1],
      ['c', 2],
      ['d', 0],
      ['e', 1],
    ],
  );
});

test('a newcomer takes the stage with the fewest replicas, then the slowest, then the first', () => {
  const options = { stages: 3, self: { nodeId: 'self', memoryBytes: 10 }, stageBytes: [10, 10, 10] };
  const announce = (...held: [number, number][]) =>
    held.map(([stage, tokensPerSecond], i) => ({ nodeId: node(i), stage, tokensPerSecond }));
  const choose = (...held: [number, number][]) =>
    codeOf(stageForNewcomer({ ...options, announcements: announce(...held) }));
  assert.equal(choose(), '0');
  assert.equal(choose([0, 1]), '1');
  assert.equal(choose([0, 5], [1, 4], [2, 9]), '1');
  assert.equal(choose([0, 5], [1, 1], [1, 1], [2, 9]), '0');
  assert.equal(choose([0, 5], [1, 5], [2, 5], [7, 0], [9, 0]), '0');
});

test('what the node itself said before, and what another says twice, counts once', () => {
  const outcome = stageForNewcomer({
    stages: 2,
    self: { nodeId: 'self', memoryBytes: 1 },
    stageBytes: [1, 1],
    announcements: [
      { nodeId: 'self', stage: 0, tokensPerSecond: 1 },
      { nodeId: 'a', stage: 0, tokensPerSecond: 1 },
      { nodeId: 'a', stage: 1, tokensPerSecond: 1 },
    ],
  });
  assert.equal(codeOf(outcome), '0');
});

const announcements = fc.array(
  fc.record({
    nodeId: fc.integer({ min: 0, max: 20 }).map(node),
    stage: fc.integer({ min: 0, max: 6 }),
    tokensPerSecond: fc.integer({ min: 0, max: 1_000 }),
  }),
  { maxLength: 20 },
);

test('never gives what does not fit, and gives something where anything fits, always the same', () => {
  const bills = fc.array(fc.integer({ min: 1, max: 100 }), { minLength: 1, maxLength: 6 });
  fc.assert(
    fc.property(announcements, bills, fc.integer({ min: 0, max: 110 }), (heard, stageBytes, memoryBytes) => {
      const options = {
        announcements: heard,
        stages: stageBytes.length,
        self: { nodeId: 'self', memoryBytes },
        stageBytes,
      };
      const outcome = stageForNewcomer(options);
      if (outcome.ok) assert.ok(stageBytes[outcome.value]! <= memoryBytes);
      else {
        assert.equal(outcome.code, 'no-stage-fits');
        assert.ok(stageBytes.every((bytes) => bytes > memoryBytes));
      }
      assert.deepEqual(stageForNewcomer(options), outcome);
    }),
  );
});

test('nodes that come one by one cover every stage, and no stage gets two ahead of another', () => {
  const speeds = fc.array(fc.integer({ min: 0, max: 500 }), { maxLength: 40 });
  fc.assert(
    fc.property(speeds, fc.integer({ min: 1, max: 8 }), (arriving, stages) => {
      const held: { nodeId: string; stage: number; tokensPerSecond: number }[] = [];
      for (const [i, tokensPerSecond] of arriving.entries()) {
        const outcome = stageForNewcomer({
          announcements: held,
          stages,
          self: { nodeId: node(i), memoryBytes: 1 },
          stageBytes: new Array(stages).fill(1),
        });
        assert.ok(outcome.ok);
        held.push({ nodeId: node(i), stage: outcome.value, tokensPerSecond });
        const counts = Array.from(
          { length: stages },
          (_, s) => held.filter(({ stage }) => stage === s).length,
        );
        assert.ok(Math.max(...counts) - Math.min(...counts) <= 1);
      }
    }),
    { numRuns: 50 },
  );
});

test('the fewest stages whose heaviest fits', () => {
  const bill = (stages: number) => Math.ceil(100 / stages) + 5;
  assert.equal(codeOf(stagesFor(105, bill, 10)), '1');
  assert.equal(codeOf(stagesFor(104, bill, 10)), '2');
  assert.equal(codeOf(stagesFor(15, bill, 10)), '10');
  assert.equal(codeOf(stagesFor(14, bill, 10)), 'no-cut-fits');
});

test('the bill holds what the segments of the stage really allocate', () => {
  const { tiny } = presets;
  const shape = { batch: 2, sequence: 32 };
  for (const stage of [wholeModel(tiny), ...cutStages(tiny, 3)]) {
    let allocated = 0;
    createSegments({
      config: tiny,
      stage,
      createMemory: ({ bytes }) => {
        allocated += bytes;
        return createKernelMemory({ bytes });
      },
      embeddingScratchBytes: embeddingScratchBytes(shape.batch, shape.sequence, tiny.width),
    });
    const bill = stageMemoryBytes(tiny, stage, { ...shape, microbatches: 0 });
    assert.ok(bill > allocated, `${bill} for ${allocated}`);
  }
});

test('more microbatches, paths, sequences and layers cost more; more stages cost less each', () => {
  const { small } = presets;
  const base = { batch: 4, sequence: 128, microbatches: 8 };
  const whole = wholeModel(small);
  const bill = (change: Partial<typeof base & { paths: number }> = {}) =>
    stageMemoryBytes(small, whole, { ...base, ...change });
  const rows = 4 * 4 * 128;
  assert.equal(bill({ microbatches: 10 }) - bill(), 2 * 2 * rows);
  assert.ok(bill({ paths: 2 }) > bill());
  assert.ok(bill({ batch: 8 }) > bill());
  assert.ok(bill({ sequence: 256 }) > bill());
  let heaviestBefore = Number.POSITIVE_INFINITY;
  for (const count of [1, 2, 4, 8]) {
    const bills = stageBills(small, count, base);
    assert.equal(bills.length, count);
    const heaviest = Math.max(...bills);
    assert.ok(heaviest < heaviestBefore);
    heaviestBefore = heaviest;
  }
  const chosen = stagesFor(
    heaviestBefore,
    (count) => Math.max(...stageBills(small, count, base)),
    small.layers,
  );
  assert.equal(codeOf(chosen), '8');
});
