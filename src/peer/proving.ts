/**
 * What a node says to the ledger after each round: the state hash its stage stands on, and a proof of the steps it made.
 * What the proof commits to the replica has recorded; whether it is paid for the ledger decides.
 */
import { recordedStates } from '../audit/claim.ts';
import { measuredEngines } from '../audit/tolerance.ts';
import type { RoundRecord } from '../diloco/recording.ts';
import type { Standing } from '../diloco/replica.ts';
import { isVoter } from '../ledger/members.ts';
import type { ProofBody } from '../ledger/proof.ts';
import { stateStatement } from '../ledger/transactions/state.ts';
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
export function stateToLedger({ ledger, options, pipeline }: Peer, { round, position }: ClosedRound): void {
  const { nodeId } = options.key;
  const member = ledger.state().get('member', nodeId);
  if (!member || member.stage !== pipeline.stage || !isVoter(ledger.state(), nodeId)) return;
  ledger.send(stateStatement, { round, stage: pipeline.stage, stateHash: fromHex(position.stateHash) });
}

/**
 * proof → ledger: claims the steps of a round that is over for this node, whether or not its work counted. Where not every
 * state is recorded nothing is claimed, and the node's next claims begin anew.
 */
export async function prove(peer: Peer, closed: ClosedRound): Promise<void> {
  const { replica, key, loggedRound = -1 } = peer.options;
  const { round } = closed;
  const record = await replica.record(round);
  const endStep = record?.boundaries.at(-1)?.step ?? 0;
  if (!record) {
    // Restored in the middle of a round, it claims nothing until the steps that were logged are made again.
    if (round >= loggedRound) await replica.breakChain();
    return;
  }
  const newest = peer.ledger.state().get('prover', key.nodeId);
  const isClaimed = newest && (newest.round > round || (newest.round === round && newest.step >= endStep));
  if (endStep === 0 || (newest?.after && isClaimed)) return;
  const made = await proofBody(peer, closed, record, endStep);
  if (!made) return replica.breakChain();
  undated.add(made);
  const body = await peer.steps.proof(made);
  if (body) peer.claims.add(body);
}

async function proofBody(
  { options, ledger }: Peer,
  closed: ClosedRound,
  record: RoundRecord,
  endStep: number,
): Promise<ProofBody | undefined> {
  const { replica, clock } = options;
  const { round, contribution, work } = closed;
  const { stage, engineId } = await replica.info();
  if (!measuredEngines.includes(engineId)) return undefined;
  const { innerSteps, microbatches, tokensPerBatch, stageLayers } = ledger.constants;
  const states = recordedStates(record, 0, endStep);
  // A replica that served two Drivers made more steps than a round has; nobody could say which were whose.
  if (!states || endStep > innerSteps) return undefined;
  const timestampMs = Math.floor(clock.nowMs());
  const batches = endStep * microbatches;
  const firstBatch = round * innerSteps * microbatches;
  return {
    type: 'training',
    timestampMs,
    tokens: batches * tokensPerBatch,
    batches,
    layers: stageLayers[stage.index]!,
    hasEmbedding: stage.index === 0,
    hasHead: stage.index === stageLayers.length - 1,
    nonce: timestampMs,
    round,
    stage: stage.index,
    firstStep: 0,
    endStep,
    base: fromHex(record.base),
    ...states,
    firstBatch,
    endBatch: firstBatch + batches,
    lossMicronats: lossMicronats(work.losses),
    contribution: contribution === null ? null : fromHex(contribution),
    work: null,
  };
}

const lossMicronatsMax = 1_000_000_000;

/** Their mean; 0 where no loss is known. */
function lossMicronats(losses: readonly number[]): number {
  if (losses.length === 0) return 0;
  const mean = losses.reduce((sum, loss) => sum + loss, 0) / losses.length;
  return Math.min(lossMicronatsMax, Math.max(0, Math.round(1e6 * mean)));
}
