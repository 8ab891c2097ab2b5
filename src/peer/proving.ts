/**
 * What a node says to the ledger after each round: the state hash its stage stands on, and a proof of the steps it made.
 * What the proof commits to the replica has recorded; whether it is paid for the ledger decides.
 */
import { recordedStates } from '../audit/claim.ts';
import { measuredEngines } from '../audit/tolerance.ts';
import type { RoundRecord } from '../diloco/recording.ts';
import type { Standing } from '../diloco/replica.ts';
import { isAuditedFirst } from '../ledger/clearance.ts';
import { isVoter } from '../ledger/members.ts';
import { driversServedMax } from '../ledger/plausibility.ts';
import type { ProofBody } from '../ledger/proof.ts';
import { stateStatement } from '../ledger/transactions/state.ts';
import { workHash, workOf } from '../pipeline/work-list.ts';
import { fromHex } from '../std/bytes.ts';
import type { HashHex } from '../std/hash.ts';
import { undated } from './claim-sending.ts';
import type { Peer } from './peer.ts';
import type { RoundWork } from './report.ts';

export interface ClosedRound {
  readonly round: number;
  /** What this node contributed, if it did. */
  readonly contribution: HashHex | null;
  readonly work: RoundWork;
  /** Where the node stands now. */
  readonly position: Standing;
}

/** state hash → ledger: a voter of the stage says what it stands on. */
export function stateToLedger(
  { ledger, options, pipeline }: Peer,
  { round, position }: Pick<ClosedRound, 'round' | 'position'>,
): void {
  const { nodeId } = options.key;
  const member = ledger.state().get('member', nodeId);
  if (!member || member.stage !== pipeline.stage || !isVoter(ledger.state(), nodeId)) return;
  ledger.send(stateStatement, { round, stage: pipeline.stage, stateHash: fromHex(position.stateHash) });
}

/**
 * proof → ledger: claims the steps of a round that is over for this node, whether or not its work counted. Where not every
 * state or step is recorded nothing is claimed, and the node's next claims begin anew.
 */
export async function prove(peer: Peer, closed: ClosedRound): Promise<void> {
  const { replica, loggedRound = -1 } = peer.options;
  const { round } = closed;
  if (peer.claimedFirst === round) return;
  // Where nothing is recorded nothing is claimed, and no chain begins.
  if (!(await isRecording(peer))) return;
  // Begun again in the same round: what it did before is on no record any more, and moments follow from it.
  if (closed.position.round === round) return replica.breakChain();
  const record = await replica.record(round);
  if (!record) {
    // Restored in the middle of a round, it claims nothing until the steps that were logged are made again. Where the round
    // after is recorded already, a new chain has begun with it.
    const hasBegun = (await replica.record(closed.position.round)) !== undefined;
    if (round >= loggedRound && !hasBegun) await replica.breakChain();
    return;
  }
  await claim(peer, closed, record);
}

/**
 * contribution → proof → ledger, while the round is open: where a stage has few contributors the round takes in only what was
 * audited.
 */
export async function proveFirst(peer: Peer, open: Pick<ClosedRound, 'round' | 'contribution' | 'work'>) {
  const { options, ledger, pipeline } = peer;
  const place = { round: open.round, stage: pipeline.stage, nodeId: options.key.nodeId };
  if (!isAuditedFirst(ledger.state(), ledger.constants, place) || !(await isRecording(peer))) return;
  const record = await options.replica.record(open.round);
  if (!record) return;
  peer.claimedFirst = open.round;
  await claim(peer, { ...open, position: peer.position }, record);
}

async function claim(peer: Peer, closed: ClosedRound, record: RoundRecord): Promise<void> {
  const { replica, key } = peer.options;
  const { round } = closed;
  const endStep = record.boundaries.at(-1)?.step ?? 0;
  const newest = peer.ledger.state().get('prover', key.nodeId);
  const isClaimed = newest && (newest.round > round || (newest.round === round && newest.step >= endStep));
  if (endStep === 0 || (newest?.after && isClaimed)) return;
  const made = await proofBody(peer, closed, record, endStep);
  if (!made) return replica.breakChain();
  undated.add(made);
  const body = await peer.steps.proof(made);
  if (body) peer.claims.add(body);
}

/** An engine whose rounding was measured; and of one stage of several, somewhere to keep rows. */
async function isRecording({ options, pipeline }: Peer): Promise<boolean> {
  const { engineId } = await options.replica.info();
  return measuredEngines.includes(engineId) && (pipeline.stages === 1 || pipeline.work !== undefined);
}

async function proofBody(
  { options, ledger, pipeline }: Peer,
  closed: ClosedRound,
  record: RoundRecord,
  endStep: number,
): Promise<ProofBody | undefined> {
  const { clock } = options;
  const { round, contribution, work } = closed;
  const { innerSteps, microbatches, tokensPerBatch, stageLayers } = ledger.constants;
  const { stage, stages } = pipeline;
  const states = recordedStates(record, 0, endStep);
  const stepsMax = innerSteps * (stage === 0 ? 1 : driversServedMax);
  if (!states || endStep > stepsMax) return undefined;
  const steps = stages === 1 ? undefined : await pipeline.work?.stepsOf(round);
  if (stages > 1 && steps?.length !== endStep) return undefined;
  const batches = steps
    ? steps.reduce((sum, step) => sum + step.microbatches.length, 0)
    : endStep * microbatches;
  const timestampMs = Math.floor(clock.nowMs());
  const firstBatch = round * innerSteps * microbatches;
  return {
    type: 'training',
    timestampMs,
    tokens: batches * tokensPerBatch,
    batches,
    layers: stageLayers[stage]!,
    hasEmbedding: stage === 0,
    hasHead: stage === stages - 1,
    nonce: timestampMs,
    round,
    stage,
    firstStep: 0,
    endStep,
    base: fromHex(record.base),
    ...states,
    firstBatch,
    endBatch: firstBatch + batches,
    lossMicronats: lossMicronats(work.losses),
    contribution: contribution === null ? null : fromHex(contribution),
    work: steps ? fromHex(workHash(workOf(steps))) : null,
  };
}

const lossMicronatsMax = 1_000_000_000;

/** Their mean; 0 where no loss is known. */
function lossMicronats(losses: readonly number[]): number {
  if (losses.length === 0) return 0;
  const mean = losses.reduce((sum, loss) => sum + loss, 0) / losses.length;
  return Math.min(lossMicronatsMax, Math.max(0, Math.round(1e6 * mean)));
}
