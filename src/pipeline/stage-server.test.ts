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
import { idleMs, ownIdleMs } from './path-shares.ts';
import { encodeRows } from './row-codec.ts';
import type { StepTaken } from './stage-node.ts';
import { pathsMax, serveStage } from './stage-server.ts';
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
async function start({ nodes = 2, members = [] }: { nodes?: number; members?: readonly string[] } = {}) {
  const net = createVirtualNetwork(nodes);
  const compute = await tinyReplica({ config: { ...tinyConfig, layers: 2 }, stages: 2, stageIndex: stage });
  const convicted = new Set<string>();
  const taken: StepTaken[] = [];
  const queue = createWorkQueue({
    clock: net.clock,
    depthMax: { decode: 8, backward: 16, forward: 8, background: 8 },
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
    isMember: (node) => members.includes(node),
    onStep: (step) => taken.push(step),
  });
  const ask = async (
    protocol: Protocol,
    message: Uint8Array,
    from: number = caller,
  ): Promise<Outcome<Uint8Array>> => {
    let answer: Outcome<Uint8Array> | undefined;
    const asked = net.transports[from]!.request(net.ids[server]!, protocol, message);
    void asked.then((value) => (answer = value));
    for (let i = 0; i < 200 && !answer; i++) {
      await net.run(5);
      await new Promise((resolve) => setImmediate(resolve));
    }
    assert.ok(answer, 'no answer');
    return answer;
  };
  const train = (driver: string, index: number, { step = 0, from = caller } = {}) => {
    const message = encodeTrainRequest(
      { round, stage, step, index, claim: utf8(driver), labels, rows },
      shape,
    );
    return ask(trainProtocol, message, from);
  };
  const place = { round, stage, step: 0 };
  const prepare = (driver: string, ids: number[], from?: number) =>
    ask(stepProtocol, encodeStepRequest({ pass: 'prepare', ...place, driver, ids }), from);
  const apply = (driver: string, norm: number, from?: number) =>
    ask(stepProtocol, encodeStepRequest({ pass: 'apply', ...place, driver, norm }), from);
  const evaluate = () => ask(evaluateProtocol, encodeEvaluateRequest({ round, stage, labels, rows }, shape));
  return { net, queue, serving, convicted, taken, train, prepare, apply, evaluate };
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

/** Drivers of one node, as many as it likes: a key costs nothing. */
const freshKeys = (count: number) =>
  Array.from({ length: count }, (_, i) => (0x10 + i).toString(16).repeat(32));

test('a caller with fresh Drivers without end leaves room for every other caller', async () => {
  const honest = [2, 3, 4, 5, 6, 7, 8];
  const { net, serving, train, prepare, apply } = await start({ nodes: 9 });
  const keys = freshKeys(pathsMax + 4);
  const codes: string[] = [];
  for (const key of keys) codes.push(codeOf(await train(key, 0)));
  assert.deepEqual(codes, [...keys.slice(0, pathsMax).map(() => 'ok'), ...Array(4).fill('busy')]);
  for (const from of honest)
    assert.equal(codeOf(await train(net.ids[from]!, 0, { from })), 'ok', String(from));
  // One place is left to it, however often it asks again; all the others take their steps.
  for (const key of keys) await train(key, 1);
  const drivers = [...serving.drivers().keys()];
  assert.equal(drivers.filter((one) => keys.includes(one)).length, 1);
  for (const from of honest) {
    const sums = await prepare(net.ids[from]!, [0], from);
    assert.equal(codeOf(await apply(net.ids[from]!, normOf(sums), from)), 'ok');
  }
});

test('members come first: even where every place is held by a caller of its own', async () => {
  const callers = [2, 3, 4, 5, 6, 7, 8, 9];
  const { net, train, prepare, apply } = await start({ nodes: 10, members: [driver, other] });
  for (const from of callers) assert.equal(codeOf(await train(net.ids[from]!, 0, { from })), 'ok');
  assert.equal(codeOf(await train(freshKeys(1)[0]!, 0)), 'busy');
  assert.equal(codeOf(await train(driver, 0)), 'ok');
  assert.equal(codeOf(await train(other, 0)), 'ok');
  assert.equal(codeOf(await apply(driver, normOf(await prepare(driver, [0])))), 'ok');
  // Those who gave way are refused for now, and nobody else lost anything.
  const after = await Promise.all(callers.map((from) => train(net.ids[from]!, 1, { from })));
  assert.equal(after.filter((outcome) => codeOf(outcome) === 'busy').length, 2);
});

test('a path that nobody asks for gives way, soonest to another of its caller', async () => {
  const { net, train, prepare } = await start({ nodes: 3 });
  const keys = freshKeys(pathsMax + 1);
  for (const key of keys.slice(0, pathsMax)) assert.equal(codeOf(await train(key, 0)), 'ok');
  const late = keys[pathsMax]!;
  assert.equal(codeOf(await train(late, 0)), 'busy');
  await net.run(ownIdleMs);
  for (const key of keys.slice(1, pathsMax)) await train(key, 1);
  assert.equal(codeOf(await train(late, 0)), 'ok');
  // It was the one path unheard of, and what it had summed is gone.
  assert.equal(codeOf(await prepare(keys[0]!, [0])), 'unknown-path');
  await net.run(idleMs);
  assert.equal(codeOf(await train(net.ids[2]!, 0, { from: 2 })), 'ok');
});

test('a microbatch whose path gives way in the middle ends as `busy`, and the newcomer is served', async () => {
  const { queue, serving, train } = await start({ members: [driver] });
  const keys = freshKeys(pathsMax);
  let release = () => {};
  // All wait behind this, so none is done before the member comes.
  void queue.run('backward', () => new Promise<void>((resolve) => (release = resolve)));
  const asked = Promise.all([...keys.map((key) => train(key, 0)), train(driver, 0)]);
  for (let i = 0; i < 100 && !serving.drivers().has(driver); i++)
    await new Promise((resolve) => setImmediate(resolve));
  release();
  const answers = await asked;
  assert.deepEqual(answers.map(codeOf).sort(), ['busy', ...Array(pathsMax).fill('ok')]);
  assert.equal(codeOf(answers.at(-1)!), 'ok');
  assert.equal(serving.drivers().size, pathsMax);
});
