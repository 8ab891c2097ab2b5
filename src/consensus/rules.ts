/**
 * The rules of Simplex that move a replica: decide what is finalized, leave a height whose block or dummy is notarized,
 * then speak at the new one. Run after every event until nothing moves.
 * Source: Chan and Pass, "Simplex Consensus" (eprint 2023/463), section 2.
 */
import { assist, seekMissing } from './assist.ts';
import { finalizedPath, notarizedPath } from './chain.ts';
import { decide } from './decided.ts';
import { type ConsensusState, everyoneBeyond, fail } from './state.ts';
import { enterHeight, updateActivity } from './view.ts';
import { speak, voteFinalize } from './voting.ts';

export function applyRules(r: ConsensusState): void {
  while (decideFinalized(r) || leaveDecided(r) || leaveNotarized(r));
  if (r.height - r.tip.height > r.limits.undecidedHeightsMax) {
    fail(r, new Error(`no decision in ${r.limits.undecidedHeightsMax} heights`));
    return;
  }
  updateActivity(r);
  speak(r);
  seekMissing(r);
}

/** More than 2/3 finalize votes decide the block and everything before it. */
function decideFinalized(r: ConsensusState): boolean {
  for (const { height, certificates } of r.tallies.values()) {
    const certificate = certificates.finalize;
    if (!certificate) continue;
    const path = finalizedPath(r.tallies, r.tip, height, certificate.blockHash);
    if (!path.linked) continue;
    const blocks = path.blocks.map(({ block, hash }) => {
      const own = r.tallies.get(block.height)?.certificates.finalize;
      return { block, hash, ...(own && { certificate: own }) };
    });
    decide(r, blocks);
    passOn(r, height);
    return true;
  }
  return false;
}

function leaveDecided(r: ConsensusState): boolean {
  if (r.height > r.tip.height) return false;
  enterHeight(r, r.tip.height + 1);
  return true;
}

/** A notarized chain of this height lets the member go on, with the promise that it saw no reason for the dummy. */
function leaveNotarized(r: ConsensusState): boolean {
  const { height } = r;
  const certificates = r.tallies.get(height)?.certificates;
  const notarization = certificates?.vote;
  if (notarization && notarizedPath(r.tallies, r.tip, height, notarization.blockHash).linked) {
    voteFinalize(r, notarization.blockHash);
  } else if (!certificates?.dummy) {
    return false;
  }
  enterHeight(r, height + 1);
  passOn(r, height);
  return true;
}

/** Members that have not shown to have left the height get what lets them leave it. */
function passOn(r: ConsensusState, height: number): void {
  assist(r, height, height, false, () => everyoneBeyond(r, height));
}
