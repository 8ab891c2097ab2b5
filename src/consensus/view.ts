/**
 * The pace of a height: when its view runs, how long until its members give up on the leader, and when a member that
 * makes no progress repeats itself. A height is idle until somebody has something to decide, so a network that trains
 * for minutes between decisions burns no heights meanwhile.
 */
import { bestPath } from './chain.ts';
import { includesHonest } from './members.ts';
import {
  type ConsensusState,
  closeView,
  deltaMs,
  grown,
  isLeader,
  maySpeak,
  newView,
  send,
  tipUndecided,
  viewTimer,
} from './state.ts';
import { type HeightTally, isCertified, speakers } from './tally.ts';
import { voteDummy } from './voting.ts';

/** The paper's timeout, in Δ. */
const viewDeltas = 3;

export function enterHeight(r: ConsensusState, height: number): void {
  closeView(r);
  r.height = height;
  r.view = newView();
  if (height > r.record.height) r.record = { height };
  forgetSettled(r.tallies.get(height - r.limits.heightsAheadMax));
}

/** Of heights long left without a decision only certificates and what they name are kept; `want` brings the rest. */
function forgetSettled(tally: HeightTally | undefined): void {
  if (!tally) return;
  for (const [name, { hash }] of tally.proposals) if (!isCertified(tally, hash)) tally.proposals.delete(name);
  for (const kind of ['vote', 'dummy'] as const) if (tally.certificates[kind]) tally.votes[kind].clear();
}

/** Starts the view when there is a reason to, and rests when a decision has taken the reason away. */
export function updateActivity(r: ConsensusState): void {
  if (r.phase !== 'running') return;
  const wanted = hasReason(r);
  if (wanted && !r.view.active) activate(r);
  else if (!wanted && r.view.active) {
    closeView(r);
    r.view = newView();
  }
}

/**
 * A member alone must not be able to burn heights, so votes wake others only when an honest member is among the
 * voters; a proposal does at once, because its leader has one height in n.
 */
function hasReason(r: ConsensusState): boolean {
  if (r.awake || tipUndecided(r)) return true;
  const tally = r.tallies.get(r.height);
  if (tally && tally.proposals.size > 0) return true;
  const spoken = new Set<number>();
  for (const other of r.tallies.values()) if (other.height >= r.height) speakers(other, spoken);
  let weight = 0;
  for (const member of spoken) weight += r.members.list[member]!.weight;
  return includesHonest(r.members, weight);
}

function activate(r: ConsensusState): void {
  const { view } = r;
  view.active = true;
  const delta = deltaMs(r);
  viewTimer(r, viewDeltas * delta, () => {
    voteDummy(r);
    r.changed();
  });
  if (isLeader(r)) {
    viewTimer(r, delta / 2, () => {
      view.fillerDue = true;
      r.changed();
    });
  }
  repeatLater(r, 0);
}

function repeatLater(r: ConsensusState, attempt: number): void {
  const { deltaMs: base, retransmitGrowth, retransmitMsMax } = r.timing;
  const delayMs = grown(2 * base, retransmitGrowth, attempt, retransmitMsMax);
  viewTimer(r, delayMs, () => {
    repeat(r);
    repeatLater(r, attempt + 1);
  });
}

/** Our own statements at this height, our last promise, and the proof that this height was reached. */
function repeat(r: ConsensusState): void {
  const own = r.tallies.get(r.height);
  if (r.me >= 0 && own) {
    const { proposal } = r.record;
    if (proposal && maySpeak(r) && own.proposals.size > 0) send(r, { type: 'proposal', proposal }, true);
    for (const kind of ['vote', 'dummy'] as const) {
      const vote = own.votes[kind].get(r.me);
      if (vote) send(r, { type: 'vote', vote }, true);
    }
  }
  if (r.me < 0) return;
  const path = bestPath(r.tallies, r.tip, r.height);
  const newest = path.linked ? path.blocks.at(-1) : undefined;
  const promise = newest && r.tallies.get(newest.block.height)?.votes.finalize.get(r.me);
  if (promise) send(r, { type: 'vote', vote: promise }, true);
  const before = r.tallies.get(r.height - 1)?.certificates;
  for (const kind of ['vote', 'dummy'] as const) {
    const certificate = before?.[kind];
    if (certificate) send(r, { type: 'certificate', certificate }, true);
  }
}
