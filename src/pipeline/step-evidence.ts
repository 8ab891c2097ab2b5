/**
 * What a stage of several keeps of an optimizer step so that others can make it again: hashes of the rows that it got and
 * sent, its neighbours' signatures that these were the ones, and the Driver's norm. Pure: it keeps nothing, sends nothing,
 * and does not know what the rows mean.
 */
import { z } from 'zod';
import { nodeIdOf } from '../identity/keys.ts';
import type { NodeId } from '../net/transport.ts';
import { fromHex } from '../std/bytes.ts';
import { type Canonical, decodeCanonical, encodeCanonical } from '../std/codec.ts';
import { type HashHex, sha256Hex } from '../std/hash.ts';
import { accept, type Outcome, reject } from '../std/outcome.ts';
import {
  counterSchema,
  type DriverStep,
  type Exchange,
  hashSchema,
  indexSchema,
  isAnswerOf,
  isNormOfDriver,
  isReceiptOf,
  isSumsOf,
  microbatchesMax,
  normSchema,
  type Seal,
  sealForm,
  sealSchema,
  sumsSchema,
} from './seals.ts';

export interface MicrobatchEvidence {
  readonly index: number;
  /** Own steps of the round that had been taken when its rows were made: at these weights they were. */
  readonly madeAt: number;
  /** The same of its gradient in the step's sum, which may have been made again since. */
  readonly summedAt: number;
  /** Rows that came; null with the embedding, where tokens are the Driver's batch. */
  readonly entry: HashHex | null;
  /** dL/dy that came; null with the head, where labels are the Driver's batch's. */
  readonly target: HashHex | null;
  /** y as it was sent to whom `target` came from; null with the head. */
  readonly sentRows: HashHex | null;
  /** dL/dx as it was sent back; null with the embedding. */
  readonly sentGradient: HashHex | null;
  /** Of the callee whose gradient was used; null with the head. */
  readonly answer: Seal | null;
}

/** One optimizer step of one stage. */
export interface StepEvidence extends DriverStep {
  readonly norm: number;
  /** The Driver's. */
  readonly normSeal: Seal;
  /** In the order in which their gradients were summed. */
  readonly microbatches: readonly MicrobatchEvidence[];
  /** The caller's; null on the first stage. */
  readonly receipt: Seal | null;
  /** What the next stage said of itself and all after it; null with the head. */
  readonly rest: { readonly sums: readonly number[]; readonly seal: Seal } | null;
}

/** Steps of one stage in a round, at most. */
export const workStepsMax = 8192;
/** A step of `microbatchesMax` fits. */
export const stepEvidenceBytesMax = 2 ** 20;

const placeSchema = counterSchema.max(workStepsMax - 1);
const microbatchSchema = z.tuple([
  indexSchema,
  placeSchema,
  placeSchema,
  hashSchema.nullable(),
  hashSchema.nullable(),
  hashSchema.nullable(),
  hashSchema.nullable(),
  sealSchema.nullable(),
]);

/** [driver, round, step, norm, seal, microbatches, receipt, rest]. */
const evidenceSchema = z.tuple([
  hashSchema,
  counterSchema,
  counterSchema,
  normSchema,
  sealSchema,
  z.array(microbatchSchema).min(1).max(microbatchesMax),
  sealSchema.nullable(),
  z.tuple([sumsSchema, sealSchema]).nullable(),
]);

const orNull = <T>(value: T | null, form: (value: T) => Canonical) => (value === null ? null : form(value));

export function encodeStepEvidence(evidence: StepEvidence): Uint8Array {
  const { driver, round, step, norm, normSeal, receipt, rest } = evidence;
  const microbatches = evidence.microbatches.map(
    (one): Canonical => [
      one.index,
      one.madeAt,
      one.summedAt,
      orNull(one.entry, fromHex),
      orNull(one.target, fromHex),
      orNull(one.sentRows, fromHex),
      orNull(one.sentGradient, fromHex),
      orNull(one.answer, sealForm),
    ],
  );
  return encodeCanonical([
    fromHex(driver),
    round,
    step,
    norm,
    sealForm(normSeal),
    microbatches,
    orNull(receipt, sealForm),
    orNull(rest, ({ sums, seal }): Canonical => [[...sums], sealForm(seal)]),
  ]);
}

/** Decodes untrusted bytes: `too-large`, `not-canonical`, `malformed`. Signatures are not checked yet. */
export function decodeStepEvidence(message: Uint8Array): Outcome<StepEvidence> {
  const decoded = decodeCanonical(message, stepEvidenceBytesMax);
  if (!decoded.ok) return decoded;
  const parsed = evidenceSchema.safeParse(decoded.value);
  if (!parsed.success) return reject('malformed');
  const [driver, round, step, norm, normSeal, given, receipt, rest] = parsed.data;
  const microbatches = given.map(
    ([index, madeAt, summedAt, entry, target, sentRows, sentGradient, answer]) => ({
      index,
      madeAt,
      summedAt,
      entry,
      target,
      sentRows,
      sentGradient,
      answer,
    }),
  );
  if (new Set(microbatches.map(({ index }) => index)).size !== microbatches.length)
    return reject('malformed', 'a microbatch is named twice');
  return accept({
    driver,
    round,
    step,
    norm,
    normSeal,
    microbatches,
    receipt,
    rest: rest && { sums: rest[0], seal: rest[1] },
  });
}

/** What names an evidence: SHA-256 of its encoding. */
export function stepEvidenceHash(evidence: StepEvidence): HashHex {
  return sha256Hex(encodeStepEvidence(evidence));
}

/** Whose step the evidence is said to be. */
export interface EvidencePlace {
  readonly nodeId: NodeId;
  readonly stage: number;
  /** Of the model. */
  readonly stages: number;
}

/**
 * Whether the evidence has what a step of this stage has, signed by those it names: `wrong-form` (a hash or signature is
 * missing, or too many), `bad-signature`. Who the neighbours are, whether rows are those of the hashes, and whether the norm
 * is right, is not looked at.
 */
export function checkStepEvidence(
  networkId: Uint8Array,
  { nodeId, stage, stages }: EvidencePlace,
  evidence: StepEvidence,
): Outcome<void> {
  const { driver, round, step, norm, normSeal, microbatches, receipt, rest } = evidence;
  const isFirst = stage === 0;
  const hasHead = stage === stages - 1;
  const isFormed =
    (receipt === null) === isFirst &&
    (rest === null) === hasHead &&
    (!isFirst || driver === nodeId) &&
    microbatches.every(
      ({ entry, target, sentRows, sentGradient, answer }) =>
        [entry, sentGradient].every((hash) => (hash === null) === isFirst) &&
        [target, sentRows, answer].every((one) => (one === null) === hasHead),
    );
  if (!isFormed) return reject('wrong-form', `not a step of stage ${stage + 1} of ${stages}`);
  const place = { driver, round, step };
  if (!isNormOfDriver(networkId, { ...place, microbatches: microbatches.length, norm }, normSeal))
    return reject('bad-signature', 'norm');
  if (receipt) {
    const exchanges = exchangesOf(microbatches);
    const body = { ...place, stage, callee: nodeId, exchanges };
    if (!isReceiptOf(nodeIdOf(receipt.publicKey), networkId, body, receipt))
      return reject('bad-signature', 'receipt');
  }
  for (const { index, sentRows, target, answer } of microbatches) {
    if (sentRows === null || target === null || answer === null) continue;
    const body = { ...place, stage: stage + 1, caller: nodeId, index, rows: sentRows, gradient: target };
    if (!isAnswerOf(nodeIdOf(answer.publicKey), networkId, body, answer))
      return reject('bad-signature', `answer ${index}`);
  }
  if (rest) {
    const ids = microbatches.map(({ index }) => index).sort((a, b) => a - b);
    const body = { ...place, stage: stage + 1, caller: nodeId, ids, sums: rest.sums };
    if (!isSumsOf(nodeIdOf(rest.seal.publicKey), networkId, body, rest.seal))
      return reject('bad-signature', 'sums');
  }
  return accept(undefined);
}

/** What went over the boundary to the stage before, as its receipt says it; none on the first stage. */
export function exchangesOf(microbatches: readonly MicrobatchEvidence[]): Exchange[] {
  return microbatches
    .flatMap(({ index, entry, sentGradient }) =>
      entry === null || sentGradient === null ? [] : [{ index, rows: entry, gradient: sentGradient }],
    )
    .sort((a, b) => a.index - b.index);
}

/** Every row array that the evidence names, once each. */
export function rowsOf({ microbatches }: StepEvidence): readonly HashHex[] {
  const named = microbatches.flatMap(({ entry, target, sentRows, sentGradient }) => [
    entry,
    target,
    sentRows,
    sentGradient,
  ]);
  return [...new Set(named.filter((hash) => hash !== null))];
}
