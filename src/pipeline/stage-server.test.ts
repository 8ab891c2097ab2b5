/** A stage that serves callers over the in-memory hub, on the smallest model: whom it works for, and whom no more. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { tinyBatch, tinyConfig, tinyReplica } from '../../test/tiny-replica.ts';
import { createVirtualNetwork, networkId } from '../../test/virtual-network.ts';
import { type KeyPair, keyPairFrom } from '../identity/keys.ts';
import { evaluateProtocol, type Protocol, stepProtocol, trainProtocol } from '../net/protocol.ts';
import { concatBytes, fromHex, toHex, utf8 } from '../std/bytes.ts';
import { sha256, sha256Hex } from '../std/hash.ts';
import { accept, type Outcome, reject } from '../std/outcome.ts';
import {
  type BoundaryShape,
  decodeSums,
  decodeTrainAnswer,
  encodeEvaluateRequest,
  encodeStepRequest,
  encodeTrainRequest,
} from './messages.ts';
import { createNormGuard } from './norm-guard.ts';
import { idleMs, ownIdleMs } from './path-shares.ts';
import { encodeRows } from './row-codec.ts';
import { createMemoryRows } from './row-store.ts';
import {
  type Exchange,
  isAnswerOf,
  isSumsOf,
  type NormBody,
  type ReceiptBody,
  type Seal,
  signNorm,
  signReceipt,
} from './seals.ts';
import type { StepTaken } from './stage-node.ts';
import { pathsMax, serveStage } from './stage-server.ts';
import { checkStepEvidence } from './step-evidence.ts';
import { createStepRecords } from './step-records.ts';
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
  const standing: { admitted: Outcome<void> } = { admitted: accept(undefined) };
  const rowStore = createMemoryRows(2 ** 20);
  const records = createStepRecords(rowStore);
  records.begin(round, true);
  const taken: StepTaken[] = [];
  const queue = createWorkQueue({
    clock: net.clock,
    depthMax: { decode: 8, backward: 16, forward: 8, background: 8 },
  });
  const serving = serveStage({
    node: {
      stage,
      compute,
      queue,
      gate: createWeightsGate(),
      next: undefined,
      clip: 1,
      signing: { networkId, key: net.keys[server]! },
      records,
    },
    shape,
    transport: net.transports[server]!,
    clock: net.clock,
    guard: createNormGuard(),
    admits: (wanted) => (wanted === round ? standing.admitted : reject('wrong-round')),
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
  /** What went over the boundary, by caller, Driver and microbatch. */
  const exchanges = new Map<string, Exchange>();
  const train = async (driver: string, index: number, { step = 0, from = caller, sent = rows } = {}) => {
    const message = encodeTrainRequest(
      { round, stage, step, index, claim: utf8(driver), labels, rows: sent },
      shape,
    );
    const answer = await ask(trainProtocol, message, from);
    const decoded = answer.ok ? decodeTrainAnswer(answer.value, shape) : undefined;
    if (decoded?.ok) {
      const exchange = { index, rows: sha256Hex(sent), gradient: sha256Hex(decoded.value.rows) };
      exchanges.set(`${from}/${driver}/${index}`, exchange);
      const body = { stage, caller: net.ids[from]!, driver, round, step, ...exchange };
      assert.ok(isAnswerOf(net.ids[server]!, networkId, body, decoded.value.seal));
    }
    return answer;
  };
  const place = { round, stage, step: 0 };
  const receiptFor = (driver: string, ids: number[], from: number = caller): ReceiptBody => ({
    ...place,
    driver,
    callee: net.ids[server]!,
    exchanges: ids.map((index) => exchanges.get(`${from}/${driver}/${index}`) ?? anyExchange(index)),
  });
  const prepareWith = (driver: string, ids: number[], receipt: Seal, from: number = caller) =>
    ask(stepProtocol, encodeStepRequest({ pass: 'prepare', ...place, driver, ids, receipt }), from);
  const prepare = async (driver: string, ids: number[], from: number = caller) => {
    const receipt = signReceipt(networkId, receiptFor(driver, ids, from), net.keys[from]!);
    const answer = await prepareWith(driver, ids, receipt, from);
    const decoded = answer.ok ? decodeSums(answer.value) : undefined;
    if (decoded?.ok) {
      const body = { ...place, caller: net.ids[from]!, driver, ids, sums: decoded.value.sums };
      assert.ok(isSumsOf(net.ids[server]!, networkId, body, decoded.value.seal));
    }
    return answer;
  };
  const applyWith = (driver: string, norm: number, seal: Seal, from: number = caller) =>
    ask(stepProtocol, encodeStepRequest({ pass: 'apply', ...place, driver, norm, seal }), from);
  const apply = (driver: string, norm: number, from?: number, microbatches = 1) => {
    const body: NormBody = { driver, round, step: 0, microbatches, norm };
    const key = keysOfDrivers.get(driver) ?? net.keys.find(({ nodeId }) => nodeId === driver)!;
    return applyWith(driver, norm, signNorm(networkId, body, key), from);
  };
  const evaluate = () => ask(evaluateProtocol, encodeEvaluateRequest({ round, stage, labels, rows }, shape));
  const calls = { train, prepare, prepareWith, receiptFor, apply, applyWith, evaluate };
  return { net, queue, serving, standing, convicted, taken, records, rowStore, ...calls };
}

const keysOfDrivers = new Map(
  Array.from({ length: 32 }, (_, i) => {
    const key = keyPairFrom(sha256(utf8(`driver ${i}`)));
    return [key.nodeId, key] as const;
  }),
);
const [driver, other, ...fresh] = [...keysOfDrivers.keys()] as [string, string, ...string[]];
const anyExchange = (index: number) => ({ index, rows: '11'.repeat(32), gradient: '22'.repeat(32) });
/** The other signature of the same digest, which anybody can make of it. */
function highS({ publicKey, signature }: Seal): Seal {
  const order = 0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141n;
  const s = BigInt(`0x${toHex(signature.subarray(32))}`);
  const high = fromHex((order - s).toString(16).padStart(64, '0'));
  return { publicKey, signature: concatBytes(signature.subarray(0, 32), high) };
}

function normOf(answer: Outcome<Uint8Array>): number {
  const sums = answer.ok ? decodeSums(answer.value) : answer;
  assert.ok(sums.ok, 'sums of squares');
  return Math.sqrt(sums.value.sums.reduce((a, b) => a + b, 0));
}

const codeOf = (outcome: Outcome<unknown>) => (outcome.ok ? 'ok' : outcome.code);

test('microbatches are summed for each Driver, and its step is taken from what it names', async () => {
  const { serving, taken, train, prepare, apply } = await start();
  for (const index of [0, 1]) assert.equal(codeOf(await train(driver, index)), 'ok');
  assert.equal(codeOf(await train(other, 0)), 'ok');
  const sums = await prepare(driver, [0, 1]);
  assert.equal(codeOf(await apply(driver, 1e-6, caller, 2)), 'bad-norm');
  assert.equal(codeOf(await apply(driver, normOf(sums), caller, 2)), 'ok');
  assert.deepEqual(
    taken.map((step) => [step.driver, step.round, step.step]),
    [[driver, 0, 0]],
  );
  assert.deepEqual([...serving.drivers().keys()].sort(), [driver, other].sort());
});

/** Two microbatches of other rows, from a caller that has not been blamed for anything. */
async function twoSent() {
  const world = await start({ nodes: 3 });
  const others = encodeRows(new Float32Array(shape.tokens * shape.width).fill(0.5), 'f32');
  assert.equal(codeOf(await world.train(driver, 0)), 'ok');
  assert.equal(codeOf(await world.train(driver, 1, { sent: others })), 'ok');
  return { ...world, key: world.net.keys[caller]!, stranger: world.net.keys[2]! };
}

type Wrong = readonly [name: string, receipt: (right: ReceiptBody, key: KeyPair, other: KeyPair) => Seal];
const signed = (name: string, change: (right: ReceiptBody) => Partial<ReceiptBody>): Wrong => [
  name,
  (right, key) => signReceipt(networkId, { ...right, ...change(right) }, key),
];
const wrongReceipts: readonly Wrong[] = [
  ['unsigned', (_, { publicKey }) => ({ publicKey, signature: new Uint8Array(64) })],
  ['another key', (right, _, stranger) => signReceipt(networkId, right, stranger)],
  ['another network', (right, key) => signReceipt(new Uint8Array(32), right, key)],
  ['high-S', (right, key) => highS(signReceipt(networkId, right, key))],
  ['a norm', (_, key) => signNorm(networkId, { driver, round, step: 0, microbatches: 2, norm: 1 }, key)],
  signed('other callee', () => ({ callee: other })),
  signed('other stage', () => ({ stage: 2 })),
  signed('other Driver', () => ({ driver: other })),
  signed('other round', () => ({ round: 1 })),
  signed('other step', () => ({ step: 1 })),
  signed('other rows', ({ exchanges: [a, b] }) => ({ exchanges: [{ ...a!, rows: b!.rows }, b!] })),
  signed('other gradient', ({ exchanges: [a, b] }) => ({
    exchanges: [{ ...a!, gradient: b!.gradient }, b!],
  })),
  signed('swapped rows', ({ exchanges: [a, b] }) => ({
    exchanges: [
      { ...b!, index: 0 },
      { ...a!, index: 1 },
    ],
  })),
  signed('one too few', ({ exchanges }) => ({ exchanges: exchanges.slice(1) })),
];

test('no step without the caller’s word for what went over the boundary', async () => {
  for (const [name, sign] of wrongReceipts) {
    const { taken, prepare, prepareWith, receiptFor, apply, key, stranger } = await twoSent();
    const receipt = sign(receiptFor(driver, [0, 1]), key, stranger);
    assert.equal(codeOf(await prepareWith(driver, [0, 1], receipt)), 'wrong-receipt', name);
    assert.equal(codeOf(await apply(driver, 1)), 'not-prepared');
    assert.equal(codeOf(await apply(driver, normOf(await prepare(driver, [0, 1])), caller, 2)), 'ok');
    assert.equal(taken.length, 1);
  }
});

test('no step without the Driver’s word for its norm', async () => {
  const ofDriver = keysOfDrivers.get(driver)!;
  const by = (change: Partial<NormBody>) => (body: NormBody) =>
    signNorm(networkId, { ...body, ...change }, ofDriver);
  const wrong: readonly [string, (body: NormBody, key: KeyPair) => Seal][] = [
    ['another key', (body, key) => signNorm(networkId, body, key)],
    ['another network', (body) => signNorm(new Uint8Array(32), body, ofDriver)],
    ['high-S', (body) => highS(signNorm(networkId, body, ofDriver))],
    ['other norm', by({ norm: 1e6 })],
    ['other step', by({ step: 1 })],
    ['other round', by({ round: 1 })],
    ['other count', by({ microbatches: 1 })],
  ];
  for (const [name, sign] of wrong) {
    const { taken, prepare, apply, applyWith, key } = await twoSent();
    const norm = normOf(await prepare(driver, [0, 1]));
    const seal = sign({ driver, round, step: 0, microbatches: 2, norm }, key);
    assert.equal(codeOf(await applyWith(driver, norm, seal)), 'bad-signature', name);
    assert.deepEqual(taken, []);
    assert.equal(codeOf(await apply(driver, norm, caller, 2)), 'ok');
  }
});

test('of a step taken all is kept that others need to make it again; no Driver’s step is taken twice', async () => {
  const { net, records, taken, train, prepare, apply } = await start({ nodes: 3 });
  const sent = [0, 1, 2].map((mark) =>
    encodeRows(
      Float32Array.from({ length: shape.tokens * shape.width }, (_, i) => Math.cos(i + mark)),
      'f32',
    ),
  );
  for (const [index, one] of sent.entries()) await train(driver, index, { sent: one });
  await train(other, 5);
  // The third is not named: it is no part of the step, and its rows are not kept.
  assert.equal(codeOf(await apply(driver, normOf(await prepare(driver, [0, 1])), caller, 2)), 'ok');
  assert.equal(codeOf(await apply(other, normOf(await prepare(other, [5])))), 'ok');
  const steps = await records.stepsOf(round);
  assert.deepEqual(
    steps?.map((one) => [one.driver, one.step, one.microbatches.map(({ index, madeAt }) => [index, madeAt])]),
    [
      [
        driver,
        0,
        [
          [0, 0],
          [1, 0],
        ],
      ],
      [other, 0, [[5, 0]]],
    ],
  );
  const place = { nodeId: net.ids[server]!, stage, stages: 2 };
  for (const one of steps!)
    assert.deepEqual(checkStepEvidence(networkId, place, one), { ok: true, value: undefined });
  for (const { entry, sentGradient } of steps![0]!.microbatches)
    for (const hash of [entry, sentGradient]) assert.equal(sha256Hex((await records.rows(hash!))!), hash);
  assert.deepEqual(await records.rows(sha256Hex(sent[0]!)), sent[0]);
  assert.equal(await records.rows(sha256Hex(sent[2]!)), undefined);
  // Through another caller, too: its step would be claimed twice.
  assert.equal(codeOf(await train(driver, 0, { from: 2 })), 'stale-step');
  assert.equal(taken.length, 2);
});

test('of two callers that take the same step of a Driver at once, one does', async () => {
  const { records, taken, train, prepare, apply } = await start({ nodes: 3 });
  const norms = new Map<number, number>();
  for (const from of [caller, 2]) await train(driver, 0, { from });
  for (const from of [caller, 2]) norms.set(from, normOf(await prepare(driver, [0], from)));
  const codes = await Promise.all(
    [...norms].map(async ([from, norm]) => codeOf(await apply(driver, norm, from))),
  );
  assert.deepEqual(codes.sort(), ['ok', 'stale-step']);
  assert.equal(taken.length, 1);
  assert.equal((await records.stepsOf(round))?.length, 1);
});

test('rows that could not be kept leave the round without a record', async () => {
  const { records, rowStore, train, prepare, apply } = await start();
  const large = new Uint8Array(2 ** 20 + 1);
  rowStore.put(round, sha256Hex(large), large);
  await train(driver, 0);
  assert.equal(codeOf(await apply(driver, normOf(await prepare(driver, [0])))), 'ok');
  assert.equal(await records.stepsOf(round), undefined);
  records.begin(round, true);
  assert.deepEqual(await records.stepsOf(round), []);
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
const freshKeys = (count: number) => fresh.slice(0, count);

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

test('held-out losses are those of the round: given when its training is over, not when it is past', async () => {
  const { queue, standing, train, evaluate } = await start();
  standing.admitted = reject('round-over');
  assert.equal(codeOf(await train(driver, 0)), 'round-over');
  assert.equal(codeOf(await evaluate()), 'ok');
  standing.admitted = reject('past-round');
  assert.equal(codeOf(await evaluate()), 'past-round');
  // The round is left while it computes: the loss may be of the next one's weights.
  standing.admitted = accept(undefined);
  let release = () => {};
  void queue.run('forward', () => new Promise<void>((resolve) => (release = resolve)));
  const asked = evaluate();
  for (let i = 0; i < 100 && queue.stats().depth.forward === 0; i++)
    await new Promise((resolve) => setImmediate(resolve));
  standing.admitted = reject('past-round');
  release();
  assert.equal(codeOf(await asked), 'past-round');
});
