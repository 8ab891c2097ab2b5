/**
 * What is asked of one replica of the next stage: a microbatch, the first pass of a step. Its answers are checked here, in
 * order: size, schema, rows, signature. Which replica, and what follows when it fails, is not decided here.
 */
import { type Protocol, stepProtocol, trainProtocol } from '../net/protocol.ts';
import type { NodeId, Transport } from '../net/transport.ts';
import type { Clock } from '../std/clock.ts';
import { accept, type Outcome, type Rejection, reject } from '../std/outcome.ts';
import type { CallPlaces } from './call-places.ts';
import type { LinkWatch } from './link-watch.ts';
import {
  type BoundaryShape,
  decodeSums,
  decodeTrainAnswer,
  encodeStepRequest,
  type SealedSums,
} from './messages.ts';
import type { NormGuard } from './norm-guard.ts';
import type { Router } from './routing.ts';
import { rootMeanSquare } from './row-norm.ts';
import { type DriverStep, type Exchange, isAnswerOf, isSumsOf, type Signing, signReceipt } from './seals.ts';
import { type Sent, type Travelled, travelled } from './step-records.ts';
import { watchedRequest } from './watched-request.ts';

export interface CalleeOptions {
  /** Of the callees. */
  readonly stage: number;
  readonly shape: BoundaryShape;
  /** The caller's. */
  readonly signing: Signing;
  /** Whether the bytes of rows are wanted beyond the call, as evidence. */
  readonly keepsRows: boolean;
  readonly transport: Transport;
  readonly clock: Clock;
  readonly router: Router;
  readonly links: LinkWatch;
  /** Of the gradients that come back. */
  readonly guard: NormGuard;
  readonly onBytes?: (sent: number, received: number) => void;
}

export interface AtCallee extends CalleeOptions {
  readonly places: CallPlaces;
}

/** The replica is alive, and not for us now: another may be, and it costs this one nothing. */
export const temporary = new Set([
  'busy',
  'wrong-round',
  'past-round',
  'round-over',
  'refused',
  'wrong-stage',
  'stale-step',
  'unchecked',
]);
/** No progress of a callee that goes on sending frames, for this long, counts as hanging. */
const progressMs = 20_000;

/** One call, given up when the callee falls silent. */
export async function callOnce(
  options: CalleeOptions,
  node: NodeId,
  protocol: Protocol,
  message: Uint8Array,
  signal: AbortSignal,
  moved = () => {},
): Promise<Outcome<Uint8Array>> {
  const answer = await watchedRequest(options, { node, protocol, message, signal, progressMs, moved });
  if (answer.ok) options.onBytes?.(message.length, answer.value.length);
  return answer;
}

/** What the callee of a microbatch said, and what went back and forth. */
export interface Answer extends Sent {
  readonly loss: number;
  readonly dy: Float32Array;
}

export async function prepareAt(
  options: AtCallee,
  node: NodeId,
  { driver, round, step }: DriverStep,
  exchanges: readonly Exchange[],
  accepted: () => void,
  signal: AbortSignal,
): Promise<Outcome<SealedSums>> {
  const { stage, signing, transport } = options;
  const { networkId, key } = signing;
  const place = { stage, driver, round, step };
  const receipt = signReceipt(networkId, { ...place, callee: node, exchanges }, key);
  const ids = exchanges.map(({ index }) => index);
  const message = encodeStepRequest({ pass: 'prepare', ...place, ids, receipt });
  const answer = await callOnce(options, node, stepProtocol, message, signal, accepted);
  if (!answer.ok) return answer;
  const decoded = decodeSums(answer.value);
  if (!decoded.ok) return blame(transport, node, decoded);
  const { sums, seal } = decoded.value;
  const isSealed = isSumsOf(node, networkId, { ...place, caller: key.nodeId, ids, sums }, seal);
  return isSealed ? decoded : blame(transport, node, reject('bad-signature', 'sums'));
}

/** What an honest replica never answers. */
function blame(transport: Transport, node: NodeId, refused: Rejection): Rejection {
  transport.penalize(node, refused.code);
  return refused;
}

export interface SentMicrobatch {
  readonly of: DriverStep;
  readonly index: number;
  readonly message: Uint8Array;
  readonly rows: Travelled;
}

export async function trainAt(
  options: AtCallee,
  node: NodeId,
  { of, index, message, rows }: SentMicrobatch,
  signal: AbortSignal,
  moved?: () => void,
): Promise<Outcome<Answer>> {
  const { stage, shape, signing, keepsRows, transport } = options;
  const leave = await options.places.take(node, signal);
  if (!leave) return reject(signal.aborted ? 'aborted' : 'busy', 'no place became free');
  const answer = await callOnce(options, node, trainProtocol, message, signal, moved).finally(leave);
  // Those that wait for a place there need not find out one by one.
  if (!answer.ok && !temporary.has(answer.code)) options.places.dismiss(node);
  if (!answer.ok) return answer;
  const decoded = decodeTrainAnswer(answer.value, shape);
  if (!decoded.ok) return reject('unsound-answer', blame(transport, node, decoded).code);
  const { loss, seal, gradient: dy } = decoded.value;
  const gradient = travelled(decoded.value.rows, keepsRows);
  const { driver, round, step } = of;
  const exchange = { index, rows: rows.hash, gradient: gradient.hash };
  const body = { stage, caller: signing.key.nodeId, driver, round, step, ...exchange };
  if (!isAnswerOf(node, signing.networkId, body, seal))
    return blame(transport, node, reject('bad-signature', 'answer'));
  const sound = options.guard.check(rootMeanSquare(dy));
  if (!sound.ok) return reject('unsound-answer', sound.code);
  return accept({ loss, dy, rows, gradient, answer: seal });
}
