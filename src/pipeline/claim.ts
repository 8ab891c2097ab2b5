/**
 * A Driver's signed claim of a microbatch: which batch of its own it says this is, and the hash of tokens and labels.
 * Whoever has the dataset can recompute the batch; a claim that does not fit is evidence that anyone can verify, since
 * nothing but the claim itself is needed for it. It knows nothing of who carried it here.
 *
 * Labels travel beside the claim and are signed by nobody: labels that are not those of the claimed batch convict no
 * Driver, for any node on the path may have changed them.
 */
import { z } from 'zod';
import type { Dataset } from '../genesis/dataset.ts';
import { batchHash, batchOf, type SamplingPlan } from '../genesis/sampler.ts';
import {
  type KeyPair,
  nodeIdOf,
  publicKeyBytes,
  signatureBytes,
  signDigest,
  verifyDigest,
} from '../identity/keys.ts';
import type { NodeId } from '../net/transport.ts';
import { bytesOf, equalBytes, fromHex, toHex } from '../std/bytes.ts';
import { decodeCanonical, encodeCanonical } from '../std/codec.ts';
import { type HashHex, taggedHash } from '../std/hash.ts';
import { accept, CodedError, type Outcome, reject } from '../std/outcome.ts';

export interface ClaimBody {
  readonly round: number;
  /** In [0, innerSteps). */
  readonly step: number;
  /** In [0, microbatches). */
  readonly index: number;
  /** H(tokens, labels) of the batch. */
  readonly content: HashHex;
}

export interface Claim extends ClaimBody {
  /** The Driver, whose key signed it. */
  readonly nodeId: string;
  readonly publicKey: Uint8Array;
  readonly signature: Uint8Array;
}

/** What a claim is checked against; the same on every node of the network. */
export interface ClaimGround {
  readonly dataset: Dataset;
  readonly plan: SamplingPlan;
}

/** Where claims that do not fit are passed on: each message is one encoded claim. */
export const fraudTopic = 'fraud';

export const claimBytesMax = 256;

const counter = z.number().int().min(0).max(0xffff_ffff);
const bytes = (length: number) => z.instanceof(Uint8Array).refine((value) => value.length === length);

/** [round, step, index, content, publicKey, signature]; the network's id is signed but not sent. */
const wireSchema = z.tuple([
  counter,
  counter,
  counter,
  bytes(32),
  bytes(publicKeyBytes),
  bytes(signatureBytes),
]);

function digestOf(networkId: Uint8Array, { round, step, index, content }: ClaimBody): Uint8Array {
  return taggedHash('neuroshard/claim/1', networkId, encodeCanonical([round, step, index, fromHex(content)]));
}

export function contentHash(tokens: Int32Array, labels: Int32Array): HashHex {
  return toHex(batchHash(tokens, labels));
}

export function makeClaim(networkId: Uint8Array, body: ClaimBody, key: KeyPair): Claim {
  const { round, step, index, content } = body;
  const signature = signDigest(digestOf(networkId, body), key.secretKey);
  return { round, step, index, content, nodeId: key.nodeId, publicKey: key.publicKey, signature };
}

export function encodeClaim({ round, step, index, content, publicKey, signature }: Claim): Uint8Array {
  return encodeCanonical([round, step, index, fromHex(content), publicKey, signature]);
}

/** Decodes untrusted bytes: `malformed-claim` or `bad-signature`. */
export function decodeClaim(networkId: Uint8Array, message: Uint8Array): Outcome<Claim> {
  const decoded = decodeCanonical(message, claimBytesMax);
  if (!decoded.ok) return reject('malformed-claim', decoded.code);
  const parsed = wireSchema.safeParse(decoded.value);
  if (!parsed.success) return reject('malformed-claim');
  const [round, step, index, content, publicKey, signature] = parsed.data;
  const body = { round, step, index, content: toHex(content) };
  if (!verifyDigest(digestOf(networkId, body), signature, publicKey)) return reject('bad-signature');
  return accept({ ...body, nodeId: nodeIdOf(publicKey), publicKey, signature });
}

/** Whether there is such a batch at all: what claims another is fraud, without the dataset too. */
export function isInPlan({ round, step, index }: ClaimBody, { innerSteps, microbatches = 1 }: SamplingPlan) {
  const isNumbered = Number.isSafeInteger((round + 1) * innerSteps * microbatches);
  return step < innerSteps && index < microbatches && isNumbered;
}

/**
 * Recomputes the batch. `wrong-batch`: the claim names a batch that is not the Driver's, or another content; this is
 * fraud, provable to anyone. `wrong-labels`: the claim is right, and the labels that came with it are not the batch's;
 * whoever sent them is to blame, and it proves nothing to others. `unchecked`: the dataset is not at hand.
 */
export async function checkClaim(
  claim: Claim,
  { dataset, plan }: ClaimGround,
  labels?: Int32Array,
): Promise<Outcome<void>> {
  const { nodeId, round, step, index, content } = claim;
  const microbatches = plan.microbatches ?? 1;
  if (!isInPlan(claim, plan)) return reject('wrong-batch', `no batch ${round}/${step}/${index} in the plan`);
  try {
    const batch = await batchOf({ dataset, nodeId, round, step, index, ...plan, microbatches });
    if (contentHash(batch.tokens, batch.labels) !== content)
      return reject('wrong-batch', `not the content of batch ${round}/${step}/${index}`);
    if (labels && !equalBytes(bytesOf(labels), bytesOf(batch.labels))) return reject('wrong-labels');
    return accept(undefined);
  } catch (error) {
    if (error instanceof CodedError) return reject('unchecked', error.message);
    throw error;
  }
}

/** Whether the claim convicts its Driver. False while the dataset is not at hand. */
export async function isFraud(claim: Claim, ground: ClaimGround): Promise<boolean> {
  const checked = await checkClaim(claim, ground);
  return !checked.ok && checked.code === 'wrong-batch';
}

/**
 * The fraudulent claim in an accusation from the topic. `malformed-claim`, `bad-signature`, `not-fraud` (the accuser is
 * wrong, or lies), or `unchecked`.
 */
export async function checkAccusation(
  networkId: Uint8Array,
  message: Uint8Array,
  ground: ClaimGround,
): Promise<Outcome<Claim>> {
  const decoded = decodeClaim(networkId, message);
  if (!decoded.ok) return decoded;
  const checked = await checkClaim(decoded.value, ground);
  if (checked.ok) return reject('not-fraud');
  return checked.code === 'wrong-batch' ? decoded : checked;
}

/** Which Drivers are convicted, each with the claim that proves it to anyone. */
export interface FraudBook {
  /** Records a claim that is fraud; false when its Driver stood convicted already. */
  add(claim: Claim): boolean;
  has(node: NodeId): boolean;
  /** The node was convicted wrongly; false when it was not. */
  remove(node: NodeId): boolean;
  /** The claim that convicts the node, encoded, to be passed on. */
  evidence(node: NodeId): Uint8Array | undefined;
  /** The convicted, in order of conviction. */
  nodes(): readonly NodeId[];
  size(): number;
}

/** About 4 MiB. */
const driversMaxDefault = 16_384;

/**
 * It believes its caller: claims come checked. Beyond `driversMax` the oldest conviction is forgotten, and `onForgotten`
 * told.
 */
export function createFraudBook(
  driversMax = driversMaxDefault,
  onForgotten: (node: NodeId) => void = () => {},
): FraudBook {
  const evidence = new Map<NodeId, Uint8Array>();
  return {
    add: (claim) => {
      if (evidence.has(claim.nodeId)) return false;
      evidence.set(claim.nodeId, encodeClaim(claim));
      if (evidence.size > driversMax) {
        const oldest = evidence.keys().next().value!;
        evidence.delete(oldest);
        onForgotten(oldest);
      }
      return true;
    },
    has: (node) => evidence.has(node),
    remove: (node) => evidence.delete(node),
    evidence: (node) => evidence.get(node),
    nodes: () => [...evidence.keys()],
    size: () => evidence.size,
  };
}
