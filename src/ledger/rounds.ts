/** What the ledger knows of rounds of training: which is closed, and on which state a stage stands after it. */
import { must } from '../std/assert.ts';
import type { LedgerView } from './draft.ts';
import { numberKey } from './money.ts';

/** The last closed round; undefined before the first. */
export function newestRound(view: LedgerView): number | undefined {
  const key = view.keys('round').at(-1);
  return key === undefined ? undefined : Number(key);
}

/** State hash of w_{round+1} of a stage, once it is agreed. Rounds long past are forgotten. */
export function agreedState(view: LedgerView, round: number, stage: number): Uint8Array | undefined {
  return view.get('round', numberKey(round))?.agreed.find(([ofStage]) => ofStage === stage)?.[1];
}

/** The newest round after which a stage's state is agreed: where a newcomer begins. */
export function newestAgreed(
  view: LedgerView,
  stage: number,
): { readonly round: number; readonly stateHash: Uint8Array } | undefined {
  for (const key of view.keys('round').toReversed()) {
    const row = must(view.get('round', key), 'a listed round');
    const found = row.agreed.find(([ofStage]) => ofStage === stage);
    if (found) return { round: Number(key), stateHash: found[1] };
  }
  return undefined;
}
