/**
 * Proof of Neural Work: a node's signed claim of what it computed. Here is the claim itself, its canonical form and its
 * name; whether it can be true is for `plausibility.ts`, whether it is true for audits. Source: docs/proofs.md.
 */
import { z } from 'zod';
import { bodyHash } from '../identity/signed.ts';
import { toHex, utf8 } from '../std/bytes.ts';
import type { Canonical } from '../std/codec.ts';
import { accept, type Outcome } from '../std/outcome.ts';
import { counterField, hashField, parseBody, stageField } from './body.ts';

/** In the order of their numbers in the canonical form. */
export const proofTypes = ['training', 'inference', 'data', 'uptime'] as const;
export type ProofType = (typeof proofTypes)[number];

/** The node's id is not a field: it is that of the key that signed. */
export interface ProofBody {
  readonly type: ProofType;
  /** The prover's clock, in milliseconds. */
  readonly timestampMs: number;
  readonly tokens: number;
  readonly batches: number;
  /** Transformer layers held. */
  readonly layers: number;
  readonly hasEmbedding: boolean;
  readonly hasHead: boolean;
  /** Larger than that of the prover's proof before. */
  readonly nonce: number;
  readonly round: number;
  /** Counted from 0. */
  readonly stage: number;
  /** Inner steps [firstStep, endStep) of the round. */
  readonly firstStep: number;
  readonly endStep: number;
  /** Agreed state hash of w_r of the stage: what the round starts from. 32 bytes. */
  readonly base: Uint8Array;
  /** Hash of weights, moments and error feedback at `firstStep`. 32 bytes. */
  readonly before: Uint8Array;
  /** The same after each interval of `intervalSteps` steps; the last one, which may be shorter, ends at `endStep`. */
  readonly states: readonly Uint8Array[];
  /** Batches [firstBatch, endBatch) in the sampler's count: (round · H + step) · microbatches + index. */
  readonly firstBatch: number;
  readonly endBatch: number;
  /** Mean loss over the steps, in millionths of a nat. */
  readonly lossMicronats: number;
  /** Hash of the contribution's blob, when the steps end the node's work in this round. */
  readonly contribution: Uint8Array | null;
  /** SHA-256 of the list of steps (docs/audit.md) that a stage of several made; null for a whole model. 32 bytes. */
  readonly work: Uint8Array | null;
}

export interface ProofInterval {
  readonly firstStep: number;
  readonly endStep: number;
  readonly before: Uint8Array;
  readonly after: Uint8Array;
}

/** Interval hashes in one proof: a body stays under 9 KB. */
export const proofStatesMax = 256;
/** 1,000 nats; a loss that large says that training has failed. */
const lossMicronatsMax = 1_000_000_000;

const stepNumber = z.number().int().min(0).max(1_000_000_000);

const wireSchema = z.tuple([
  z
    .number()
    .int()
    .min(0)
    .max(proofTypes.length - 1),
  counterField,
  counterField,
  counterField,
  z.number().int().min(0).max(65_535),
  z.boolean(),
  z.boolean(),
  counterField,
  stepNumber,
  stageField,
  stepNumber,
  stepNumber,
  hashField,
  hashField,
  z.array(hashField).max(proofStatesMax),
  counterField,
  counterField,
  z.number().int().min(0).max(lossMicronatsMax),
  hashField.nullable(),
  hashField.nullable(),
]);

/** The array that is signed. */
export function proofFields(body: ProofBody): Canonical {
  return [
    proofTypes.indexOf(body.type),
    body.timestampMs,
    body.tokens,
    body.batches,
    body.layers,
    body.hasEmbedding,
    body.hasHead,
    body.nonce,
    body.round,
    body.stage,
    body.firstStep,
    body.endStep,
    body.base,
    body.before,
    body.states,
    body.firstBatch,
    body.endBatch,
    body.lossMicronats,
    body.contribution,
    body.work,
  ];
}

/** Checks the form of an untrusted body: `malformed-proof`. */
export function proofOf(fields: unknown): Outcome<ProofBody> {
  const parsed = parseBody('proof', wireSchema, fields);
  if (!parsed.ok) return parsed;
  const [type, timestampMs, tokens, batches, layers, hasEmbedding, hasHead, nonce, ...rest] = parsed.value;
  const [round, stage, firstStep, endStep, base, before, states, firstBatch, endBatch, ...last] = rest;
  const [lossMicronats, contribution, work] = last;
  return accept({
    type: proofTypes[type]!,
    timestampMs,
    tokens,
    batches,
    layers,
    hasEmbedding,
    hasHead,
    nonce,
    round,
    stage,
    firstStep,
    endStep,
    base,
    before,
    states,
    firstBatch,
    endBatch,
    lossMicronats,
    contribution,
    work,
  });
}

/**
 * Names a claim: the same body from the same prover is the same claim, under whatever signature and in whatever
 * transaction. A copy by somebody else is another claim, so nobody can spend a claim before its prover does.
 */
export function proofHash(networkId: Uint8Array, prover: string, body: ProofBody): Uint8Array {
  return bodyHash('neuroshard/proof/1', [networkId, utf8(prover), proofFields(body)]);
}

/** The key of a proof's duty. */
export function proofKey(networkId: Uint8Array, prover: string, body: ProofBody): string {
  return toHex(proofHash(networkId, prover, body));
}

/** ⌈steps / intervalSteps⌉. */
export function intervalsOf(body: Pick<ProofBody, 'firstStep' | 'endStep'>, intervalSteps: number): number {
  return Math.ceil((body.endStep - body.firstStep) / intervalSteps);
}

/** What an auditor of interval `index` in [0, intervalsOf) starts from, and what it must come to. */
export function intervalAt(body: ProofBody, index: number, intervalSteps: number): ProofInterval {
  const firstStep = body.firstStep + index * intervalSteps;
  return {
    firstStep,
    endStep: Math.min(body.endStep, firstStep + intervalSteps),
    before: index === 0 ? body.before : body.states[index - 1]!,
    after: body.states[index]!,
  };
}
