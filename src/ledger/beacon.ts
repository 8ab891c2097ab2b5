/**
 * The ledger's randomness: every voter commits to a hash chain once, and each block it proposes reveals the next
 * preimage, which goes into the seed. The seed is used for what was noted two blocks before, so neither who noted it nor
 * who proposes can choose it; a proposer can only keep its block back. Holds the node's own chain, too.
 */
import { equalBytes, utf8 } from '../std/bytes.ts';
import { taggedHash } from '../std/hash.ts';
import { accept, type Outcome, reject } from '../std/outcome.ts';
import type { LedgerBlock } from './block.ts';
import type { Draft } from './draft.ts';
import { chainOf } from './money.ts';
import type { MemberRow } from './tables.ts';

/** Seeds that stay in the state: more than the blocks between noting and drawing. */
export const seedsKept = 8;
/** A preimage counts this many blocks after its commitment at the earliest: whoever commits cannot know those seeds. */
const matureBlocks = 8;
/** The last preimage of a chain begins with so many zeros; by it a new chain may be committed to. */
const endZeros = 16;

/** The hash that a preimage answers. */
export function beaconLink(preimage: Uint8Array): Uint8Array {
  return taggedHash('neuroshard/beacon/1', preimage);
}

export function firstSeed(networkId: Uint8Array): Uint8Array {
  return taggedHash('neuroshard/seed/1', networkId);
}

/** A chain's end is known by sight, so that nobody can leave a chain that it does not like. */
function isEnd(preimage: Uint8Array): boolean {
  return preimage.subarray(0, endZeros).every((byte) => byte === 0);
}

/**
 * Checks the proposer's part and makes the block's seed. Codes: `no-beacon` (a commitment or a preimage is missing),
 * `wrong-beacon` (one that is not due), `bad-preimage`.
 */
export function advanceBeacon(draft: Draft, block: LedgerBlock): Outcome<void> {
  const member = draft.get('member', block.proposer);
  if (!member) return reject('not-a-voter', block.proposer);
  const { beaconPreimage: preimage, beaconCommitment: commitment } = block;
  let counts = false;
  if (member.beacon === null) {
    if (preimage) return reject('wrong-beacon', 'a preimage of no chain');
    if (!commitment) return reject('no-beacon', 'no commitment');
  } else {
    if (!preimage) return reject('no-beacon', 'no preimage');
    if (!equalBytes(beaconLink(preimage), member.beacon)) return reject('bad-preimage');
    if (isEnd(preimage) !== (commitment !== null)) return reject('wrong-beacon', 'a chain ends at its end');
    counts = block.number >= member.beaconAt + matureBlocks;
  }
  draft.put('member', block.proposer, {
    ...member,
    beacon: commitment ?? preimage,
    beaconAt: commitment ? block.number : member.beaconAt,
    proposedAt: block.number,
  });
  const chain = chainOf(draft);
  const before = chain.seeds.at(-1)!;
  const seed = taggedHash('neuroshard/seed/1', before, counts ? preimage! : new Uint8Array());
  draft.put('chain', '', { ...chain, seeds: [...chain.seeds, seed].slice(-seedsKept) });
  return accept(undefined);
}

/** What a node puts into the block that it proposes. */
export interface BeaconPart {
  readonly beaconPreimage: Uint8Array | null;
  readonly beaconCommitment: Uint8Array | null;
}

export interface OwnBeacon {
  /**
   * For the block of this number, from the node's own member row. Undefined when the row's link is of no chain of this
   * node: then its key was used by other software, and it cannot propose.
   */
  next(member: Pick<MemberRow, 'beacon' | 'beaconAt'>, number: number): BeaconPart | undefined;
}

const linksOfChain = 1_024;

/**
 * A node's chains from its secret key and the number of the block that commits to each: nothing has to be stored, and a
 * commitment in a block that is not decided costs nothing.
 */
export function ownBeacon(secretKey: Uint8Array, networkId: Uint8Array): OwnBeacon {
  let held: { readonly number: number; readonly links: readonly Uint8Array[] } | undefined;
  const linksOf = (number: number): readonly Uint8Array[] => {
    if (held?.number === number) return held.links;
    const end = taggedHash('neuroshard/beacon-end/1', networkId, secretKey, utf8(String(number)));
    const links = [end.fill(0, 0, endZeros)];
    while (links.length <= linksOfChain) links.push(beaconLink(links.at(-1)!));
    held = { number, links };
    return links;
  };
  return {
    next: ({ beacon, beaconAt }, number) => {
      if (beacon === null) return { beaconPreimage: null, beaconCommitment: linksOf(number).at(-1)! };
      const links = linksOf(beaconAt);
      const at = links.findIndex((link) => equalBytes(link, beacon));
      if (at < 1) return undefined;
      return { beaconPreimage: links[at - 1]!, beaconCommitment: at === 1 ? linksOf(number).at(-1)! : null };
    },
  };
}
