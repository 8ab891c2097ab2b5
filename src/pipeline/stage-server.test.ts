/** A stage that serves callers over the in-memory hub, on the smallest model: whom it works for, and whom no more. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { tinyBatch, tinyConfig, tinyReplica } from '../../test/tiny-replica.ts';
import { createVirtualNetwork } from '../../test/virtual-network.ts';
import { evaluateProtocol, type Protocol, stepProtocol, trainProtocol } from '../net/protocol.ts';
import { utf8 } from '../std/bytes.ts';
import { accept, type Outcome, reject } from '../std/outcome.ts';
import {
  type BoundaryShape,
  decodeSums,
  encodeEvaluateRequest,
  encodeStepRequest,
  encodeTrainRequest,
} from './messages.ts';
import { createNormGuard } from './norm-guard.ts';
import { encodeRows } from './row-codec.ts';
import type { StepTaken } from './stage-node.ts';
import { serveStage } from './stage-server.ts';
import { createWeightsGate } from './weights-gate.ts';
import { createWorkQueue } from './work-queue.ts';

const shape: BoundaryShape = {
  tokens: 16,
  width: tinyConfig.width,
  vocabulary: tinyConfig.vocabulary,
  codec: 'f32',
};
const round = 0;
const stage = 1;
const { labels } = tinyBatch(0);
const rows = encodeRows(
  Float32Array.from({ length: shape.tokens * shape.width }, (_, i) => Math.sin(i)),
  'f32',
);
const [caller, server] = [0, 1];

/** The claim is the Driver's name: what a real one says is judged elsewhere. */
async function start() {
  const net = createVirtualNetwork(2);
  const compute = await tinyReplica({ config: { ...tinyConfig, layers: 2 }, stages: 2, stageIndex: stage });
  const convicted = new Set<string>();
  const taken: StepTaken[] = [];
  const queue = createWorkQueue({
    clock: net.clock,
    depthMax: { decode: 8, backward: 8, forward: 8, background: 8 },
  });
  const serving = serveStage({
    node: { stage, compute, queue, gate: createWeightsGate(), next: undefined, clip: 1 },
    shape,
    transport: net.transports[server]!,
    clock: net.clock,
    guard: createNormGuard(),
    admits: (wanted) => (wanted === round ? accept(undefined) : reject('wrong-round')),
    learningRate: () => 1e-2,
    checkClaim: async ({ claim }) => {
      const driver = new TextDecoder().decode(claim);
      return convicted.has(driver) ? reject('convicted') : accept(driver);
    },
    isConvicted: (node) => convicted.has(node),
    onStep: (step) => taken.push(step),
  });
  const ask = async (protocol: Protocol, message: Uint8Array): Promise<Outcome<Uint8Array>> => {
    let answer: Outcome<Uint8Array> | undefined;
    const asked = net.transports[caller]!.request(net.ids[server]!, protocol, message);
    void asked.then((value) => (answer = value));
    for (let i = 0; i < 200 && !answer; i++) {
      await net.run(5);
      await new Promise((resolve) => setImmediate(resolve));
    }
    assert.ok(answer, 'no answer');
    return answer;
  };
  const train = (driver: string, index: number, step = 0) =>
    ask(trainProtocol, encodeTrainRequest({ round, stage, step, index, claim: utf8(driver), labels, rows }));
  const place = { round, stage, step: 0 };
  const prepare = (driver: string, ids: number[]) =>
    ask(stepProtocol, encodeStepRequest({ pass: 'prepare', ...place, driver, ids }));
  const apply = (driver: string, norm: number) =>
    ask(stepProtocol, encodeStepRequest({ pass: 'apply', ...place, driver, norm }));
  const evaluate = () => ask(evaluateProtocol, encodeEvaluateRequest({ round, stage, labels, rows }));
  return { net, serving, convicted, taken, train, prepare, apply, evaluate };
}

const driver = 'aa'.repeat(32);
const other = 'bb'.repeat(32);
function normOf(answer: Outcome<Uint8Array>): number {
  const sums = answer.ok ? decodeSums(answer.value) : answer;
  assert.ok(sums.ok, 'sums of squares');
  return Math.sqrt(sums.value.reduce((a, b) => a + b, 0));
}

const codeOf = (outcome: Outcome<unknown>) => (outcome.ok ? 'ok' : outcome.code);

test('microbatches are summed for each Driver, and its step is taken from what it names', async () => {
  const { serving, taken, train, prepare, apply } = await start();
  for (const index of [0, 1]) assert.equal(codeOf(await train(driver, index)), 'ok');
  assert.equal(codeOf(await train(other, 0)), 'ok');
  const sums = await prepare(driver, [0, 1]);
  assert.equal(codeOf(await apply(driver, 1e-6)), 'bad-norm');
  assert.equal(codeOf(await apply(driver, normOf(sums))), 'ok');
  assert.deepEqual(
    taken.map((step) => [step.driver, step.round, step.step]),
    [[driver, 0, 0]],
  );
  assert.deepEqual([...serving.drivers().keys()].sort(), [driver, other]);
});

test('a convicted Driver gets nothing more, and what was summed for it is gone; others are served', async () => {
  const { net, serving, convicted, taken, train, prepare, apply, evaluate } = await start();
  for (const one of [driver, other]) assert.equal(codeOf(await train(one, 0)), 'ok');
  convicted.add(driver);
  await serving.drop(driver);
  assert.deepEqual([...serving.drivers().keys()], [other]);
  assert.equal(codeOf(await train(driver, 1)), 'convicted');
  assert.equal(codeOf(await prepare(driver, [0])), 'convicted');
  assert.equal(codeOf(await apply(driver, 1)), 'convicted');
  assert.deepEqual(taken, []);
  assert.equal(codeOf(await apply(other, normOf(await prepare(other, [0])))), 'ok');
  // Nothing is left of its path, even where it is forgiven.
  convicted.clear();
  assert.equal(codeOf(await prepare(driver, [0])), 'unknown-path');
  assert.equal(codeOf(await evaluate()), 'ok');
  convicted.add(net.ids[caller]!);
  assert.equal(codeOf(await evaluate()), 'convicted');
});
