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
import { accept, reject } from '../../std/outcome.ts';
import { type Announcement, announcementOf } from '../announcement.ts';
import { counterField, parseBody } from '../body.ts';
import { numberKey } from '../money.ts';
import { newestRound } from '../rounds.ts';
import type { TransactionRule } from '../rules.ts';

export interface RoundClosing {
  readonly round: number;
  /** Announcements as they stand in the list. */
  readonly entries: readonly unknown[];
}

const contributionsMax = 256;

const schema = z
  .tuple([counterField, z.array(z.unknown()).min(1).max(contributionsMax)])
  .transform(([round, entries]): RoundClosing => ({ round, entries }));

/** Codes: `round-closed`, `wrong-round`, `wrong-stage`, `listed-twice`, and those of announcements. */
export const round: TransactionRule<RoundClosing> = {
  kind: 'round',
  origin: 'block',
  parse: (body) => parseBody('round', schema, body),
  encode: (body) => encodeList(body),
  apply(draft, body, _proposer, { constants }) {
    const newest = newestRound(draft);
    if (newest !== undefined && body.round <= newest) return reject('round-closed', `${newest} is closed`);
    const listed = new Map<string, Announcement>();
    for (const entry of body.entries) {
      const one = announcementOf(constants.networkId, entry);
      if (!one.ok) return one;
      if (one.value.round !== body.round) return reject('wrong-round', `${one.value.round}`);
      if (one.value.stage >= constants.stageLayers.length) return reject('wrong-stage', `${one.value.stage}`);
      if (listed.has(one.value.nodeId)) return reject('listed-twice', one.value.nodeId);
      listed.set(one.value.nodeId, one.value);
    }
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

function encodeList({ round, entries }: RoundClosing): Canonical {
  return [round, entries as readonly Canonical[]];
}
