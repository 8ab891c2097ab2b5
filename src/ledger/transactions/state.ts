/**
 * `state`: a voter says which state hash its stage stands on after a round. A hash stated by more than half of the stage's
 * weight is agreed, for good. Wire: [round, stage, hash b32].
 */
import { z } from 'zod';
import { equalBytes } from '../../std/bytes.ts';
import { accept, reject } from '../../std/outcome.ts';
import { counterField, hashField, parseBody, stageField } from '../body.ts';
import type { LedgerView } from '../draft.ts';
import { chainOf, numberKey } from '../money.ts';
import type { TransactionRule } from '../rules.ts';
import type { RoundRow } from '../tables.ts';

export interface StateStatement {
  /** The closed round r; the hash is of w_{r+1}. */
  readonly round: number;
  readonly stage: number;
  readonly stateHash: Uint8Array;
}

const schema = z
  .tuple([counterField, stageField, hashField])
  .transform(([round, stage, stateHash]): StateStatement => ({ round, stage, stateHash }));

/** Codes: `unknown-round`, `not-a-voter`, `wrong-stage`, `already-stated`. */
export const stateStatement: TransactionRule<StateStatement> = {
  kind: 'state',
  origin: 'author',
  parse: (body) => parseBody('state', schema, body),
  encode: ({ round, stage, stateHash }) => [round, stage, stateHash],
  apply(draft, { round, stage, stateHash }, { nodeId }) {
    const key = numberKey(round);
    const row = draft.get('round', key);
    if (!row) return reject('unknown-round', `${round}`);
    const weights = weightsOfStage(draft, stage);
    if (!weights.has(nodeId))
      return reject(draft.get('member', nodeId) ? 'wrong-stage' : 'not-a-voter', `${stage}`);
    if (row.stated.some(([ofStage, by]) => ofStage === stage && by === nodeId))
      return reject('already-stated');
    const stated: RoundRow['stated'] = [...row.stated, [stage, nodeId, stateHash]];
    const isKnown = row.agreed.some(([ofStage]) => ofStage === stage);
    const isNow = !isKnown && isAgreed(stated, stage, stateHash, weights);
    draft.put('round', key, {
      ...row,
      stated,
      agreed: isNow ? [...row.agreed, [stage, stateHash]] : row.agreed,
    });
    return accept(undefined);
  },
};

/** Voters that hold the stage. */
function weightsOfStage(view: LedgerView, stage: number): Map<string, number> {
  const { voters } = chainOf(view);
  return new Map(voters.filter(([nodeId]) => view.get('member', nodeId)?.stage === stage));
}

/**
 * More than half: each voter states once, so no two hashes of a stage can have it, and what has it once keeps it. More
 * than a third, enough for gossip (docs/diloco.md), would let a later hash overtake; more than two thirds would let one
 * silent node of three keep its stage from ever agreeing.
 */
function isAgreed(
  stated: RoundRow['stated'],
  stage: number,
  hash: Uint8Array,
  weights: ReadonlyMap<string, number>,
): boolean {
  let total = 0;
  for (const weight of weights.values()) total += weight;
  let same = 0;
  for (const [ofStage, nodeId, other] of stated) {
    if (ofStage === stage && equalBytes(other, hash)) same += weights.get(nodeId) ?? 0;
  }
  return 2 * same > total;
}
