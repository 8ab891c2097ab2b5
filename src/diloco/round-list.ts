/**
 * The list of contributions that closes a round: the payload that consensus decides. Its order and, when there are
 * more than fit, its choice follow from hashes, so a proposer cannot favour anyone by position.
 */
import { z } from 'zod';
import { fromHex, toHex, utf8 } from '../std/bytes.ts';
import { decodeCanonical, encodeCanonical } from '../std/codec.ts';
import { type HashHex, taggedHash } from '../std/hash.ts';
import { accept, type Outcome, reject } from '../std/outcome.ts';
import { contributionsMax } from './aggregation/stream.ts';
import { type Announcement, announcementFields, announcementOf } from './announcement.ts';

export const roundListBytesMax = contributionsMax * 320 + 128;

export interface RoundList {
  readonly round: number;
  /** State hash of w_r. */
  readonly base: HashHex;
  readonly contributions: readonly Announcement[];
}

/** The place of a node in the list of a round: unpredictable before the base is known. */
function rank(base: HashHex, nodeId: string): HashHex {
  return toHex(taggedHash('neuroshard/draw/1', fromHex(base), utf8(nodeId)));
}

/**
 * The list made of these announcements, all of one round and base. When there are more than fit, members come first:
 * keys cost nothing, and whoever knows the base can try keys until they rank low.
 */
export function drawRoundList(
  round: number,
  base: HashHex,
  announcements: readonly Announcement[],
  members: ReadonlySet<string>,
): RoundList {
  const ranked = announcements.map((one) => ({ one, place: rank(base, one.nodeId) }));
  ranked.sort((a, b) => (a.place < b.place ? -1 : 1));
  const ofMembers = ranked.filter(({ one }) => members.has(one.nodeId));
  const others = ranked.filter(({ one }) => !members.has(one.nodeId));
  const chosen = new Set([...ofMembers, ...others].slice(0, contributionsMax));
  return { round, base, contributions: ranked.filter((entry) => chosen.has(entry)).map(({ one }) => one) };
}

export function encodeRoundList(list: RoundList): Uint8Array {
  return encodeCanonical([list.round, fromHex(list.base), list.contributions.map(announcementFields)]);
}

const schema = z.tuple([
  z.number().int().min(0),
  z.instanceof(Uint8Array).refine((value) => value.length === 32),
  z.array(z.unknown()).min(1).max(contributionsMax),
]);

/**
 * Decodes and checks everything that follows from the bytes alone: schema, signatures, one round and base, distinct
 * nodes in drawn order. Rejections: `malformed-list`, `bad-signature`, `wrong-round`, `wrong-base`, `wrong-order`.
 */
export function decodeRoundList(networkId: Uint8Array, payload: Uint8Array): Outcome<RoundList> {
  const decoded = decodeCanonical(payload, roundListBytesMax);
  if (!decoded.ok) return decoded;
  const parsed = schema.safeParse(decoded.value);
  if (!parsed.success) return reject('malformed-list');
  const [round, baseBytes, entries] = parsed.data;
  const base = toHex(baseBytes);
  const contributions: Announcement[] = [];
  for (const entry of entries) {
    const one = announcementOf(networkId, entry);
    if (!one.ok) return one;
    if (one.value.round !== round) return reject('wrong-round');
    if (one.value.base !== base) return reject('wrong-base');
    contributions.push(one.value);
  }
  const places = contributions.map((one) => rank(base, one.nodeId));
  const ordered = places.every((place, i) => i === 0 || places[i - 1]! < place);
  return ordered ? accept({ round, base, contributions }) : reject('wrong-order');
}
