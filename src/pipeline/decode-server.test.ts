import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import fc from 'fast-check';
import {
  compilingOnce,
  createDecodeNetwork,
  type DecodeNetwork,
  type DecodeNode,
  decodeConfig,
} from '../../test/decode-network.ts';
import { decodeProtocol } from '../net/protocol.ts';
import type { Transport } from '../net/transport.ts';
import { createNativeEngine } from '../platform/nodejs/onnx-native.ts';
import { encodeCanonical } from '../std/codec.ts';
import { accept, type Outcome, reject } from '../std/outcome.ts';
import {
  type DecodeRequest,
  decodeDecodeRequest,
  decodeOpened,
  decodeResults,
  encodeDecodeRequest,
  encodeResults,
  type WireCall,
} from './decode-messages.ts';
import { ownerSessionsMax } from './decode-service.ts';

const native = createNativeEngine({ threads: 1 });
const engine = compilingOnce(native);
after(() => native.close());

const { width, vocabulary } = decodeConfig;
const session = '0f'.repeat(16);
const other = 'aa'.repeat(16);

function twoStages(slots = 64): DecodeNetwork {
  return createDecodeNetwork({ engine, stages: 2, replicas: 1, slots });
}

async function ask(
  { caller, finish }: DecodeNetwork,
  node: DecodeNode,
  message: Uint8Array,
  from: Transport = caller,
): Promise<Outcome<Uint8Array>> {
  return finish(from.request(node.id, decodeProtocol, message));
}

async function codeOf(network: DecodeNetwork, node: DecodeNode, request: DecodeRequest): Promise<string> {
  const answer = await ask(network, node, encodeDecodeRequest(request));
  return answer.ok ? '' : answer.code;
}

function open(stage: number, name = session): DecodeRequest {
  return { kind: 'open', stage, session: name };
}

function call(more: Partial<WireCall> = {}): WireCall {
  return { session, position: 0, entry: Int32Array.of(3, 4), wanted: true, ...more };
}

/** The codes of a run's calls; '' for those that were made. */
async function run(
  network: DecodeNetwork,
  node: DecodeNode,
  calls: readonly WireCall[],
  from?: Transport,
): Promise<string[]> {
  const message = encodeDecodeRequest({ kind: 'run', stage: node.stage, calls });
  const answer = await ask(network, node, message, from);
  assert(answer.ok, answer.ok ? '' : answer.code);
  const lengths = calls.map(({ entry, wanted }) =>
    wanted ? (node.stage === 1 ? vocabulary : entry.length * width) : 0,
  );
  // Refused calls have no output, whatever is wanted.
  const outcomes = decodeResults(answer.value, lengths);
  assert(outcomes.ok, outcomes.ok ? '' : outcomes.detail);
  return outcomes.value.map((outcome) => (outcome.ok ? '' : outcome.code));
}

test('positions are appended once, in order, to sessions that are open', async () => {
  const network = twoStages();
  const [first, last] = [network.nodes[0]![0]!, network.nodes[1]![0]!];
  assert.deepEqual(await run(network, first, [call()]), ['unknown-session']);
  assert.equal(await codeOf(network, first, open(0)), '');
  assert.equal(await codeOf(network, first, open(0)), 'duplicate-session');
  assert.equal(await codeOf(network, first, open(1)), 'wrong-stage');
  assert.deepEqual(await run(network, first, [call({ position: 1 })]), ['out-of-order']);
  assert.deepEqual(await run(network, first, [call()]), ['']);
  assert.deepEqual(await run(network, first, [call()]), ['out-of-order'], 'repeated');
  assert.deepEqual(await run(network, first, [call({ position: 3 })]), ['out-of-order'], 'skipped');
  const bad = [
    call({ position: 2, entry: Int32Array.of(vocabulary) }),
    call({ position: 2, entry: Int32Array.of(1) }),
  ];
  assert.deepEqual(
    await run(network, first, bad),
    ['bad-token', 'bad-token'],
    'nothing after what is refused',
  );
  const good = [call({ position: 2, entry: Int32Array.of(1) }), call({ position: 3, wanted: false })];
  assert.deepEqual(await run(network, first, good), ['', '']);
  await codeOf(network, last, open(1));
  for (const value of [Number.NaN, Number.NEGATIVE_INFINITY])
    assert.deepEqual(await run(network, last, [call({ entry: new Float32Array(width).fill(value) })]), [
      'not-finite',
    ]);
  assert.deepEqual(await run(network, last, [call({ entry: new Float32Array(33 * width) })]), [
    'wrong-shape',
  ]);
  assert.deepEqual(await run(network, last, [call({ entry: new Float32Array(2 * width) })]), ['']);
});

test("a session is its owner's alone", async () => {
  const network = twoStages();
  const node = network.nodes[0]![0]!;
  await codeOf(network, node, open(0));
  const stranger = network.nodes[1]![0]!.transport;
  assert.deepEqual(await run(network, node, [call()], stranger), ['unknown-session']);
  const closing = encodeDecodeRequest({ kind: 'close', stage: 0, sessions: [session] });
  assert((await ask(network, node, closing, stranger)).ok);
  assert.deepEqual(await run(network, node, [call()]), ['']);
  assert((await ask(network, node, closing)).ok);
  assert.deepEqual(await run(network, node, [call({ position: 2 })]), ['unknown-session']);
});

test('memory is bounded: by the cache, and for every owner', async () => {
  const small = twoStages(3);
  const names = (count: number) => Array.from({ length: count }, (_, i) => i.toString(16).padStart(32, '0'));
  const codes: string[] = [];
  for (const name of names(5)) codes.push(await codeOf(small, small.nodes[0]![0]!, open(0, name)));
  assert.deepEqual(codes, ['', '', '', 'cache-full', 'cache-full']);
  const large = twoStages(96);
  const node = large.nodes[0]![0]!;
  for (const name of names(ownerSessionsMax)) assert.equal(await codeOf(large, node, open(0, name)), '');
  assert.equal(await codeOf(large, node, open(0, other)), 'busy');
  const stranger = large.nodes[1]![0]!.transport;
  assert((await ask(large, node, encodeDecodeRequest(open(0, other)), stranger)).ok);
  assert.equal(node.decoder.sessions(), ownerSessionsMax + 1);
});

test('hostile bytes are refused, and disturb no session', async () => {
  const network = twoStages();
  const node = network.nodes[1]![0]!;
  await codeOf(network, node, open(1));
  const id = new Uint8Array(16).fill(15);
  const messages: unknown[] = [
    ['run', 1, [[id, 0, '2x1', true, new Uint8Array(4 * width)]]],
    ['run', 1, [[id, -1, null, true, new Uint8Array(4 * width)]]],
    ['run', 1, [[id, 0.5, null, true, new Uint8Array(4 * width)]]],
    ['run', 1, [[id, 0, null, true, new Uint8Array(4 * width - 1)]]],
    ['run', 1, [[id, 0, null, true, new Uint8Array(0)]]],
    ['run', 1, [[id.subarray(1), 0, null, true, new Uint8Array(4 * width)]]],
    ['run', 1, []],
    ['run', 1, new Array(65).fill([id, 0, null, true, new Uint8Array(4 * width)])],
    ['open', 1, id, -1],
    ['open', 1, id],
    ['close', 1, [new Uint8Array(15)]],
    ['steal', 1, id],
    { kind: 'open' },
  ];
  // Each from a peer of its own: whoever sends such is not heard for long.
  for (const [i, message] of messages.entries()) {
    const from = network.hub.join(`${i}`.padStart(64, 'e'));
    const answer = await ask(network, node, encodeCanonical(message as never), from);
    assert(!answer.ok && ['malformed', 'wrong-shape'].includes(answer.code), `message ${i}`);
  }
  assert.deepEqual(await run(network, node, [call({ entry: new Float32Array(width) })]), ['']);
});

test('messages come back as they were sent; any other bytes are a coded refusal', () => {
  const kinds = [
    { embedding: true, width },
    { embedding: false, width },
  ];
  for (const kind of kinds) {
    const entry = kind.embedding ? Int32Array.of(1, 2) : new Float32Array(2 * width).fill(1.5);
    const requests: DecodeRequest[] = [
      open(3),
      { ...open(3), round: 9 } as DecodeRequest,
      { kind: 'close', stage: 0, sessions: [session, other] },
      { kind: 'run', stage: 2, calls: [call({ entry, shape: '8x1' }), call({ entry, wanted: false })] },
    ];
    for (const request of requests)
      assert.deepEqual(decodeDecodeRequest(encodeDecodeRequest(request), kind), accept(request));
  }
  const outcomes = [
    accept({ shape: '1x1' as const, output: Float32Array.of(1, 2) }),
    reject('context-full', 'so many'),
    accept({ shape: '1x32' as const, output: Float32Array.of(3) }),
  ];
  const encoded = encodeResults(outcomes, [true, true, false]);
  const [one, two] = outcomes;
  const three = accept({ shape: '1x32', output: new Float32Array(0) });
  assert.deepEqual(decodeResults(encoded, [2, 2, 0]), accept([one, two, three]));
  assert(!decodeResults(encoded, [2, 2]).ok && !decodeResults(encoded, [1, 2, 0]).ok);
  const poisoned = encodeResults([accept({ shape: '1x1', output: Float32Array.of(Number.NaN) })], [true]);
  assert.equal(decodeResults(poisoned, [1]).ok, false);
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
      assert.equal(decodeResults(bytes, [1]).ok, false);
      assert.equal(decodeOpened(bytes).ok, false);
      for (const kind of kinds) assert.equal(decodeDecodeRequest(bytes, kind).ok, false);
    }),
  );
});
