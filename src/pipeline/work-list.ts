/**
 * The list of the steps that a stage made in a round, to which its proof commits: whose step each was, and the hash of its
 * evidence. Pure.
 */
import { z } from 'zod';
import type { NodeId } from '../net/transport.ts';
import { fromHex } from '../std/bytes.ts';
import { type Canonical, decodeCanonical, encodeCanonical } from '../std/codec.ts';
import { type HashHex, sha256Hex } from '../std/hash.ts';
import { accept, type Outcome, reject } from '../std/outcome.ts';
import { counterSchema, hashSchema, microbatchesMax } from './seals.ts';
import { type StepEvidence, stepEvidenceHash, workStepsMax } from './step-evidence.ts';

/** One step in the list of a round's work. */
export interface WorkStep {
  readonly driver: NodeId;
  /** The Driver's count. */
  readonly step: number;
  /** How many it has. */
  readonly microbatches: number;
  readonly evidence: HashHex;
}

export const workListBytesMax = 1024 * 1024;

const workSchema = z
  .array(z.tuple([hashSchema, counterSchema, counterSchema.min(1).max(microbatchesMax), hashSchema]))
  .max(workStepsMax);

/** In the order in which the stage made them. */
export function workOf(steps: readonly StepEvidence[]): WorkStep[] {
  return steps.map((one) => ({
    driver: one.driver,
    step: one.step,
    microbatches: one.microbatches.length,
    evidence: stepEvidenceHash(one),
  }));
}

export function encodeWorkList(steps: readonly WorkStep[]): Uint8Array {
  return encodeCanonical(
    steps.map(
      ({ driver, step, microbatches, evidence }): Canonical => [
        fromHex(driver),
        step,
        microbatches,
        fromHex(evidence),
      ],
    ),
  );
}

/** What a proof commits to: SHA-256 of the encoded list. */
export function workHash(steps: readonly WorkStep[]): HashHex {
  return sha256Hex(encodeWorkList(steps));
}

/** Decodes untrusted bytes: `too-large`, `not-canonical`, `malformed`, `step-twice` for a Driver's step named twice. */
export function decodeWorkList(message: Uint8Array): Outcome<readonly WorkStep[]> {
  const decoded = decodeCanonical(message, workListBytesMax);
  if (!decoded.ok) return decoded;
  const parsed = workSchema.safeParse(decoded.value);
  if (!parsed.success) return reject('malformed');
  const steps = parsed.data.map(([driver, step, microbatches, evidence]) => ({
    driver,
    step,
    microbatches,
    evidence,
  }));
  const names = new Set(steps.map(({ driver, step }) => `${driver}/${step}`));
  return names.size === steps.length ? accept(steps) : reject('step-twice');
}
