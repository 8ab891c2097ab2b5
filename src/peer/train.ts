/**
 * The training journey of a node, top to bottom: shard → batch → stage forward → wire → next stage → loss → backward →
 * AdamW, H times → pseudo-gradient → compress → announce → fetch → screen → certify → aggregate → outer step → state
 * hash → proof → ledger → held-out loss. The Driver begins microbatches; a node of a later stage serves them. Each step
 * is a named function below; what they run on is wired in `peer.ts` and `pipeline.ts`.
 */
import type { Position, RoundResult } from '../diloco/replica.ts';
import type { RoundList } from '../diloco/round-list.ts';
import type { AgreedState } from '../diloco/statement.ts';
import { sleep } from '../std/clock.ts';
import type { Peer } from './peer.ts';
import { type ClosedRound, prove, proveFirst, stateToLedger } from './proving.ts';
import {
  emit,
  evaluateStart,
  ifAvailable,
  type Meter,
  type RoundWork,
  report,
  startMeter,
} from './report.ts';

/** Trains until the signal aborts or the network has closed `roundsMax` rounds. */
export async function train(peer: Peer, signal: AbortSignal): Promise<void> {
  await joinNetwork(peer, signal);
  if (!peer.position.contributed) peer.pipeline.begin(peer.position.round);
  await evaluateStart(peer, signal);
  // The first round also bears what it took to join.
  let meter: Meter = { startedMs: peer.options.clock.nowMs(), sent: 0, received: 0 };
  let work: RoundWork = { round: peer.position.round, losses: [], tokens: 0 };
  while (!signal.aborted && !isFinished(peer)) {
    const lag = findLag(peer);
    if (lag) {
      await catchUp(peer, lag, signal);
      continue;
    }
    work = await (peer.pipeline.isDriver ? driveRound(peer, work, signal) : serveRound(peer, signal));
    await contribute(peer, work, signal);
    const list = await decide(peer, signal);
    const closed = list && (await outerStep(peer, list, signal));
    if (!closed) {
      await recover(peer, signal);
      continue;
    }
    const { rejected, contribution } = peer;
    await standAt(peer, closed.position);
    await toLedger(peer, { round: list.round, contribution, work, position: peer.position });
    await report(peer, { work, list, closed, rejected, meter }, signal);
    meter = startMeter(peer);
  }
}

function isFinished(peer: Peer): boolean {
  return peer.position.round >= (peer.options.roundsMax ?? Number.POSITIVE_INFINITY);
}

const joinAttempts = 20;
const joinWaitMs = 250;

/** Learns from the peers that are there whether the network is ahead of us, before any work is done in vain. */
async function joinNetwork(peer: Peer, signal: AbortSignal): Promise<void> {
  const { clock, transport, network } = peer.options;
  const alone = network.members.every((member) => member.nodeId === transport.self);
  for (let attempt = 0; !alone && attempt < joinAttempts && transport.peers().length === 0; attempt++) {
    await sleep(clock, joinWaitMs, signal);
  }
  await peer.agreement.inquire(signal);
  await peer.agreement.state(peer.position.round, peer.position.stateHash);
}

/** An agreed state that we should stand on and do not: we are behind by more than the round being closed, or differ. */
function findLag(peer: Peer): AgreedState | undefined {
  const newest = peer.agreement.newest();
  if (!newest) return undefined;
  const { round, stateHash } = peer.position;
  if (newest.round > round + 1) return newest;
  if (newest.round === round + 1) return peer.coordinator.isDecided() ? undefined : newest;
  const agreed = peer.agreement.agreed(round);
  return agreed !== undefined && agreed !== stateHash ? { round, stateHash: agreed } : undefined;
}

const catchUpWaitMs = 500;
/** Statements may arrive before the decision they follow from: consensus repeats itself well within this time. */
const decisionWaitMs = 3_000;

/** Stands on the agreed state, fetched from anyone; on failure waits a little, and the caller looks again. */
async function catchUp(peer: Peer, target: AgreedState, signal: AbortSignal): Promise<void> {
  const { round } = peer.position;
  if (target.round === round + 1 && (await isDecidedSoon(peer, signal))) return;
  await peer.pipeline.end();
  const installed = await peer.resynchronise(target, signal);
  if (signal.aborted) return;
  if (!installed.ok) {
    emit(peer, { type: 'warning', code: installed.code, detail: `catching up to round ${target.round}` });
    if (await closeAgain(peer, signal)) return;
    peer.pipeline.begin(round);
    await sleep(peer.options.clock, catchUpWaitMs, signal);
    return peer.agreement.inquire(signal);
  }
  const reason = target.round === round ? 'diverged' : 'behind';
  emit(peer, { type: 'resync', fromRound: round, toRound: target.round, reason });
  await leaveRound(peer, round, await peer.options.replica.position());
}

/**
 * Closes this round with its list, though the network is further on: a cohort that went down whole holds the agreed state
 * nowhere any more, and comes to it again by the lists, as long as their blobs can be had.
 */
async function closeAgain(peer: Peer, signal: AbortSignal): Promise<boolean> {
  if (!peer.coordinator.isDecided()) return false;
  const list = await peer.coordinator.decision(signal);
  const closed = list && (await outerStep(peer, list, signal));
  if (!list || !closed) return false;
  await leaveRound(peer, list.round, closed.position);
  return true;
}

/** The steps of a round that went on without this node are claimed, too: its next claims follow from them. */
async function leaveRound(peer: Peer, round: number, position: Position): Promise<void> {
  const { contribution } = peer;
  await standAt(peer, position);
  // It was given this state, and holds it now: a cohort of two agrees on nothing without its word.
  if (position.round > 0) stateToLedger(peer, { round: position.round - 1, position: peer.position });
  const work: RoundWork = { round, losses: [], tokens: 0 };
  await prove(peer, { round, contribution, work, position: peer.position });
}

/** A list costs less than a state, and says whether this node's contribution is in it. */
async function isDecidedSoon(peer: Peer, signal: AbortSignal): Promise<boolean> {
  if (peer.coordinator.isDecided()) return false;
  const over = new AbortController();
  const end = () => over.abort();
  const cancel = peer.options.clock.setTimer(decisionWaitMs, end);
  signal.addEventListener('abort', end);
  try {
    return (await peer.coordinator.decision(over.signal)) !== undefined;
  } catch {
    return false;
  } finally {
    cancel();
    signal.removeEventListener('abort', end);
  }
}

/**
 * Steps this node should have made when it contributes. After a crash the list of the round may be decided and name a
 * contribution of which only the blob's hash is left: who holds the whole model makes the same steps again, and gets the
 * same blob.
 */
function stepsWanted(peer: Peer, made: number): number {
  if (peer.position.contributed) return 0;
  const share = peer.pipeline.stages === 1 ? peer.coordinator.ownShare() : undefined;
  if (share) return share.batches;
  if (peer.coordinator.isDecided()) return 0;
  // At least one step is made, or a network whose nodes all were held up would have nothing to decide.
  return peer.coordinator.isLate() ? Math.max(1, made) : peer.options.network.training.innerSteps;
}

/**
 * shard → batch → stage forward → wire → … → AdamW, until H steps are made or the round does not wait any longer. Goes on
 * where the replica stands, also when it comes back to a round after looking for a lag that was none.
 */
async function driveRound(peer: Peer, before: RoundWork, signal: AbortSignal): Promise<RoundWork> {
  const { network, replica, clock, checkpoints } = peer.options;
  const { innerSteps, batch, sequence } = network.training;
  peer.position = await replica.position();
  const { round } = peer.position;
  const losses = before.round === round ? [...before.losses] : [];
  let total = before.round === round ? before.tokens : 0;
  for (let step = peer.position.step; step < stepsWanted(peer, step) && !signal.aborted; ) {
    if (findLag(peer)) break;
    const startedMs = clock.nowMs();
    const taken = await ifAvailable(peer, () => innerStep(peer, round, step, signal));
    if (!taken) break;
    if (!taken.ok) {
      // The caller of this function finds out what ended the step; all that was refused is not tried at full speed.
      if (taken.code === 'aborted') break;
      emit(peer, { type: 'warning', code: taken.code, detail: `inner step ${step} of round ${round}` });
      // This node was started again, and the later stages still have what it lost: no step is made twice.
      if (taken.code === 'stale-step') step++;
      await sleep(clock, catchUpWaitMs, signal).catch(() => {});
      continue;
    }
    step++;
    const { loss, gradientNorm, microbatches } = taken.value;
    losses.push(loss);
    const tokens = microbatches * batch * sequence;
    total += tokens;
    const tokensPerSecond = (1000 * tokens) / Math.max(1, clock.nowMs() - startedMs);
    const made = { step, innerSteps, loss, gradientNorm, microbatches, tokens, tokensPerSecond };
    emit(peer, { type: 'step', round, ...made });
    await checkpoints?.maybeSnapshot();
  }
  return { round, losses, tokens: total };
}

const watchMs = 250;

/**
 * One inner step; `aborted` as soon as the round goes on without it, so that nobody waits for a stage that is gone. The
 * first is waited for: were every Driver to give it up, there would be nothing to decide when the stage is back.
 */
async function innerStep(peer: Peer, round: number, step: number, signal: AbortSignal) {
  const over = new AbortController();
  const isOver = () =>
    (peer.coordinator.isDecided() && stepsWanted(peer, step) <= step) ||
    (step > 0 && peer.pipeline.stats().starving && hasGoneOn(peer)) ||
    findLag(peer) !== undefined;
  let cancel = () => {};
  const watch = () => {
    if (isOver()) over.abort();
    else cancel = peer.options.clock.setTimer(watchMs, watch);
  };
  watch();
  try {
    return await peer.pipeline.innerStep(round, step, AbortSignal.any([signal, over.signal]));
  } finally {
    cancel();
  }
}

/** The round is late; or the next stage is through with it, for a node that was started again knows of no deadline. */
function hasGoneOn({ coordinator, pipeline }: Peer): boolean {
  return coordinator.isLate() || coordinator.isComplete(pipeline.stage + 1);
}

/** Drivers that have not been heard of for this long are not waited for; one that failed over may come back before. */
const driverIdleMs = 60_000;

/** Serves the stages before until their Drivers have made their steps, or the round does not wait any longer. */
async function serveRound(peer: Peer, signal: AbortSignal): Promise<RoundWork> {
  const { replica, clock, checkpoints } = peer.options;
  peer.position = await replica.position();
  while (!signal.aborted && !peer.position.contributed && !isServed(peer)) {
    await sleep(clock, watchMs / 5, signal).catch(() => {});
    await checkpoints?.maybeSnapshot();
  }
  return { round: peer.position.round, losses: peer.served.map(({ loss }) => loss), tokens: 0 };
}

function isServed(peer: Peer): boolean {
  if (peer.coordinator.isDecided() || findLag(peer)) return true;
  // The Drivers are through with the round, or hold it up.
  if (peer.coordinator.isComplete(0) || peer.coordinator.isLate()) return true;
  const drivers = [...peer.pipeline.served().values()];
  const { clock, network } = peer.options;
  const isOver = ({ step, heardMs }: { step: number; heardMs: number }) =>
    step + 1 >= network.training.innerSteps || clock.nowMs() - heardMs > driverIdleMs;
  return drivers.length > 0 && drivers.every(isOver);
}

/** pseudo-gradient → compress → announce; nothing if the round was closed without us or no step was made. */
async function contribute(peer: Peer, work: RoundWork, signal: AbortSignal): Promise<void> {
  const isOver = peer.coordinator.isDecided() && !peer.coordinator.ownShare();
  if (signal.aborted || isOver || findLag(peer)) return;
  const { step, round } = await peer.options.replica.position();
  // It goes on serving: a Driver may still wait for its first step, and without that there may be nothing to decide.
  if (step === 0) return peer.coordinator.pass();
  await peer.pipeline.end();
  const { blob, blobHash } = await peer.steps.contribute(round);
  // A replica that served two Drivers made more steps; they count as those of one.
  const batches = Math.min(step, peer.options.network.training.innerSteps);
  peer.contribution = blobHash;
  await peer.coordinator.contribute({ blob, blobHash }, batches);
  emit(peer, { type: 'contribution', round, batches, blobBytes: blob.length, blobHash });
  await proveFirst(peer, { round, contribution: blobHash, work });
}

/** fetch → screen → certify: waits for the decided list; undefined when the network has gone on without us. */
async function decide(peer: Peer, signal: AbortSignal): Promise<RoundList | undefined> {
  if (signal.aborted) return undefined;
  const left = new AbortController();
  const leave = () => left.abort();
  const unlisten = peer.agreement.onChange(() => {
    if (findLag(peer)) leave();
  });
  signal.addEventListener('abort', leave);
  try {
    if (findLag(peer)) return undefined;
    return await peer.coordinator.decision(left.signal);
  } catch (error) {
    if (left.signal.aborted) return undefined;
    throw error;
  } finally {
    unlisten();
    signal.removeEventListener('abort', leave);
  }
}

/** aggregate → outer step → state hash; undefined when a blob cannot be had or the list is against another base. */
async function outerStep(peer: Peer, list: RoundList, signal: AbortSignal): Promise<RoundResult | undefined> {
  const { replica, key } = peer.options;
  const closing = peer.coordinator.closing(list);
  if (!closing) return undefined;
  const blobs = await peer.coordinator.blobsOf(closing.contributions, signal);
  if (!blobs) return undefined;
  await peer.pipeline.end();
  const contributions = closing.contributions.map(({ nodeId, batches }, i) => ({
    nodeId,
    batches,
    blob: blobs[i]!,
  }));
  const closed = await replica.closeRound({ round: list.round, contributions, ownNodeId: key.nodeId });
  if (!closed.ok) {
    emit(peer, {
      type: 'warning',
      code: closed.code,
      detail: `closing round ${list.round}: ${closed.detail}`,
    });
    return undefined;
  }
  return { ...closed.value, rejected: [...closing.rejected, ...closed.value.rejected] };
}

/** state hash → proof → ledger: what others' proofs start from, and what this node has done for its reward. */
async function toLedger(peer: Peer, closed: ClosedRound): Promise<void> {
  stateToLedger(peer, closed);
  await prove(peer, closed);
}

/** The round cannot be closed here: takes the state that others closed it with, once they agree on one. */
async function recover(peer: Peer, signal: AbortSignal): Promise<void> {
  if (signal.aborted) return;
  await peer.agreement.inquire(signal);
  const newest = peer.agreement.newest();
  if (newest && newest.round > peer.position.round) return catchUp(peer, newest, signal);
  if (!findLag(peer)) await sleep(peer.options.clock, catchUpWaitMs, signal);
}

/** state hash: begins the round at this position and tells the others where we stand. */
async function standAt(peer: Peer, position: Position): Promise<void> {
  peer.position = { ...position, contributed: false };
  peer.rejected = [];
  peer.contribution = null;
  peer.served = [];
  peer.pipeline.begin(position.round, true);
  peer.coordinator.begin(position.round, position.stateHash);
  await peer.agreement.state(position.round, position.stateHash);
}
