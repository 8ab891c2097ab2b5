/**
 * The undecided part of the chain: which notarized blocks link back to the decided tip. A block counts only when its
 * parent does and every height between them is a notarized dummy, which is what keeps a decided block in every later
 * chain (Chan and Pass 2023, section 2). Pure functions over the tallies.
 */
import { equalBytes, toHex } from '../std/bytes.ts';
import { noHash } from './certificate.ts';
import type { Proposal } from './messages.ts';
import type { HeightTally } from './tally.ts';
import type { Block } from './types.ts';

export interface Tip {
  readonly height: number;
  readonly hash: Uint8Array;
}

export type Tallies = ReadonlyMap<number, HeightTally>;

/** What must be had before a chain can be judged: a block with its notarization, or (`noHash`) a dummy's. */
export interface Missing {
  readonly height: number;
  readonly hash: Uint8Array;
}

export type Path =
  /** Undecided proposals from just above the tip to the block asked about, oldest first. */
  | { readonly linked: true; readonly blocks: readonly Proposal[] }
  /** `missing` is absent when the block contradicts what is decided and can never be linked. */
  | { readonly linked: false; readonly missing?: Missing };

/** The chain that ends in the notarized block `hash` at `height`, or in the tip itself. */
export function notarizedPath(tallies: Tallies, tip: Tip, height: number, hash: Uint8Array): Path {
  const blocks: Proposal[] = [];
  let at: Tip = { height, hash };
  while (at.height > tip.height) {
    const tally = tallies.get(at.height);
    const proposal = tally?.proposals.get(toHex(at.hash));
    const notarization = tally?.certificates.vote;
    if (!proposal || !notarization) return { linked: false, missing: at };
    if (!equalBytes(notarization.blockHash, at.hash)) return { linked: false };
    const gap = missingDummy(tallies, tip, proposal.block);
    if (gap) return { linked: false, missing: gap };
    blocks.unshift(proposal);
    at = { height: proposal.block.parentHeight, hash: proposal.block.parentHash };
  }
  if (at.height !== tip.height || !equalBytes(at.hash, tip.hash)) return { linked: false };
  return { linked: true, blocks };
}

/** The chain that a proposal extends, dummies between included. */
export function parentPath(tallies: Tallies, tip: Tip, block: Block): Path {
  const gap = missingDummy(tallies, tip, block);
  if (gap) return { linked: false, missing: gap };
  return notarizedPath(tallies, tip, block.parentHeight, block.parentHash);
}

/** A chain ending at a finalized block needs no notarizations below it: its hash and the quorum vouch for all. */
export function finalizedPath(tallies: Tallies, tip: Tip, height: number, hash: Uint8Array): Path {
  const blocks: Proposal[] = [];
  let at: Tip = { height, hash };
  while (at.height > tip.height) {
    const proposal = tallies.get(at.height)?.proposals.get(toHex(at.hash));
    if (!proposal) return { linked: false, missing: at };
    blocks.unshift(proposal);
    at = { height: proposal.block.parentHeight, hash: proposal.block.parentHash };
  }
  if (at.height !== tip.height || !equalBytes(at.hash, tip.hash)) return { linked: false };
  return { linked: true, blocks };
}

/**
 * The best chain to extend at `height`: of the highest notarized block below it that is linked, with dummies above.
 * A block is preferred to the dummy of its height. An empty list stands for the tip itself.
 */
export function bestPath(tallies: Tallies, tip: Tip, height: number): Path {
  for (let below = height - 1; below > tip.height; below--) {
    const certificates = tallies.get(below)?.certificates;
    if (certificates?.vote) {
      const path = notarizedPath(tallies, tip, below, certificates.vote.blockHash);
      if (path.linked || !certificates.dummy) return path;
    } else if (!certificates?.dummy) {
      return { linked: false, missing: { height: below, hash: noHash } };
    }
  }
  return { linked: true, blocks: [] };
}

function missingDummy(tallies: Tallies, tip: Tip, block: Block): Missing | undefined {
  const lowest = Math.max(block.parentHeight, tip.height) + 1;
  for (let height = block.height - 1; height >= lowest; height--) {
    if (!tallies.get(height)?.certificates.dummy) return { height, hash: noHash };
  }
  return undefined;
}
