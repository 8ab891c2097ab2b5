/** Calls over both kinds of port, against a replica that only remembers and returns: order, copies, errors, death. */
import assert from 'node:assert/strict';
import { type ChildProcess, fork } from 'node:child_process';
import { after, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { MessageChannel, type MessagePort, Worker, workerData } from 'node:worker_threads';
import type { GenerateRequest, ReplicaSnapshot, StageReplica } from '../../diloco/replica.ts';
import { sharedBytes } from '../../std/bytes.ts';
import { accept, CodedError, reject } from '../../std/outcome.ts';
import { type ComputePort, processPort, threadPort } from './compute-port.ts';
import { connectReplica, serveReplica } from './compute-rpc.ts';

const flat = 3 * 1024 * 1024 + 5;

/** `generate` gives back a log of calls; `seed` steers it: 1 throws a coded error, 2 a plain one, 3 kills this side. */
function rememberingReplica(): StageReplica {
  const calls: number[] = [];
  const memory = new WebAssembly.Memory({ initial: 4 });
  const blob = new Uint8Array(memory.buffer, 8, 100_000).fill(7);
  const weights = new Float32Array(flat).map((_, index) => index % 1000);
  const position = { round: 3, step: 4, optimizerSteps: 5, stateHash: 'ab' };
  const named = (name: string, tensor: Float32Array) => [name, tensor] as const;
  let running = 0;
  return {
    info: async () => ({
      engineId: 'fake',
      stage: { index: 0, count: 1, firstLayer: 0, endLayer: 1, embedding: true, head: true },
      parameters: 1,
      flatLength: flat,
      blobBytes: 100_000,
      stateLeaves: 1,
    }),
    position: async () => ({ ...position, contributed: false }),
    trainStep: async (batches, learningRate) => {
      running += 1;
      await new Promise((resolve) => setTimeout(resolve, batches[0]!.tokens[0]!));
      calls.push(batches[0]!.labels[0]!);
      running -= 1;
      return { loss: learningRate, gradientNorm: running };
    },
    evaluate: async () => Number.NaN,
    contribute: async () => ({ blob, blobHash: 'cd' }),
    screen: async (bytes) =>
      bytes[0] === 1 && bytes.length === 3 ? accept(undefined) : reject('not-finite', 'element 0'),
    closeRound: async ({ contributions }) =>
      accept({
        position,
        rejected: contributions.map((each) => ({ node: each.nodeId, code: String(each.blob.at(-1)) })),
      }),
    readLeaf: async () => undefined,
    install: async () => reject('state-mismatch'),
    snapshot: async () => ({
      position,
      contributed: true,
      tensors: Object.fromEntries(
        ['weights', 'firstMoments', 'secondMoments', 'errorFeedback', 'base', 'velocity'].map((name) =>
          named(name, weights.slice()),
        ),
      ) as ReplicaSnapshot['tensors'],
    }),
    restore: async ({ tensors }) => {
      const differs = tensors.velocity.findIndex((value, index) => value !== weights[index]);
      return differs < 0 && tensors.velocity.length === flat ? accept(position) : reject('snapshot-mismatch');
    },
    generate: async ({ seed }: GenerateRequest) => {
      if (seed === 1) throw new CodedError('disk-full', 'one line');
      if (seed === 2) throw new RangeError('plain');
      if (seed === 3) process.exit(3);
      return calls;
    },
    record: async () => undefined,
    evidenceIndex: async () => undefined,
    evidenceLeaf: async () => undefined,
    replay: async () => reject('not-kept'),
    breakChain: async () => undefined,
    exportWeights: async () => ({ 'a.weight': new Float32Array([1.5]), 'b.weight': weights.slice(0, 2) }),
    forward: async ({ entry }) =>
      entry instanceof Float32Array ? accept(entry.map((x) => 2 * x)) : reject('wrong-shape'),
    backward: async ({ entry, target }) =>
      accept({ inputGradient: new Float32Array(entry ?? []), loss: target[0]! }),
    prepareStep: async ({ path, ids }) =>
      path === 'p' && ids.length === 2 ? accept([1, Number.NaN]) : reject('unknown-microbatch', path),
    applyStep: async () => reject('not-prepared'),
    discard: async () => undefined,
    evaluateRows: async (entry) => new Float32Array(entry),
    evaluateLoss: async (entry, labels) => entry[0]! + labels[0]!,
    openSession: async ({ round = 7 }) => accept({ round, engineClass: 'fake', capacity: 16 }),
    decode: async ({ calls: [call], entries }) => ({
      outcomes: [call?.session === 'a' ? accept({ shape: '1x1', length: 2 }) : reject('unknown-session')],
      outputs: Float32Array.from(entries, (x) => x + 0.5),
    }),
    closeSession: async () => undefined,
    close: async () => undefined,
  };
}

if (process.argv[2] === 'serve') {
  serveReplica(rememberingReplica(), processPort(process));
} else if (workerData?.port) {
  serveReplica(rememberingReplica(), threadPort(workerData.port as MessagePort));
} else {
  describe('over a channel in one thread', () => {
    test('a thread sees shared memory where it is, and gets copies of all else it is not given', async () => {
      const { port1, port2 } = new MessageChannel();
      const [here, there] = [threadPort(port1), threadPort(port2)];
      const received = new Promise<Record<string, Uint8Array>>((resolve) =>
        there.onMessage((message) => resolve(message as Record<string, Uint8Array>)),
      );
      const shared = sharedBytes(100).fill(1);
      const own = new Uint8Array(100).fill(2);
      await here.post({ shared, part: shared.subarray(10, 20), own }, 'none');
      const got = await received;
      assert.deepEqual(got, { shared, part: shared.subarray(10, 20), own });
      got.shared![0] = 9;
      got.part![0] = 9;
      got.own![0] = 9;
      assert.deepEqual([shared[0], shared[10], own[0]], [9, 1, 2]);
      here.close();
    });
    runContract(async () => {
      const { port1, port2 } = new MessageChannel();
      serveReplica(rememberingReplica(), threadPort(port2));
      return threadPort(port1);
    });
  });
  describe('over a thread', () => {
    runContract(async () => {
      const { port1, port2 } = new MessageChannel();
      new Worker(new URL(import.meta.url), { workerData: { port: port2 }, transferList: [port2] });
      return threadPort(port1);
    });
    testDeath(async () => {
      const { port1, port2 } = new MessageChannel();
      new Worker(new URL(import.meta.url), { workerData: { port: port2 }, transferList: [port2] });
      return threadPort(port1);
    });
  });
  describe('over a process', () => {
    const start = async () => processPort(startChild());
    runContract(start);
    testDeath(start);
    test('a killed process rejects what waits for it', async () => {
      const child = startChild();
      const replica = connectReplica(processPort(child));
      await replica.info();
      const waiting = replica.trainStep([batch(60_000, 0)], 1);
      child.kill('SIGKILL');
      await assert.rejects(waiting, { code: 'compute-stopped' });
    });
  });
}

function startChild(): ChildProcess {
  return fork(fileURLToPath(import.meta.url), ['serve'], { serialization: 'advanced', execArgv: [] });
}

function batch(delayMs: number, mark: number) {
  return { tokens: new Int32Array([delayMs]), labels: new Int32Array([mark]) };
}

function generateRequest(seed: number): GenerateRequest {
  return { prompt: [1], tokensMax: 1, temperature: 0, seed };
}

function runContract(start: () => Promise<ComputePort>): void {
  let port: ComputePort | undefined;
  let replica: StageReplica | undefined;
  const connect = async () => (replica ??= connectReplica((port ??= await start())));
  after(() => port?.close());

  test('values and rejections arrive as they were', async () => {
    const { info, evaluate, readLeaf, screen } = await connect();
    assert.equal((await info()).flatLength, flat);
    assert.ok(Number.isNaN(await evaluate([])));
    assert.equal(await readLeaf(1, 2), undefined);
    assert.deepEqual(await screen(new Uint8Array([0]), ''), reject('not-finite', 'element 0'));
  });

  test('calls run one after another in the order they were made', async () => {
    const { trainStep, generate } = await connect();
    const steps = [batch(30, 0), batch(1, 1), batch(10, 2)].map((each, index) => trainStep([each], index));
    const log = generate(generateRequest(0));
    assert.deepEqual(await Promise.all(steps), [
      { loss: 0, gradientNorm: 0 },
      { loss: 1, gradientNorm: 0 },
      { loss: 2, gradientNorm: 0 },
    ]);
    assert.deepEqual([...(await log)], [0, 1, 2]);
  });

  test('a large call sent before a small one is served before it', async () => {
    const { closeRound, position } = await connect();
    const order: string[] = [];
    const blob = new Uint8Array(9_000_000);
    blob[8_999_999] = 5;
    const contributions = [{ nodeId: 'n', batches: 1, blob }];
    const large = closeRound({ round: 1, ownNodeId: 'n', contributions }).then((result) => {
      order.push('large');
      return result;
    });
    await Promise.all([large, position().then(() => order.push('small'))]);
    assert.deepEqual(order, ['large', 'small']);
    const result = await large;
    assert.ok(result.ok);
    assert.deepEqual(result.value.rejected, [{ node: 'n', code: '5' }]);
    assert.equal(blob.length, 9_000_000, 'the caller keeps its blob');
  });

  test('a view of a larger buffer arrives alone, and the replica keeps it', async () => {
    const { contribute, screen } = await connect();
    for (let time = 0; time < 2; time++) {
      const { blob } = await contribute();
      assert.equal(blob.length, 100_000);
      assert.ok(blob.every((byte) => byte === 7));
    }
    const buffer = new Uint8Array([9, 1, 2, 3, 9]);
    assert.deepEqual(await screen(buffer.subarray(1, 4), ''), accept(undefined));
    assert.deepEqual(buffer, new Uint8Array([9, 1, 2, 3, 9]));
  });

  test('large arrays survive the way there and back', async () => {
    const { snapshot, restore, exportWeights } = await connect();
    const taken = await snapshot();
    assert.equal(taken.tensors.weights.length, flat);
    assert.equal(taken.tensors.velocity[flat - 1], (flat - 1) % 1000);
    assert.ok((await restore(taken)).ok);
    assert.equal(taken.tensors.weights.length, flat, 'the caller keeps its snapshot');
    taken.tensors.velocity[flat - 1] = -1;
    assert.deepEqual(await restore(taken), reject('snapshot-mismatch'));
    assert.deepEqual(await exportWeights(), {
      'a.weight': new Float32Array([1.5]),
      'b.weight': new Float32Array([0, 1]),
    });
  });

  test('rows go over to the other side and come back; token ids and labels stay', async () => {
    const { forward, backward, prepareStep, evaluateLoss } = await connect();
    for (let time = 0; time < 2; time++) {
      const forwarded = await forward({ path: 'p', id: 'a', entry: new Float32Array(100_000).fill(1.5) });
      assert.ok(forwarded.ok && forwarded.value.length === 100_000 && forwarded.value.every((y) => y === 3));
    }
    const tokens = Int32Array.of(7, 8);
    assert.deepEqual(await forward({ path: 'p', id: 'b', entry: tokens }), reject('wrong-shape'));
    const outer = Float32Array.of(9, 1, 2, 9);
    const result = await backward({ path: 'p', id: 'c', entry: outer.subarray(1, 3), target: tokens });
    assert.deepEqual(result, accept({ inputGradient: Float32Array.of(1, 2), loss: 7 }));
    assert.equal(await evaluateLoss(tokens, tokens), 14);
    assert.deepEqual([tokens, outer], [Int32Array.of(7, 8), Float32Array.of(9, 1, 2, 9)]);
    assert.deepEqual(await prepareStep({ path: 'p', ids: ['a', 'b'] }), accept([1, Number.NaN]));
  });

  test('decode calls keep their entries, and their outputs come back', async () => {
    const { openSession, decode, closeSession } = await connect();
    assert.deepEqual(
      await openSession({ session: 'a' }),
      accept({ round: 7, engineClass: 'fake', capacity: 16 }),
    );
    const entries = Float32Array.of(9, 1, 2, 9).subarray(1, 3);
    const made = { outcomes: [accept({ shape: '1x1', length: 2 })], outputs: Float32Array.of(1.5, 2.5) };
    assert.deepEqual(await decode({ calls: [{ session: 'a', position: 0, length: 2 }], entries }), made);
    const refused = { outcomes: [reject('unknown-session')], outputs: new Float32Array(0) };
    const nobody = { calls: [{ session: 'b', position: 1, length: 0 }], entries: new Int32Array(0) };
    assert.deepEqual(await decode(nobody), refused);
    assert.deepEqual(entries, Float32Array.of(1, 2));
    assert.equal(await closeSession('a'), undefined);
  });

  test('errors keep their name, code and message', async () => {
    const { generate } = await connect();
    await assert.rejects(generate(generateRequest(1)), (error: unknown) => {
      assert.ok(error instanceof CodedError);
      assert.equal(error.code, 'disk-full');
      assert.equal(error.message, 'one line');
      return true;
    });
    await assert.rejects(generate(generateRequest(2)), { name: 'RangeError', message: 'plain' });
  });
}

function testDeath(start: () => Promise<ComputePort>): void {
  test('when the other side dies every call rejects, made before or after', async () => {
    const replica = connectReplica(await start());
    await replica.info();
    const waiting = [replica.generate(generateRequest(3)), replica.position()];
    for (const call of waiting) await assert.rejects(call, { code: 'compute-stopped' });
    await assert.rejects(replica.info(), { code: 'compute-stopped' });
  });
}
