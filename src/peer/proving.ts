/**
 * What a node says to the ledger after each round: the state hash its stage stands on, and a proof of the steps it made.
 * What the proof commits to the replica has recorded; whether it is paid for the ledger decides.
 */
import { recordedStates } from '../audit/claim.ts';
import { measuredEngines } from '../audit/tolerance.ts';
import type { Standing } from '../diloco/replica.ts';
import { isVoter } from '../ledger/members.ts';
import type { ProofBody } from '../ledger/proof.ts';
import { proof } from '../ledger/transactions/proof.ts';
import { stateStatement } from '../ledger/transactions/state.ts';
import { fromHex } from '../std/bytes.ts';
import type { HashHex } from '../std/hash.ts';
import type { Peer } from './peer.ts';
import { emit, type RoundWork } from './report.ts';

/** Refusals that say nothing of this node: it proves by another round. */
const expectedCodes: ReadonlySet<string> = new Set(['round-unknown', 'already-stated', 'unknown-round']);

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

/** proof → ledger: claims the steps of a round. Nothing is claimed of which not every state is recorded. */
export async function prove(peer: Peer, closed: ClosedRound): Promise<void> {
  const made = await proofBody(peer, closed);
  const body = made && (await peer.steps.proof(made));
  if (!body) return;
  const sent = peer.ledger.send(proof, body);
  if (!sent.ok && !expectedCodes.has(sent.code))
    emit(peer, {
      type: 'warning',
      code: sent.code,
      detail: `proof of round ${closed.round}: ${sent.detail}`,
    });
}

async function proofBody({ options, ledger }: Peer, closed: ClosedRound): Promise<ProofBody | undefined> {
  const { replica, clock, key } = options;
  const { round, contribution, work } = closed;
  const { stage, engineId } = await replica.info();
  if (!measuredEngines.includes(engineId)) return undefined;
  const { innerSteps, microbatches, tokensPerBatch, stageLayers } = ledger.constants;
  const record = await replica.record(round);
  const endStep = record?.boundaries.at(-1)?.step ?? 0;
  const states = record && recordedStates(record, 0, endStep);
  // A replica that served two Drivers made more steps than a round has; nobody could say which were whose.
  if (!record || !states || endStep < 1 || endStep > innerSteps) return undefined;
  const prover = ledger.state().get('prover', key.nodeId);
  const timestampMs = Math.max(Math.floor(clock.nowMs()), (prover?.recentMs.at(-1) ?? 0) + 1);
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
    nonce: Math.max(timestampMs, (prover?.nonce ?? 0) + 1),
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
  };
}

const lossMicronatsMax = 1_000_000_000;

/** Their mean; 0 where no loss is known. */
function lossMicronats(losses: readonly number[]): number {
  if (losses.length === 0) return 0;
  const mean = losses.reduce((sum, loss) => sum + loss, 0) / losses.length;
  return Math.min(lossMicronatsMax, Math.max(0, Math.round(1e6 * mean)));
}
