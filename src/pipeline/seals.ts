/**
 * What neighbours in a pipeline sign for each other, so that what a stage made of its rows can be shown to others: the
 * answer to a microbatch, the receipt for a step's, a Driver's norm, a callee's sums. Each has a domain of its own and the
 * network's id in what is signed. Pure; it keeps and sends nothing.
 */
import { z } from 'zod';
import { type KeyPair, nodeIdOf, publicKeyBytes, signatureBytes } from '../identity/keys.ts';
import { type Signed, signBody, verifySigned } from '../identity/signed.ts';
import type { NodeId } from '../net/transport.ts';
import { fromHex, toHex } from '../std/bytes.ts';
import type { Canonical } from '../std/codec.ts';
import type { HashHex } from '../std/hash.ts';

/** Microbatches of one step, at most. */
export const microbatchesMax = 4096;
/** Segments of all stages behind a boundary, at most. */
export const segmentsMax = 2048;

/** Whose signature, and the signature; what is signed is known to whoever checks it. */
export interface Seal {
  /** Compressed, 33 bytes; its hash is the signer's node id. */
  readonly publicKey: Uint8Array;
  /** Compact, 64 bytes, low-S. */
  readonly signature: Uint8Array;
}

/** Who signs, and for which network. */
export interface Signing {
  readonly networkId: Uint8Array;
  readonly key: KeyPair;
}

/** The Driver's inner step that something belongs to. */
export interface DriverStep {
  readonly driver: NodeId;
  readonly round: number;
  /** The Driver's count within the round. */
  readonly step: number;
}

/** What went over a boundary in both directions for one microbatch: SHA-256 of the rows as they travelled. */
export interface Exchange {
  readonly index: number;
  readonly rows: HashHex;
  readonly gradient: HashHex;
}

/** callee → caller, with each answer: these rows came from you, and this gradient went back. */
export interface AnswerBody extends DriverStep, Exchange {
  /** Of the callee. */
  readonly stage: number;
  readonly caller: NodeId;
}

/** caller → callee, before a step is taken: these rows I sent you, and these gradients I got, for all of its microbatches. */
export interface ReceiptBody extends DriverStep {
  /** Of the callee. */
  readonly stage: number;
  readonly callee: NodeId;
  /** By index, growing. */
  readonly exchanges: readonly Exchange[];
}

/** Driver → all: the L2 norm of the summed gradient of all stages. */
export interface NormBody extends DriverStep {
  readonly microbatches: number;
  readonly norm: number;
}

/** callee → caller: Σg² by segment over these microbatches, of the callee's stage and all after it. */
export interface SumsBody extends DriverStep {
  /** Of the callee. */
  readonly stage: number;
  readonly caller: NodeId;
  /** By index, growing. */
  readonly ids: readonly number[];
  readonly sums: readonly number[];
}

type Tag = 'answer' | 'receipt' | 'norm' | 'sums';

function seal(tag: Tag, networkId: Uint8Array, body: Canonical, key: KeyPair): Seal {
  const { publicKey, signature } = signBody(`neuroshard/stage-${tag}/1`, [networkId, body], key);
  return { publicKey, signature };
}

function isSealed(tag: Tag, networkId: Uint8Array, body: Canonical, by: Seal, signer: NodeId): boolean {
  const signed: Signed<Canonical> = { body: [networkId, body], ...by };
  return nodeIdOf(by.publicKey) === signer && verifySigned(`neuroshard/stage-${tag}/1`, signed);
}

const exchangeForm = ({ index, rows, gradient }: Exchange): Canonical => [
  index,
  fromHex(rows),
  fromHex(gradient),
];

const answerForm = ({ stage, caller, driver, round, step, ...exchange }: AnswerBody): Canonical => [
  stage,
  fromHex(caller),
  fromHex(driver),
  round,
  step,
  exchangeForm(exchange),
];

const receiptForm = ({ stage, callee, driver, round, step, exchanges }: ReceiptBody): Canonical => [
  stage,
  fromHex(callee),
  fromHex(driver),
  round,
  step,
  exchanges.map(exchangeForm),
];

const normForm = ({ driver, round, step, microbatches, norm }: NormBody): Canonical => [
  fromHex(driver),
  round,
  step,
  microbatches,
  norm,
];

const sumsForm = ({ stage, caller, driver, round, step, ids, sums }: SumsBody): Canonical => [
  stage,
  fromHex(caller),
  fromHex(driver),
  round,
  step,
  [...ids],
  [...sums],
];

export function signAnswer(networkId: Uint8Array, body: AnswerBody, key: KeyPair): Seal {
  return seal('answer', networkId, answerForm(body), key);
}

/** Whether the seal is the callee's. */
export function isAnswerOf(callee: NodeId, networkId: Uint8Array, body: AnswerBody, by: Seal): boolean {
  return isSealed('answer', networkId, answerForm(body), by, callee);
}

export function signReceipt(networkId: Uint8Array, body: ReceiptBody, key: KeyPair): Seal {
  return seal('receipt', networkId, receiptForm(body), key);
}

/** Whether the seal is the caller's. */
export function isReceiptOf(caller: NodeId, networkId: Uint8Array, body: ReceiptBody, by: Seal): boolean {
  return isSealed('receipt', networkId, receiptForm(body), by, caller);
}

export function signNorm(networkId: Uint8Array, body: NormBody, key: KeyPair): Seal {
  return seal('norm', networkId, normForm(body), key);
}

/** Whether the seal is that of the Driver named in the body. */
export function isNormOfDriver(networkId: Uint8Array, body: NormBody, by: Seal): boolean {
  return isSealed('norm', networkId, normForm(body), by, body.driver);
}

export function signSums(networkId: Uint8Array, body: SumsBody, key: KeyPair): Seal {
  return seal('sums', networkId, sumsForm(body), key);
}

/** Whether the seal is the callee's. */
export function isSumsOf(callee: NodeId, networkId: Uint8Array, body: SumsBody, by: Seal): boolean {
  return isSealed('sums', networkId, sumsForm(body), by, callee);
}

export const counterSchema = z.number().int().min(0).max(Number.MAX_SAFE_INTEGER);
const bytes = (length: number) => z.instanceof(Uint8Array).refine((value) => value.length === length);
export const hashSchema = bytes(32).transform(toHex);
export const indexSchema = counterSchema.max(microbatchesMax - 1);
export const normSchema = z.number().finite().min(0);
export const sumsSchema = z.array(z.number().finite().min(0)).max(segmentsMax);
/** [public key b33, signature b64]. */
export const sealSchema = z
  .tuple([bytes(publicKeyBytes), bytes(signatureBytes)])
  .transform(([publicKey, signature]): Seal => ({ publicKey, signature }));

export function sealForm({ publicKey, signature }: Seal): Canonical {
  return [publicKey, signature];
}
