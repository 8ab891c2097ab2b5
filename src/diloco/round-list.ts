/**
 * The list of contributions that closes a round for all stages at once: the payload that consensus decides. Its order
 * and, when there are more than fit, its choice follow from hashes, so a proposer cannot favour anyone by position.
 */
import { z } from 'zod';
import { type Announcement, announcementFields, announcementOf } from '../ledger/announcement.ts';
import { fromHex, toHex, utf8 } from '../std/bytes.ts';
import { decodeCanonical, encodeCanonical } from '../std/codec.ts';
import { type HashHex, taggedHash } from '../std/hash.ts';
import { accept, type Outcome, reject } from '../std/outcome.ts';
import { contributionsMax } from './aggregation/stream.ts';

/** Contributions of all stages together: 200 bytes each at most, and a block of consensus holds 32 KiB. */
export const listedMax = 160;
export const roundListBytesMax = listedMax * 200 + 16;

export interface RoundList {
  readonly round: number;
  /** In order of (stage, draw); those of one stage are against one base. */
  readonly contributions: readonly Announcement[];
}

/** Contributions of one stage in a list: fewer than the aggregation takes only where the stages are many. */
export function listedPerStage(stages: number): number {
  return Math.max(1, Math.min(contributionsMax, Math.floor(listedMax / stages)));
}

/** The place of a node in its stage's part of the list: unpredictable before the stage's base is known. */
function rank({ base, nodeId }: Announcement): HashHex {
  return toHex(taggedHash('neuroshard/draw/1', fromHex(base), utf8(nodeId)));
}

export interface Draw {
  readonly round: number;
  /** Of this round, distinct nodes; those of one stage against one base. */
  readonly announcements: readonly Announcement[];
  readonly stages: number;
  /** Members, and the stage of each. */
  readonly members: ReadonlyMap<string, number>;
}

/**
 * The list made of these announcements. When a stage has more than fit, the members of its cohort come first: keys cost
 * nothing, and whoever knows the base can try keys until they rank low.
 */
export function drawRoundList({ round, announcements, stages, members }: Draw): RoundList {
  const most = listedPerStage(stages);
  const contributions = Array.from({ length: stages }, (_, stage) => {
    const ranked = announcements
      .filter((one) => one.stage === stage)
      .map((one) => ({ one, place: rank(one) }))
      .sort((a, b) => (a.place < b.place ? -1 : 1));
    const isOfCohort = ({ one }: { one: Announcement }) => members.get(one.nodeId) === stage;
    const others = ranked.filter((entry) => !isOfCohort(entry));
    const chosen = new Set([...ranked.filter(isOfCohort), ...others].slice(0, most));
    return ranked.filter((entry) => chosen.has(entry)).map(({ one }) => one);
  });
  return { round, contributions: contributions.flat() };
}

export function encodeRoundList(list: RoundList): Uint8Array {
  return encodeCanonical([list.round, list.contributions.map(announcementFields)]);
}

const schema = z.tuple([z.number().int().min(0), z.array(z.unknown()).max(listedMax)]);

/**
 * Decodes and checks everything that follows from the bytes alone: schema, signatures, one round, distinct nodes in
 * drawn order, one base and no more than fit in a stage. Rejections: `malformed-list`, `malformed-announcement`,
 * `bad-signature`, `wrong-round`, `wrong-base`, `wrong-order`, `listed-twice`, `too-many-contributors`.
 */
export function decodeRoundList(networkId: Uint8Array, payload: Uint8Array): Outcome<RoundList> {
  const decoded = decodeCanonical(payload, roundListBytesMax);
  if (!decoded.ok) return decoded;
  const parsed = schema.safeParse(decoded.value);
  if (!parsed.success) return reject('malformed-list');
  const [round, entries] = parsed.data;
  const contributions: Announcement[] = [];
  for (const entry of entries) {
    const one = announcementOf(networkId, entry);
    if (!one.ok) return one;
    if (one.value.round !== round) return reject('wrong-round');
    contributions.push(one.value);
  }
  const checked = checkOrder(contributions);
  return checked.ok ? accept({ round, contributions }) : checked;
}

function checkOrder(list: readonly Announcement[]): Outcome<void> {
  if (new Set(list.map(({ nodeId }) => nodeId)).size < list.length) return reject('listed-twice');
  for (const [i, one] of list.entries()) {
    const before = list[i - 1];
    if (!before || before.stage < one.stage) continue;
    if (before.stage > one.stage) return reject('wrong-order');
    if (before.base !== one.base) return reject('wrong-base');
    if (rank(before) >= rank(one)) return reject('wrong-order');
    if (list[i - contributionsMax]?.stage === one.stage) return reject('too-many-contributors');
  }
  return accept(undefined);
}

/** What a list says of one stage. */
export interface StageShare {
  /** In drawn order; empty when the stage goes on without an outer step. */
  readonly contributions: readonly Announcement[];
  /** What they are against, if there are any. */
  readonly base: HashHex | undefined;
}

export function shareOf(list: RoundList, stage: number): StageShare {
  const contributions = list.contributions.filter((one) => one.stage === stage);
  return { contributions, base: contributions[0]?.base };
}
