/** What the state forgets: rows that no rule can ask for any more. Runs at the end of a block. */
import type { Draft } from './draft.ts';
import type { BlockContext } from './rules.ts';

/** Rounds whose decided contributions and agreed hashes stay in the state. */
export const roundsKept = 16;

export function pruneRows(draft: Draft, { timeMs, constants }: BlockContext): void {
  const rounds = draft.keys('round');
  for (const key of rounds.slice(0, Math.max(0, rounds.length - roundsKept))) draft.delete('round', key);
  // Keys begin with the timestamp: the oldest stand first.
  for (const key of draft.keys('seen')) {
    if (draft.get('seen', key)!.timestampMs + constants.policy.proofAgeMsMax >= timeMs) break;
    draft.delete('seen', key);
  }
}
