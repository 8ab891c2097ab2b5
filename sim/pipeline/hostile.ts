/**
 * Hostile neighbours in the pipeline: the product's own peer with one part turned bad, towards the stage before, the
 * stage after, or whoever is there. In consensus and rounds they behave, so that what is tried is the stage boundary.
 */
import type { StageReplica } from '../../src/diloco/replica.ts';
import { evaluateProtocol, type Protocol, stepProtocol, trainProtocol } from '../../src/net/protocol.ts';
import type { Transport } from '../../src/net/transport.ts';
import type { PeerOptions, PeerSteps } from '../../src/peer/peer.ts';
import {
  decodeStepRequest,
  decodeSums,
  decodeTrainAnswer,
  encodeStepRequest,
  encodeSums,
  encodeTrainAnswer,
} from '../../src/pipeline/messages.ts';
import { type Seal, signNorm } from '../../src/pipeline/seals.ts';
import { accept, type Outcome } from '../../src/std/outcome.ts';
import { type Random, uniformBelow } from '../../src/std/random.ts';
import type { NodeEnv, NodeProgram } from '../cluster.ts';
import { computing, runTraining, startPeer } from '../diloco/honest.ts';
import { type DilocoWorld, freshReplica, stageOf } from '../diloco/world.ts';
import { between, chance, pick } from '../random.ts';

export const neighbourKinds = [
  'absurd',
  'damaged-answers',
  'damaged-requests',
  'unasked',
  'other-batches',
  'unsigned',
] as const;
export type NeighbourKind = (typeof neighbourKinds)[number];

export function hostileNeighbour(world: DilocoWorld, kind: NeighbourKind): NodeProgram {
  return async (env) => {
    const computed = computing(world, env, await freshReplica(world.network, stageOf(world, env.index)));
    const { replica: bad = computed, ...parts } = badParts(world, env, kind, computed);
    const replica = standing(world, env, bad);
    const peer = await startPeer(world, env, { replica, events: () => {}, ...parts });
    if (kind === 'unasked') askEverybody(world, env);
    return runTraining(env, peer, () => {});
  };
}

/** In rounds it behaves: a state that only it has reached yet, say because the others of its cohort are down, is one. */
function standing(world: DilocoWorld, env: NodeEnv, replica: StageReplica): StageReplica {
  return {
    ...replica,
    closeRound: async (request) => {
      const result = await replica.closeRound(request);
      if (!result.ok) return result;
      const { round, stateHash } = result.value.position;
      world.checker.closing(env.index, request);
      world.checker.stands(env.index, round, stateHash);
      return result;
    },
  };
}

function badParts(
  world: DilocoWorld,
  env: NodeEnv,
  kind: NeighbourKind,
  replica: StageReplica,
): Partial<PeerOptions> {
  switch (kind) {
    case 'absurd':
      return { replica: withAbsurdRows(env.random, replica) };
    case 'damaged-answers':
      return { transport: damagingAnswers(env) };
    case 'damaged-requests':
      return { transport: damagingRequests(env) };
    case 'other-batches':
      return { steps: (peer) => withOtherBatches(env, peer.steps) };
    case 'unsigned':
      return { transport: signingOtherThings(world, env) };
    case 'unasked':
      return {};
  }
}

/** Not numbers, numbers too large, slightly too large, and none: sometimes, so that it is used again and again. */
function spoil(random: Random, rows: Float32Array): Float32Array {
  if (chance(random, 0.5)) return rows;
  const factor = pick(random, [Number.NaN, Number.POSITIVE_INFINITY, 1e30, 1e6, 100, 20, -1, 0]);
  const only = uniformBelow(random, rows.length);
  const all = chance(random, 0.5);
  return rows.map((value, i) => (all || i === only ? value * factor : value));
}

function withAbsurdRows(random: Random, replica: StageReplica): StageReplica {
  return {
    ...replica,
    forward: async (call) => {
      const rows = await replica.forward(call);
      return rows.ok ? accept(spoil(random, rows.value)) : rows;
    },
    backward: async (call) => {
      const done = await replica.backward(call);
      if (!done.ok || !done.value.inputGradient) return done;
      return accept({ ...done.value, inputGradient: spoil(random, done.value.inputGradient) });
    },
  };
}

function noise(random: Random, length: number): Uint8Array {
  return Uint8Array.from({ length }, () => uniformBelow(random, 256));
}

const pipelineProtocols: readonly Protocol[] = [trainProtocol, stepProtocol, evaluateProtocol];
const isPipeline = (protocol: Protocol) => pipelineProtocols.some(({ id }) => id === protocol.id);

/** Cut short, longer, with bits turned, or nothing but noise. */
function damage(random: Random, message: Uint8Array): Uint8Array {
  if (chance(random, 0.6) || message.length === 0) return message;
  const how = pick(random, ['cut', 'long', 'bits', 'noise'] as const);
  if (how === 'cut') return message.subarray(0, uniformBelow(random, message.length));
  if (how === 'long') return new Uint8Array([...message, ...noise(random, 1 + uniformBelow(random, 64))]);
  if (how === 'noise') return noise(random, message.length);
  const damaged = message.slice();
  for (let i = 0; i < 8; i++) damaged[uniformBelow(random, damaged.length)]! ^= 1 << uniformBelow(random, 8);
  return damaged;
}

function damagingAnswers({ transport, random }: NodeEnv): Transport {
  return {
    ...transport,
    handle: (protocol, handler) =>
      transport.handle(protocol, async (from, message, signal, progress) => {
        const answer: Outcome<Uint8Array> = await handler(from, message, signal, progress);
        return answer.ok && isPipeline(protocol) ? accept(damage(random, answer.value)) : answer;
      }),
  };
}

function damagingRequests({ transport, random }: NodeEnv): Transport {
  return {
    ...transport,
    request: (peer, protocol, message, signal, onFrame) => {
      const sent = isPipeline(protocol) ? damage(random, message) : message;
      return transport.request(peer, protocol, sent, signal, onFrame);
    },
  };
}

/** Now and then the signature under an answer, receipt, norm or sums is one under something else, or none at all. */
function signingOtherThings({ network }: DilocoWorld, { transport, random, key }: NodeEnv): Transport {
  const { training, model } = network;
  const shape = {
    tokens: training.batch * training.sequence,
    width: model.width,
    vocabulary: model.vocabulary,
    codec: training.activations,
  };
  const other = (seal: Seal): Seal => {
    if (chance(random, 0.6)) return seal;
    const body = { driver: key.nodeId, round: 0, step: 0, microbatches: 1, norm: 1 };
    if (chance(random, 0.5)) return signNorm(network.networkId, body, key);
    return { ...seal, signature: noise(random, 64) };
  };
  const answered = (protocol: Protocol, answer: Uint8Array): Uint8Array => {
    const train = protocol.id === trainProtocol.id ? decodeTrainAnswer(answer, shape) : undefined;
    if (train?.ok) return encodeTrainAnswer({ ...train.value, seal: other(train.value.seal) });
    const sums = protocol.id === stepProtocol.id ? decodeSums(answer) : undefined;
    return sums?.ok ? encodeSums({ ...sums.value, seal: other(sums.value.seal) }) : answer;
  };
  const asked = (protocol: Protocol, message: Uint8Array): Uint8Array => {
    const step = protocol.id === stepProtocol.id ? decodeStepRequest(message) : undefined;
    if (!step?.ok) return message;
    const { value } = step;
    if (value.pass === 'apply') return encodeStepRequest({ ...value, seal: other(value.seal) });
    return encodeStepRequest({ ...value, receipt: other(value.receipt) });
  };
  return {
    ...transport,
    handle: (protocol, handler) =>
      transport.handle(protocol, async (from, message, signal, progress) => {
        const answer: Outcome<Uint8Array> = await handler(from, message, signal, progress);
        return answer.ok ? accept(answered(protocol, answer.value)) : answer;
      }),
    request: (peer, protocol, message, signal, onFrame) =>
      transport.request(peer, protocol, asked(protocol, message), signal, onFrame),
  };
}

/** Signs batches that are not its own: of another place, or with labels that are not theirs. */
function withOtherBatches({ random }: NodeEnv, { batch }: PeerSteps): Partial<PeerSteps> {
  return {
    batch: async (round, step, index) => {
      const other = await batch(round, step + (chance(random, 0.2) ? 1 : 0), index);
      return chance(random, 0.2) ? { ...other, labels: other.labels.map((label) => label ^ 1) } : other;
    },
  };
}

/** Steps and microbatches of nobody, in everybody's name. */
function askEverybody(world: DilocoWorld, { clock, random, transport, key }: NodeEnv): void {
  const seal = () => ({ publicKey: key.publicKey, signature: noise(random, 64) });
  const { training, members } = world.network;
  const again = () => {
    const peer = pick(random, members).nodeId;
    const place = {
      round: Math.max(0, world.checker.newestRound()),
      stage: uniformBelow(random, training.stages),
      step: uniformBelow(random, training.innerSteps),
      driver: pick(random, members).nodeId,
    };
    const ids = [...Array(training.microbatches).keys()];
    const message = pick(random, [
      () => encodeStepRequest({ pass: 'prepare', ...place, ids, receipt: seal() }),
      () => encodeStepRequest({ pass: 'apply', ...place, norm: pick(random, [0, 1, 1e30]), seal: seal() }),
      () => noise(random, uniformBelow(random, 512)),
    ])();
    if (peer !== transport.self)
      void transport.request(peer, pick(random, pipelineProtocols), message).catch(() => {});
    clock.setTimer(between(random, 20, 800), again);
  };
  again();
}
