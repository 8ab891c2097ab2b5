/**
 * Whether a training claim can be true, as far as the ledger alone tells: the work exists, is the stage's, was not claimed
 * before, starts where it must, and is not faster than physics. Whether it is true, only re-execution knows.
 * Source: docs/proofs.md, the fifth check.
 */
import { equalBytes } from '../std/bytes.ts';
import { accept, type Outcome, reject } from '../std/outcome.ts';
import type { LedgerView } from './draft.ts';
import { numberKey } from './money.ts';
import { intervalsOf, type ProofBody } from './proof.ts';
import { agreedState } from './rounds.ts';
import type { LedgerConstants } from './rules.ts';
import type { ProverRow } from './tables.ts';

const fine = accept(undefined);

/** `prover`: its row before this proof. */
export function checkPlausible(
  view: LedgerView,
  body: ProofBody,
  nodeId: string,
  prover: ProverRow,
  constants: LedgerConstants,
): Outcome<void> {
  if (body.type !== 'training') return checkService(body, prover, constants);
  const work = checkWork(body, constants);
  if (!work.ok) return work;
  const order = checkOrder(body, prover);
  if (!order.ok) return order;
  const rate = checkRate(body, prover, constants);
  if (!rate.ok) return rate;
  return checkStates(view, body, nodeId, prover, constants);
}

/** What is not training is a record: nothing is minted for it, and it may claim no training. */
function checkService(body: ProofBody, prover: ProverRow, constants: LedgerConstants): Outcome<void> {
  const claimsTraining =
    body.batches !== 0 || body.states.length !== 0 || body.contribution !== null || body.endStep !== 0;
  if (
    claimsTraining ||
    body.work !== null ||
    body.firstStep !== 0 ||
    body.firstBatch !== 0 ||
    body.endBatch !== 0
  )
    return reject('batches-implausible', `${body.type} trains nothing`);
  const held = checkHeld(body, constants);
  return held.ok ? checkRate(body, prover, constants) : held;
}

function checkHeld(body: ProofBody, { stageLayers }: LedgerConstants): Outcome<void> {
  const { stage } = body;
  const layers = stageLayers[stage];
  if (layers === undefined) return reject('stage-implausible', `stage ${stage} of ${stageLayers.length}`);
  if (body.layers !== layers) return reject('layers-implausible', `${body.layers}, the stage has ${layers}`);
  const isLast = stage === stageLayers.length - 1;
  if (body.hasEmbedding !== (stage === 0) || body.hasHead !== isLast) return reject('roles-implausible');
  return fine;
}

/**
 * Steps that a round has, and exactly the batches and tokens of those steps. A stage of several claims a round at once, for
 * only a list of all its steps shows that none is in it twice; it may have lost microbatches, and have served several Drivers.
 */
function checkWork(body: ProofBody, constants: LedgerConstants): Outcome<void> {
  const held = checkHeld(body, constants);
  if (!held.ok) return held;
  const { innerSteps, microbatches, tokensPerBatch, policy, stageLayers } = constants;
  const { round, stage, firstStep, endStep, batches } = body;
  const isWhole = stageLayers.length === 1;
  const stepsMax = innerSteps * (stage === 0 ? 1 : driversServedMax);
  if (firstStep >= endStep || endStep > stepsMax || (!isWhole && firstStep > 0))
    return reject('steps-implausible', `steps ${firstStep} to ${endStep} of ${stepsMax}`);
  if ((body.work === null) !== isWhole) return reject('work-implausible', 'stages list their steps');
  const firstBatch = (round * innerSteps + firstStep) * microbatches;
  const steps = endStep - firstStep;
  const isCount = isWhole
    ? batches === steps * microbatches
    : batches >= steps && batches <= steps * microbatches;
  if (!isCount || body.firstBatch !== firstBatch || body.endBatch !== firstBatch + batches)
    return reject('batches-implausible', `${batches} batches from ${firstBatch} on, in ${steps} steps`);
  if (body.tokens !== batches * tokensPerBatch)
    return reject('tokens-implausible', `${batches} batches have ${batches * tokensPerBatch}`);
  if (body.states.length !== intervalsOf(body, policy.intervalSteps))
    return reject('intervals-implausible', `every ${policy.intervalSteps} steps a state hash`);
  return fine;
}

/** A replica of a later stage makes the steps of several Drivers, where there are more of these, or others of its stage are gone. */
export const driversServedMax = 4;

/** No step twice: rounds and steps only go on. */
function checkOrder(body: ProofBody, prover: ProverRow): Outcome<void> {
  if (prover.after === null) return fine;
  const isBefore = body.round < prover.round || (body.round === prover.round && body.firstStep < prover.step);
  if (!isBefore) return fine;
  return reject('work-claimed-before', `round ${prover.round} is proved up to step ${prover.step}`);
}

/** Tokens since the proof before; the first has as long as a proof may be old. */
function checkRate(body: ProofBody, prover: ProverRow, { policy }: LedgerConstants): Outcome<void> {
  const last = prover.recentMs.at(-1);
  const elapsedMs =
    last !== undefined ? body.timestampMs - last : prover.proofs > 0 ? hourMs : policy.proofAgeMsMax;
  if (BigInt(body.tokens) * 1000n <= BigInt(policy.tokensPerSecondMax) * BigInt(elapsedMs)) return fine;
  return reject('rate-implausible', `${body.tokens} tokens in ${elapsedMs} ms`);
}

export const hourMs = 3_600_000;

/** The round starts from the state that the network agreed on, and the node goes on from where its last proof ended. */
function checkStates(
  view: LedgerView,
  body: ProofBody,
  nodeId: string,
  prover: ProverRow,
  constants: LedgerConstants,
): Outcome<void> {
  const base = agreedBase(view, constants, body.round, body.stage);
  if (!base) return reject('round-unknown', `no agreed state of stage ${body.stage} in round ${body.round}`);
  if (!equalBytes(base, body.base)) return reject('base-not-agreed');
  const goesOn = prover.after !== null && prover.round === body.round;
  if (goesOn && !equalBytes(prover.after!, body.before))
    return reject('state-chain-broken', 'not the state that the last proof ended in');
  const listed = contributionOf(view, body.round, body.stage, nodeId);
  if (listed && body.contribution && !equalBytes(listed.blobHash, body.contribution))
    return reject('contribution-not-listed', 'another contribution was decided');
  // What was decided must be somebody's claim, or nobody could ever check it.
  if (listed && !body.contribution && body.endStep >= listed.steps)
    return reject('contribution-not-claimed', 'the decided one is not named');
  return fine;
}

/**
 * State hash of w_r of a stage: what members agreed on when they made it, what the manifest says of round 0, or what
 * the decided list names. Undefined while none of them is there.
 */
export function agreedBase(
  view: LedgerView,
  constants: LedgerConstants,
  round: number,
  stage: number,
): Uint8Array | undefined {
  if (round > 0) {
    const agreed = agreedState(view, round - 1, stage);
    if (agreed) return agreed;
  } else if (constants.initialStates?.[stage]) return constants.initialStates[stage];
  return listedBase(view, round, stage);
}

/** A list may hold contributions against another base, which the cohort leaves out: more than half must name it. */
function listedBase(view: LedgerView, round: number, stage: number): Uint8Array | undefined {
  const contributions = view.get('round', numberKey(round))?.contributions ?? [];
  const bases = contributions.filter(([of]) => of === stage).map(([, , base]) => base);
  return bases.find((base) => 2 * bases.filter((other) => equalBytes(other, base)).length > bases.length);
}

function contributionOf(
  view: LedgerView,
  round: number,
  stage: number,
  nodeId: string,
): { readonly blobHash: Uint8Array; readonly steps: number } | undefined {
  const contributions = view.get('round', numberKey(round))?.contributions;
  const found = contributions?.find(([of, node]) => of === stage && node === nodeId);
  return found && { blobHash: found[3], steps: found[4] };
}
