/**
 * `round`: the decided list of contributions that closes a round of training, put in by the block's proposer. Which list
 * is right, and whether its blobs can be had, the voters have judged; the ledger keeps who contributed what. Wire: the
 * round list itself, [round, [announcement, …]] (docs/diloco.md).
 */
import { z } from 'zod';
import { fromHex } from '../../std/bytes.ts';
import type { Canonical } from '../../std/codec.ts';
import { encodeCanonical } from '../../std/codec.ts';
import { sha256 } from '../../std/hash.ts';
import { accept, type Outcome, reject } from '../../std/outcome.ts';
import { type Announcement, announcementOf } from '../announcement.ts';
import { counterField, parseBody } from '../body.ts';
import { clearanceOf } from '../clearance.ts';
import type { Draft } from '../draft.ts';
import { numberKey } from '../money.ts';
import { newestRound } from '../rounds.ts';
import type { LedgerConstants, TransactionRule } from '../rules.ts';

export interface RoundClosing {
  readonly round: number;
  /** Announcements as they stand in the list. */
  readonly entries: readonly unknown[];
}

const contributionsMax = 256;

const schema = z
  .tuple([counterField, z.array(z.unknown()).max(contributionsMax)])
  .transform(([round, entries]): RoundClosing => ({ round, entries }));

/**
 * Codes: `round-closed`, `wrong-round`, `wrong-stage`, `listed-twice`, `nothing-listed`, `contribution-not-audited`, and
 * those of announcements. An empty list closes a round in which no audit ended in time.
 */
export const round: TransactionRule<RoundClosing> = {
  kind: 'round',
  origin: 'block',
  parse: (body) => parseBody('round', schema, body),
  encode: (body) => encodeList(body),
  apply(draft, body, _proposer, { constants }) {
    const newest = newestRound(draft);
    if (newest !== undefined && body.round <= newest) return reject('round-closed', `${newest} is closed`);
    if (body.entries.length === 0 && constants.policy.auditedCohort === 0) return reject('nothing-listed');
    const listed = new Map<string, Announcement>();
    for (const entry of body.entries) {
      const one = announcementOf(constants.networkId, entry);
      if (!one.ok) return one;
      if (one.value.round !== body.round) return reject('wrong-round', `${one.value.round}`);
      if (one.value.stage >= constants.stageLayers.length) return reject('wrong-stage', `${one.value.stage}`);
      if (listed.has(one.value.nodeId)) return reject('listed-twice', one.value.nodeId);
      listed.set(one.value.nodeId, one.value);
    }
    const entered = checkClearance(draft, [...listed.values()], constants);
    if (!entered.ok) return entered;
    draft.put('round', numberKey(body.round), {
      list: sha256(encodeCanonical(encodeList(body))),
      contributions: [...listed.values()].map(({ stage, nodeId, base, blobHash, batches }) => [
        stage,
        nodeId,
        fromHex(base),
        fromHex(blobHash),
        batches,
      ]),
      stated: [],
      agreed: [],
    });
    return accept(undefined);
  },
};

/** Of a stage that few contribute to, all that is listed has stood its audit. */
function checkClearance(
  draft: Draft,
  listed: readonly Announcement[],
  constants: LedgerConstants,
): Outcome<void> {
  for (const { round, stage, nodeId, blobHash } of listed) {
    const contributors = listed.filter((one) => one.stage === stage).length;
    const one = { round, stage, nodeId, blobHash: fromHex(blobHash), contributors };
    if (clearanceOf(draft, constants, one) !== 'cleared')
      return reject('contribution-not-audited', `of ${nodeId}`);
  }
  return accept(undefined);
}

function encodeList({ round, entries }: RoundClosing): Canonical {
  return [round, entries as readonly Canonical[]];
}
