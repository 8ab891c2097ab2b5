/**
 * `challenge`: the answer to a question that the beacon asks a prover once in an epoch: one leaf of w_r, as its stage
 * agreed on it. The path to the state hash is checked here; the keyed answer, which needs the leaf's bytes, by those voters
 * who hold the stage, before they vote. Wire: [block, round, stage, plan b32, leaves, root b32, leaf b32, path, answer b32].
 */
import { z } from 'zod';
import { equalBytes, fromHex, utf8 } from '../../std/bytes.ts';
import type { Canonical } from '../../std/codec.ts';
import { taggedHash } from '../../std/hash.ts';
import { verifyMerkleLeaf } from '../../std/merkle.ts';
import { accept, reject } from '../../std/outcome.ts';
import { seededRandom, uniformBelow } from '../../std/random.ts';
import { counterField, hashField, parseBody, stageField } from '../body.ts';
import type { LedgerView } from '../draft.ts';
import { chainOf, credit, mint } from '../money.ts';
import type { LedgerPolicy } from '../policy.ts';
import { agreedState, newestAgreed } from '../rounds.ts';
import type { TransactionRule } from '../rules.ts';
import { stateHashOfRoot } from '../state-hash.ts';
import type { ProverRow } from '../tables.ts';

export interface Challenge {
  /** Number of the block whose seed asks. */
  readonly block: number;
  /** The agreed state: w_round of the stage. */
  readonly round: number;
  readonly stage: number;
  readonly plan: Uint8Array;
  /** Of the whole state: those of w_round, then as many of v. */
  readonly leaves: number;
  readonly root: Uint8Array;
  /** Hash of the leaf that was asked for. */
  readonly leaf: Uint8Array;
  readonly path: readonly Uint8Array[];
  /** `challengeAnswer`. */
  readonly answer: Uint8Array;
}

/** In the order of the wire. */
const fields: { readonly [Field in keyof Challenge]: z.ZodType<Challenge[Field]> } = {
  block: counterField,
  round: counterField,
  stage: stageField,
  plan: hashField,
  leaves: z.number().int().min(2).max(0xffff_ffff),
  root: hashField,
  leaf: hashField,
  path: z.array(hashField).max(32),
  answer: hashField,
};
const names = Object.keys(fields) as (keyof Challenge)[];

const schema: z.ZodType<Challenge> = z
  .array(z.unknown())
  .length(names.length)
  .transform((values) => Object.fromEntries(names.map((name, i) => [name, values[i]])))
  .pipe(z.strictObject(fields));

/** In which of an epoch's blocks a node is asked: not all at once. */
function turnOf(nodeId: string, { epochBlocks }: LedgerPolicy): number {
  const turn = seededRandom(taggedHash('neuroshard/challenge-turn/1', fromHex(nodeId)));
  return uniformBelow(turn, epochBlocks);
}

/** The newest block whose seed asks this node and is still known: [number, seed]. */
export function challengeOf(
  view: LedgerView,
  nodeId: string,
  policy: LedgerPolicy,
): readonly [number, Uint8Array] | undefined {
  const { number, seeds } = chainOf(view);
  const turn = turnOf(nodeId, policy);
  for (const [back, seed] of seeds.toReversed().entries()) {
    const block = number - back;
    if (block > 0 && block % policy.epochBlocks === turn) return [block, seed];
  }
  return undefined;
}

/** The seed of a block, while it is known. */
export function seedOfBlock(view: LedgerView, block: number): Uint8Array | undefined {
  const { number, seeds } = chainOf(view);
  return block <= number ? seeds[seeds.length - 1 - (number - block)] : undefined;
}

/** Index of the leaf that is asked for: one of w_r, which come first; v follows from the rounds that made it. */
export function challengedLeaf(seed: Uint8Array, nodeId: string, leaves: number): number {
  const random = seededRandom(taggedHash('neuroshard/challenge-leaf/1', seed, utf8(nodeId)));
  return uniformBelow(random, Math.floor(leaves / 2));
}

/** What only who has the bytes of the leaf can say, and nobody for another node. 32 bytes. */
export function challengeAnswer(seed: Uint8Array, nodeId: string, leafBytes: Uint8Array): Uint8Array {
  return taggedHash('neuroshard/challenge/1', seed, utf8(nodeId), leafBytes);
}

/** Answers may name an agreed state so many rounds older than the newest: rounds are closed while they wait for a block. */
const roundsBack = 2;

/** Identities are free; those with a bond are not, nor, where nobody has one, those whose work has stood as many audits as pay waits for. */
function isEstablished(prover: ProverRow, policy: LedgerPolicy): boolean {
  if (prover.convicted) return false;
  if (prover.bond > 0n) return true;
  return policy.bondProofs === 0 && prover.audits >= policy.vestingFactor;
}

function isAgreed(view: LedgerView, { round, stage, plan, leaves, root }: Challenge): boolean {
  const newest = newestAgreed(view, stage);
  const agreed = agreedState(view, round - 1, stage);
  if (!newest || !agreed || round - 1 < newest.round - roundsBack) return false;
  return equalBytes(agreed, stateHashOfRoot(plan, round, leaves, root));
}

/** What the newest challenge asks of a node that has not answered it: [block, seed]. */
export function challengeOwed(
  view: LedgerView,
  nodeId: string,
  policy: LedgerPolicy,
): readonly [number, Uint8Array] | undefined {
  const prover = view.get('prover', nodeId);
  if (!prover || !isEstablished(prover, policy)) return undefined;
  const asked = challengeOf(view, nodeId, policy);
  return asked && prover.challenged < asked[0] ? asked : undefined;
}

/** Codes: `not-a-prover`, `not-challenged`, `already-answered`, `state-not-agreed`, `wrong-leaf`. */
export const challenge: TransactionRule<Challenge> = {
  kind: 'challenge',
  origin: 'author',
  parse: (body) => parseBody('challenge', schema, body),
  encode: (body) => names.map((name): Canonical => body[name]),
  apply(draft, body, { nodeId }, { constants }) {
    const { policy } = constants;
    const prover = draft.get('prover', nodeId);
    if (!prover || !isEstablished(prover, policy)) return reject('not-a-prover');
    const asked = challengeOf(draft, nodeId, policy);
    if (!asked || asked[0] !== body.block) return reject('not-challenged', `by block ${body.block}`);
    if (prover.challenged >= body.block) return reject('already-answered');
    const { round, stage, leaves, root } = body;
    if (!isAgreed(draft, body)) return reject('state-not-agreed', `round ${round} of stage ${stage}`);
    const index = challengedLeaf(asked[1], nodeId, leaves);
    if (!verifyMerkleLeaf(root, leaves, index, body.leaf, body.path)) return reject('wrong-leaf', `${index}`);
    draft.put('prover', nodeId, { ...prover, challenged: body.block, answered: prover.answered + 1 });
    credit(draft, nodeId, mint(draft, BigInt(policy.uptimeReward)));
    return accept(undefined);
  },
};
