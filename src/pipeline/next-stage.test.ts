/** A caller over the in-memory hub, and callees made by hand: whose answers count, and what it signs for whom. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createVirtualNetwork, networkId } from '../../test/virtual-network.ts';
import type { KeyPair } from '../identity/keys.ts';
import { stepProtocol, trainProtocol } from '../net/protocol.ts';
import { concatBytes, fromHex, toHex } from '../std/bytes.ts';
import { sha256Hex } from '../std/hash.ts';
import { accept, type Outcome, reject } from '../std/outcome.ts';
import { seededRandom } from '../std/random.ts';
import { createLinkWatch } from './link-watch.ts';
import {
  type BoundaryShape,
  decodeStepRequest,
  decodeTrainRequest,
  encodeSums,
  encodeTrainAnswer,
} from './messages.ts';
import { createNextStage, type Failover } from './next-stage.ts';
import { createNormGuard } from './norm-guard.ts';
import { createRouter } from './routing.ts';
import { encodeRows } from './row-codec.ts';
import {
  type AnswerBody,
  type Exchange,
  isReceiptOf,
  type Seal,
  type SumsBody,
  signAnswer,
  signNorm,
  signReceipt,
  signSums,
} from './seals.ts';

const shape: BoundaryShape = { tokens: 4, width: 8, vocabulary: 16, codec: 'bf16' };
const stage = 1;
const [round, step] = [3, 2];
const driver = 'ab'.repeat(32);
const rowsOf = (mark: number) => Float32Array.from({ length: 32 }, (_, i) => Math.sin(i + mark));
const [caller, first, second, stranger] = [0, 1, 2, 3];

type SignAnswer = (body: AnswerBody, key: KeyPair, others: readonly KeyPair[]) => Seal;
type SignSums = (body: SumsBody, key: KeyPair, others: readonly KeyPair[]) => Seal;

interface Callee {
  readonly answer?: SignAnswer;
  readonly sums?: SignSums;
  /** dL/drows, by who asks nothing of it. */
  readonly mark: number;
}

const honestAnswer: SignAnswer = (body, key) => signAnswer(networkId, body, key);
const honestSums: SignSums = (body, key) => signSums(networkId, body, key);

function start(callees: Readonly<Record<number, Callee>>) {
  const net = createVirtualNetwork(4);
  const failovers: Failover[] = [];
  /** By callee, what its last receipt said when it was the caller's. */
  const receipts = new Map<number, readonly Exchange[]>();
  const away = new Set<number>();
  for (const [index, { answer = honestAnswer, sums = honestSums, mark }] of Object.entries(callees)) {
    const self = Number(index);
    const [transport, key] = [net.transports[self]!, net.keys[self]!];
    const known = new Map<number, Exchange>();
    transport.handle(trainProtocol, async (from, message) => {
      if (away.has(self)) return reject('unknown-path');
      const request = decodeTrainRequest(message, shape);
      assert.ok(request.ok);
      const gradient = encodeRows(rowsOf(mark + request.value.index), shape.codec);
      const exchange = {
        index: request.value.index,
        rows: sha256Hex(request.value.rows),
        gradient: sha256Hex(gradient),
      };
      known.set(exchange.index, exchange);
      const body = { stage, caller: from, driver, round, step, ...exchange };
      return accept(encodeTrainAnswer({ loss: 1, seal: answer(body, key, net.keys), rows: gradient }));
    });
    transport.handle(stepProtocol, async (from, message) => {
      if (away.has(self)) return reject('unknown-path');
      const request = decodeStepRequest(message);
      assert.ok(request.ok && request.value.pass === 'prepare');
      const { ids, receipt } = request.value;
      const exchanges = ids.map((id) => known.get(id)!);
      const place = { stage, driver, round, step };
      if (!isReceiptOf(from, networkId, { ...place, callee: key.nodeId, exchanges }, receipt))
        return reject('wrong-receipt');
      receipts.set(self, exchanges);
      const body = { ...place, caller: from, ids, sums: [mark] };
      return accept(encodeSums({ sums: [mark], seal: sums(body, key, net.keys) }));
    });
  }
  const { clock } = net;
  const transport = net.transports[caller]!;
  const next = createNextStage({
    stage,
    shape,
    signing: { networkId, key: net.keys[caller]! },
    keepsRows: true,
    transport,
    clock,
    candidates: () => Object.keys(callees).map((index) => net.ids[Number(index)]!),
    preferred: () => net.ids[first],
    router: createRouter({ clock, random: seededRandom(new Uint8Array(16).fill(1)) }),
    links: createLinkWatch({ clock }),
    guard: createNormGuard(),
    onFailover: (failover) => failovers.push(failover),
    onStarving: () => {},
  });
  const passage = next.open(driver, round, step);
  const signal = new AbortController().signal;
  const waitFor = async <T>(asked: Promise<Outcome<T>>): Promise<T> => {
    let answer: Outcome<T> | undefined;
    void asked.then((value) => (answer = value));
    for (let i = 0; i < 500 && !answer; i++) {
      await net.run(5);
      await new Promise((resolve) => setImmediate(resolve));
    }
    assert.ok(answer?.ok, JSON.stringify(answer));
    return answer.value;
  };
  const train = (index: number) => {
    const call = { index, claim: new Uint8Array(8), labels: new Int32Array(shape.tokens) };
    return waitFor(next.train(passage, { ...call, rows: rowsOf(index) }, signal));
  };
  const prepare = (ids: number[]) => waitFor(next.prepare(passage, ids, signal));
  const given = () => failovers.map(({ node, code }) => [net.ids.indexOf(node), code]);
  return { net, next, passage, receipts, away, train, prepare, given };
}

/** The other signature of the same digest, which anybody can make of it. */
function highS({ publicKey, signature }: Seal): Seal {
  const order = 0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141n;
  const high = (order - BigInt(`0x${toHex(signature.subarray(32))}`)).toString(16).padStart(64, '0');
  return { publicKey, signature: concatBytes(signature.subarray(0, 32), fromHex(high)) };
}

const strange = '11'.repeat(32);
const answersLikeThis = (
  change: (body: AnswerBody, others: readonly KeyPair[]) => Partial<AnswerBody>,
): SignAnswer => {
  return (body, key, others) => signAnswer(networkId, { ...body, ...change(body, others) }, key);
};

const wrongAnswers: Readonly<Record<string, SignAnswer>> = {
  unsigned: (_, { publicKey }) => ({ publicKey, signature: new Uint8Array(64) }),
  'no key': () => ({ publicKey: new Uint8Array(33), signature: new Uint8Array(64) }),
  'another key': (body, _, others) => signAnswer(networkId, body, others[stranger]!),
  'another network': (body, key) => signAnswer(new Uint8Array(32), body, key),
  'high-S': (body, key) => highS(signAnswer(networkId, body, key)),
  'a receipt': ({ index, rows, gradient, ...body }, key) =>
    signReceipt(networkId, { ...body, callee: key.nodeId, exchanges: [{ index, rows, gradient }] }, key),
  'other caller': answersLikeThis((_, others) => ({ caller: others[stranger]!.nodeId })),
  'other stage': answersLikeThis(() => ({ stage: 2 })),
  'other Driver': answersLikeThis(() => ({ driver: strange })),
  'other round': answersLikeThis(() => ({ round: 2 })),
  'other step': answersLikeThis(() => ({ step: 1 })),
  'other microbatch': answersLikeThis(() => ({ index: 1 })),
  'other rows': answersLikeThis(() => ({ rows: strange })),
  'other gradient': answersLikeThis(() => ({ gradient: strange })),
  'swapped rows': answersLikeThis(({ rows, gradient }) => ({ rows: gradient, gradient: rows })),
};

test('an answer that its callee has not signed is not used: another replica is asked', async () => {
  for (const [name, answer] of Object.entries(wrongAnswers)) {
    const { train, given, passage, net } = start({ [first]: { mark: 100, answer }, [second]: { mark: 200 } });
    const { gradient } = await train(0);
    assert.ok(Math.abs(gradient[0]! - rowsOf(200)[0]!) < 0.01, name);
    assert.deepEqual(given(), [[first, 'bad-signature']], name);
    assert.equal(passage.used.get(0)!.holder, net.ids[second]);
  }
});

const wrongSums: Readonly<Record<string, SignSums>> = {
  unsigned: (_, { publicKey }) => ({ publicKey, signature: new Uint8Array(64) }),
  'another key': (body, _, others) => signSums(networkId, body, others[stranger]!),
  'high-S': (body, key) => highS(signSums(networkId, body, key)),
  'a norm': (_, key) => signNorm(networkId, { driver, round, step, microbatches: 1, norm: 100 }, key),
  'other sums': (body, key) => signSums(networkId, { ...body, sums: [1] }, key),
  'other ids': (body, key) => signSums(networkId, { ...body, ids: [0, 1] }, key),
  'other step': (body, key) => signSums(networkId, { ...body, step: 1 }, key),
  'other caller': (body, key, others) =>
    signSums(networkId, { ...body, caller: others[stranger]!.nodeId }, key),
};

test('sums that their callee has not signed are not used: another replica prepares the step', async () => {
  for (const [name, sums] of Object.entries(wrongSums)) {
    const { train, prepare, given } = start({ [first]: { mark: 100, sums }, [second]: { mark: 200 } });
    await train(0);
    assert.deepEqual((await prepare([0])).sums, [200], name);
    assert.deepEqual(given(), [[first, 'bad-signature']], name);
  }
});

test('a receipt says what was exchanged with this callee; the gradient used keeps the seal of its own', async () => {
  const { net, train, prepare, away, receipts, passage } = start({
    [first]: { mark: 100 },
    [second]: { mark: 200 },
  });
  const used = await train(0);
  await train(1);
  away.add(first);
  await train(2);
  assert.deepEqual((await prepare([0, 1, 2])).sums, [200]);
  assert.equal(receipts.get(first), undefined);
  const hashOf = (mark: number) => sha256Hex(encodeRows(rowsOf(mark), shape.codec));
  assert.deepEqual(
    receipts.get(second),
    [0, 1, 2].map((index) => ({ index, rows: hashOf(index), gradient: hashOf(200 + index) })),
  );
  assert.ok(Math.abs(used.gradient[0]! - rowsOf(100)[0]!) < 0.01);
  const kept = passage.used.get(0)!;
  assert.equal(kept.gradient.hash, hashOf(100), 'what was used');
  assert.equal(sha256Hex(kept.gradient.bytes!), hashOf(100));
  assert.equal(sha256Hex(kept.rows.bytes!), hashOf(0));
  assert.deepEqual(kept.answer.publicKey, net.keys[first]!.publicKey);
});

test('of what never went on nothing is signed', async () => {
  const { train, receipts, next, passage } = start({ [first]: { mark: 100 } });
  await train(0);
  const outcome = await next.prepare(passage, [0, 1], new AbortController().signal);
  assert.ok(!outcome.ok && outcome.code === 'unknown-microbatch');
  assert.equal(receipts.size, 0);
});
