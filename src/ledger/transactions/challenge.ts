/**
 * `challenge`: the answer to a question that the beacon asks a prover once in an epoch: one leaf of the agreed state of its
 * stage. The path to the state hash is checked here; the keyed answer, which needs the leaf's bytes, by those voters who
 * hold the stage, before they vote. Wire: [block, round, stage, plan b32, leaves, root b32, leaf b32, path, answer b32].
 */
import { z } from 'zod';
import { equalBytes, fromHex, utf8 } from '../../std/bytes.ts';
import { taggedHash } from '../../std/hash.ts';
import { verifyMerkleLeaf } from '../../std/merkle.ts';
import { accept, reject } from '../../std/outcome.ts';
import { seededRandom, uniformBelow } from '../../std/random.ts';
import { counterField, hashField, parseBody, stageField } from '../body.ts';
import type { LedgerView } from '../draft.ts';
import { chainOf, credit, mint } from '../money.ts';
import type { LedgerPolicy } from '../policy.ts';
import { newestAgreed } from '../rounds.ts';
import type { TransactionRule } from '../rules.ts';
import { stateHashOfRoot } from '../state-hash.ts';

export interface Challenge {
  /** Number of the block whose seed asks. */
  readonly block: number;
  /** The agreed state: w_round of the stage. */
  readonly round: number;
  readonly stage: number;
  readonly plan: Uint8Array;
  readonly leaves: number;
  readonly root: Uint8Array;
  /** Hash of the leaf that was asked for. */
  readonly leaf: Uint8Array;
  readonly path: readonly Uint8Array[];
  /** `challengeAnswer`. */
  readonly answer: Uint8Array;
}

const schema = z
  .tuple([
    counterField,
    counterField,
    stageField,
    hashField,
    z.number().int().min(1).max(0xffff_ffff),
    hashField,
    hashField,
    z.array(hashField).max(32),
    hashField,
  ])
  .transform(
    ([block, round, stage, plan, leaves, root, leaf, path, answer]): Challenge => ({
      block,
      round,
      stage,
      plan,
      leaves,
      root,
      leaf,
      path,
      answer,
    }),
  );

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

/** Index of the leaf that is asked for. */
export function challengedLeaf(seed: Uint8Array, nodeId: string, leaves: number): number {
  return uniformBelow(seededRandom(taggedHash('neuroshard/challenge-leaf/1', seed, utf8(nodeId))), leaves);
}

/** What only who has the bytes of the leaf can say, and nobody for another node. 32 bytes. */
export function challengeAnswer(seed: Uint8Array, nodeId: string, leafBytes: Uint8Array): Uint8Array {
  return taggedHash('neuroshard/challenge/1', seed, utf8(nodeId), leafBytes);
}

/** Codes: `not-a-prover`, `not-challenged`, `already-answered`, `state-not-agreed`, `wrong-leaf`. */
export const challenge: TransactionRule<Challenge> = {
  kind: 'challenge',
  origin: 'author',
  parse: (body) => parseBody('challenge', schema, body),
  encode: ({ block, round, stage, plan, leaves, root, leaf, path, answer }) => [
    block,
    round,
    stage,
    plan,
    leaves,
    root,
    leaf,
    path,
    answer,
  ],
  apply(draft, body, { nodeId }, { constants }) {
    const { policy } = constants;
    const prover = draft.get('prover', nodeId);
    // Identities are free; those with a bond are not.
    if (!prover || prover.convicted || prover.bond === 0n) return reject('not-a-prover');
    const asked = challengeOf(draft, nodeId, policy);
    if (!asked || asked[0] !== body.block) return reject('not-challenged', `by block ${body.block}`);
    if (prover.challenged >= body.block) return reject('already-answered');
    const { round, stage, plan, leaves, root } = body;
    const agreed = newestAgreed(draft, stage);
    const isAgreed =
      agreed?.round === round - 1 && equalBytes(agreed.stateHash, stateHashOfRoot(plan, round, leaves, root));
    if (!isAgreed) return reject('state-not-agreed', `round ${round} of stage ${stage}`);
    const index = challengedLeaf(asked[1], nodeId, leaves);
    if (!verifyMerkleLeaf(root, leaves, index, body.leaf, body.path)) return reject('wrong-leaf', `${index}`);
    draft.put('prover', nodeId, { ...prover, challenged: body.block });
    credit(draft, nodeId, mint(draft, BigInt(policy.uptimeReward)));
    return accept(undefined);
  },
};
