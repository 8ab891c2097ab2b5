/**
 * `proof`: a claim of neural work. Five checks, each with its own codes: the signature (before this rule), age, replay,
 * rate, plausibility. A training claim that passes them mints its reward into a duty. Wire: `proofFields`.
 */
import { accept, type Outcome, reject } from '../../std/outcome.ts';
import { isAuditedFirst } from '../clearance.ts';
import type { Draft } from '../draft.ts';
import { noteDuty } from '../duties.ts';
import { accountOf, chainOf, credit, mint } from '../money.ts';
import { checkPlausible, hourMs } from '../plausibility.ts';
import type { LedgerPolicy } from '../policy.ts';
import { intervalsOf, type ProofBody, proofFields, proofKey, proofOf } from '../proof.ts';
import { proofReward, replicasOf } from '../reward.ts';
import { newestRound } from '../rounds.ts';
import type { Author, BlockContext, LedgerConstants, TransactionRule } from '../rules.ts';
import { isConvicted } from '../slash.ts';
import type { ProverRow } from '../tables.ts';
import { isBonded, proverOf, releaseVested, ripenessOf } from '../vesting.ts';

/**
 * Codes: `prover-convicted`; `proof-too-old`, `proof-from-future`; `proof-replayed`, `proof-out-of-order`;
 * `too-many-proofs`; and those of `checkPlausible`.
 */
export const proof: TransactionRule<ProofBody> = {
  kind: 'proof',
  origin: 'author',
  parse: proofOf,
  encode: proofFields,
  apply(draft, body, author, context) {
    const prover = proverOf(draft, author);
    if (prover.convicted) return reject('prover-convicted');
    const { policy, networkId } = context.constants;
    const aged = checkAge(body, context.timeMs, policy);
    if (!aged.ok) return aged;
    const key = proofKey(networkId, author.nodeId, body);
    const seenKey = `${String(body.timestampMs).padStart(16, '0')}/${key}`;
    if (draft.get('seen', seenKey)) return reject('proof-replayed');
    const ordered = checkOrderAndRate(body, prover, policy);
    if (!ordered.ok) return ordered;
    const plausible = checkPlausible(draft, body, author.nodeId, prover, context.constants);
    if (!plausible.ok) return plausible;
    draft.put('seen', seenKey, { timestampMs: body.timestampMs });
    accepted(draft, body, author, prover, context, key);
    return accept(undefined);
  },
};

/** Against block time, which voters bound against their own clocks: the result is the same everywhere. */
function checkAge(body: ProofBody, timeMs: number, policy: LedgerPolicy): Outcome<void> {
  const ageMs = timeMs - body.timestampMs;
  if (ageMs > policy.proofAgeMsMax) return reject('proof-too-old', `${ageMs} ms`);
  if (-ageMs > policy.clockSkewMsMax) return reject('proof-from-future', `${-ageMs} ms`);
  return accept(undefined);
}

/** Timestamps only grow, so the hour before the newest one is the fullest. */
function checkOrderAndRate(body: ProofBody, prover: ProverRow, policy: LedgerPolicy): Outcome<void> {
  const last = prover.recentMs.at(-1);
  if (body.nonce <= prover.nonce || (last !== undefined && body.timestampMs <= last))
    return reject('proof-out-of-order', 'nonce and timestamp must grow');
  if (recentIn(prover, body.timestampMs).length >= policy.proofsPerHourMax)
    return reject('too-many-proofs', `${policy.proofsPerHourMax} in an hour`);
  return accept(undefined);
}

function recentIn(prover: ProverRow, timestampMs: number): readonly number[] {
  return prover.recentMs.filter((each) => each > timestampMs - hourMs);
}

function accepted(
  draft: Draft,
  body: ProofBody,
  author: Author,
  prover: ProverRow,
  context: BlockContext,
  key: string,
): void {
  const { nodeId } = author;
  const { constants, proposer } = context;
  const recentMs = [...recentIn(prover, body.timestampMs), body.timestampMs];
  const counted = { ...prover, nonce: body.nonce, recentMs };
  if (body.type !== 'training') {
    draft.put('prover', nodeId, counted);
    return;
  }
  const number = prover.proofs + 1;
  draft.put('prover', nodeId, {
    ...counted,
    proofs: number,
    after: body.states.at(-1)!,
    round: body.round,
    step: body.endStep,
    openDuties: prover.openDuties + 1,
  });
  const { stake } = accountOf(draft, nodeId);
  const replicas = replicasOf(draft, constants, body.round, body.stage);
  const minted = mint(draft, proofReward(constants, { body, stake, replicas }));
  const { policy } = constants;
  const asked = isConvicted(draft, proposer) ? 0n : BigInt(policy.feePerProof);
  const fee = minted < asked ? minted : asked;
  credit(draft, proposer, fee);
  const reward = minted - fee;
  const first = isBonded(policy, prover, number, reward);
  const intervals = intervalsOf(body, policy.intervalSteps);
  const contribution = awaited(draft, body, nodeId, constants);
  noteDuty(draft, context, { key, prover: nodeId, proof: number, first, intervals, reward, contribution });
  releaseVested(draft, nodeId, ripenessOf(policy, chainOf(draft).provers));
}

/** Its contribution, if the round is not closed and takes it in only after this audit. */
function awaited(
  draft: Draft,
  { round, stage, contribution }: ProofBody,
  nodeId: string,
  constants: LedgerConstants,
): Uint8Array | null {
  const isOpen = (newestRound(draft) ?? -1) < round;
  return isOpen && isAuditedFirst(draft, constants, { round, stage, nodeId }) ? contribution : null;
}
