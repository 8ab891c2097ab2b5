/**
 * Helping those who lag: saying again what we know of a height to whoever shows that it has not left it, passing on
 * certificates, and asking for what we miss ourselves. Answers are staggered by member and withheld when somebody
 * else was faster, so that a lost message costs few bytes.
 */
import { equalBytes, toHex } from '../std/bytes.ts';
import { noHash } from './certificate.ts';
import { bestPath, finalizedPath, type Missing, notarizedPath, parentPath } from './chain.ts';
import { certifiedRun } from './decided.ts';
import type { Proposal } from './messages.ts';
import { type ConsensusState, grown, heightOfOthers, send } from './state.ts';

const assistsMax = 64;
const wantsMax = 4;
const withheldHeightsMax = 256;

/** Says what we know of `height` soon, unless by then someone else did or `needless` holds. */
export function assist(
  r: ConsensusState,
  height: number,
  asker: number,
  withBlocks: boolean,
  needless: () => boolean,
): void {
  if (r.me < 0 || r.phase !== 'running') return;
  const pending = r.assists.get(height);
  if (pending) {
    pending.withBlocks ||= withBlocks;
    return;
  }
  if (r.assists.size >= assistsMax) return;
  const count = r.members.list.length;
  const rank = (((r.me - asker - 1) % count) + count) % count;
  const askedMs = r.clock.nowMs();
  const cancel = r.clock.setTimer((r.timing.deltaMs * (rank + 1)) / (count + 1), () => {
    const { withBlocks: blocks } = r.assists.get(height)!;
    r.assists.delete(height);
    const heardMs = r.heard.get(height);
    if (needless()) return;
    if (heardMs !== undefined && heardMs >= askedMs && mayWithhold(r, height, rank)) return;
    if (height <= r.tip.height) tellDecided(r, height, blocks);
    else tellUndecided(r, height, blocks);
  });
  r.assists.set(height, { withBlocks, cancel });
}

/**
 * What we heard may have been said to us and not to who asks, by somebody hostile: each further time that we are asked
 * about a height, one more member answers all the same.
 */
function mayWithhold(r: ConsensusState, height: number, rank: number): boolean {
  const times = r.withheld.get(height) ?? 0;
  r.withheld.delete(height);
  if (times > rank) return false;
  r.withheld.set(height, times + 1);
  if (r.withheld.size > withheldHeightsMax) r.withheld.delete(r.withheld.keys().next().value!);
  return true;
}

function tellDecided(r: ConsensusState, height: number, withBlocks: boolean): void {
  const bound = { blocks: r.limits.answerHeightsMax, bytes: r.limits.messageBytesMax - 1024 };
  if (withBlocks) {
    const blocks = certifiedRun(r.decided, height - 1, bound);
    if (blocks.length > 0) send(r, { type: 'decided', blocks }, true);
    return;
  }
  const certified = r.decided.find(({ block, certificate }) => block.height >= height && certificate);
  if (certified?.certificate) send(r, { type: 'certificate', certificate: certified.certificate }, true);
}

function tellUndecided(r: ConsensusState, height: number, withBlocks: boolean): void {
  const top = Math.min(r.height, height + (withBlocks ? r.limits.answerHeightsMax - 1 : 0));
  for (let at = height; at <= top; at++) {
    const tally = r.tallies.get(at);
    if (!tally) continue;
    const { vote, dummy, finalize } = tally.certificates;
    const proposal = vote && tally.proposals.get(toHex(vote.blockHash));
    if (proposal && withBlocks) send(r, { type: 'proposal', proposal }, true);
    if (vote) send(r, { type: 'certificate', certificate: vote }, true);
    // A dummy beside a notarized block is needed by those who build above another chain.
    if (dummy && (withBlocks || !vote)) send(r, { type: 'certificate', certificate: dummy }, true);
    if (finalize) send(r, { type: 'certificate', certificate: finalize }, true);
  }
}

/** What we would need to move on and have not: blocks with their notarizations, or dummies (`noHash`). */
export function missing(r: ConsensusState): Missing[] {
  const wanted: Missing[] = [];
  const note = (path: { linked: boolean; missing?: Missing }) => {
    const item = path.missing;
    if (!item || wanted.length >= wantsMax) return;
    if (wanted.some((other) => other.height === item.height && equalBytes(other.hash, item.hash))) return;
    wanted.push(item);
  };
  for (const { height, certificates } of r.tallies.values()) {
    if (certificates.finalize) note(finalizedPath(r.tallies, r.tip, height, certificates.finalize.blockHash));
    else if (certificates.vote && height <= r.height) {
      note(notarizedPath(r.tallies, r.tip, height, certificates.vote.blockHash));
    }
  }
  const proposals: Iterable<Proposal> = r.tallies.get(r.height)?.proposals.values() ?? [];
  for (const { block } of proposals) note(parentPath(r.tallies, r.tip, block));
  note(bestPath(r.tallies, r.tip, r.height));
  if (wanted.length === 0 && heightOfOthers(r) > r.height) wanted.push({ height: r.height, hash: noHash });
  return wanted;
}

/** While something is missing, asks for it at growing intervals and tells the application that we are behind. */
export function seekMissing(r: ConsensusState): void {
  if (r.phase !== 'running') return;
  if (missing(r).length === 0) {
    r.catchUp?.cancel();
    r.catchUp = undefined;
    return;
  }
  const { height } = r;
  if (r.catchUp && r.catchUp.height === height) return;
  r.catchUp?.cancel();
  seekLater(r, 0);
}

function seekLater(r: ConsensusState, attempt: number): void {
  const { height } = r;
  const { retransmitGrowth, retransmitMsMax } = r.timing;
  const delayMs = grown(r.timing.deltaMs / 2, retransmitGrowth, attempt, retransmitMsMax);
  const cancel = r.clock.setTimer(delayMs, () => {
    r.catchUp = undefined;
    const wanted = missing(r);
    if (wanted.length === 0) return;
    for (const { height: at, hash } of wanted) send(r, { type: 'want', height: at, hash }, true);
    const others = heightOfOthers(r);
    if (others > r.height) r.application.behind?.(others - 1);
    seekLater(r, attempt + 1);
  });
  r.catchUp = { attempt, height, cancel };
}
