/**
 * The audit of one interval of one claim, top to bottom: form → evidence → chain → batches → re-execution → finding. Every
 * honest auditor with the wasm engine that gets the evidence comes to the same finding and the same recomputed hash. It
 * knows no duties, no votes and no money.
 */
import {
  type LocalPlace,
  leavesPerTensor,
  localTensors,
  type StateIndex,
  zeroLeafHashes,
} from '../diloco/local-state.ts';
import type { Dataset } from '../genesis/dataset.ts';
import { driversServedMax } from '../ledger/plausibility.ts';
import { intervalsOf } from '../ledger/proof.ts';
import { assert, must } from '../std/assert.ts';
import { equalBytes } from '../std/bytes.ts';
import type { HashHex } from '../std/hash.ts';
import { accept, type Outcome, type Rejection } from '../std/outcome.ts';
import { intervalRange, type TrainingClaim, wantedStates } from './claim.ts';
import type { HeldState, WantedState } from './evidence.ts';
import type { Finding, FindingCode, ReExecution, ReExecutor } from './re-execute.ts';
import { type FetchBytes, type PipelineRules, stageStepsOf } from './stage-work.ts';
import { type StepRules, stepsOf } from './steps.ts';

export interface AuditRules extends StepRules {
  readonly intervalSteps: number;
  readonly flatLength: number;
  readonly tolerance: number;
  /** Where the model is cut into several stages; null where it is held whole. */
  readonly pipeline: PipelineRules | null;
}

export interface AuditOptions {
  readonly claim: TrainingClaim;
  /** Which interval was drawn, from 0. */
  readonly interval: number;
  readonly rules: AuditRules;
  readonly dataset: Dataset;
  /** `fetchEvidence`, bound to peers and shelf. */
  readonly fetch: (wanted: readonly WantedState[]) => Promise<Outcome<HeldState[]>>;
  /** The list of a stage's steps, their evidence, and rows. */
  readonly fetchBytes: FetchBytes;
  readonly executor: Pick<ReExecutor, 'execute' | 'nextFeedback'>;
}

export interface AuditVerdict extends Pick<Finding, 'detail'> {
  readonly verdict: 'valid' | 'false' | 'withheld';
  readonly code: FindingCode | 'withheld';
  /** To be committed to and revealed; zeros when nothing could be recomputed. */
  readonly stateHash: HashHex;
  /** Undefined when nothing was re-executed. */
  readonly disagreement: Finding['disagreement'] | undefined;
}

const nothing: HashHex = '0'.repeat(64);

/** Rejects only with errors of this node's own: its dataset, its engine. */
export async function auditInterval(options: AuditOptions): Promise<AuditVerdict> {
  const { claim, interval, rules, executor } = options;
  const count = intervalsOf(claim, rules.intervalSteps);
  assert(interval >= 0 && interval < count, `no interval ${interval} of ${count}`);
  const malformed = checkForm(claim, rules);
  if (malformed) return isFalse(malformed);

  const evidence = await gather(options);
  if (!evidence.ok) return withheld(evidence);
  const places = checkPlaces(claim, interval, rules, evidence.value);
  if (places) return isFalse(places);
  // What is wrong with the chain is said after the re-execution: its hash shows that the auditor has done the work.
  const chain = await checkChain(options, evidence.value);
  if (chain && chain.code === 'withheld') return withheld(chain);
  const steps = await claimedSteps(options);
  if (!steps.ok) return steps.code === 'withheld' ? withheld(steps) : isFalse(steps as Fault);

  const found = await executor.execute(reExecution(options, evidence.value, steps.value));
  const { stateHash, disagreement } = found;
  const { code, detail } = chain ?? found;
  return {
    verdict: code === 'valid' ? 'valid' : 'false',
    code: code as FindingCode,
    detail,
    stateHash,
    disagreement,
  };
}

function withheld({ detail }: Rejection): AuditVerdict {
  return { verdict: 'withheld', code: 'withheld', detail, stateHash: nothing, disagreement: undefined };
}

function isFalse({ code, detail }: Fault): AuditVerdict {
  return { verdict: 'false', code, detail, stateHash: nothing, disagreement: undefined };
}

interface Fault {
  readonly code: FindingCode;
  readonly detail: string;
}

const fault = (code: FindingCode, detail: string): Fault => ({ code, detail });

/** What the ledger's own checks refuse, too: counts that do not go together. */
function checkForm(claim: TrainingClaim, rules: AuditRules): Fault | undefined {
  const { firstStep, endStep, states, batches, tokens, previous } = claim;
  const { innerSteps, intervalSteps, microbatches, batch, sequence } = rules;
  const steps = endStep - firstStep;
  const stepsMax = innerSteps * (claim.stage === 0 ? 1 : driversServedMax);
  if (firstStep < 0 || steps < 1 || endStep > stepsMax)
    return fault('wrong-place', `steps ${firstStep} to ${endStep} of ${stepsMax}`);
  if ((claim.work === null) !== (rules.pipeline === null))
    return fault('wrong-work', 'no list of steps, or one too many');
  if (states.length !== intervalsOf(claim, intervalSteps) + 1)
    return fault('wrong-place', `${states.length} states for ${steps} steps`);
  // A stage may have lost microbatches: its list says how many each step had.
  const isCount = rules.pipeline
    ? batches >= steps && batches <= steps * microbatches
    : batches === steps * microbatches;
  if (!isCount) return fault('wrong-place', `${batches} batches in ${steps} steps`);
  if (firstStep > 0 && (previous?.round !== claim.round || previous.state !== states[0]))
    return fault('broken-chain', 'not where the proof before ended');
  if (tokens !== batches * batch * sequence)
    return fault('wrong-place', `${tokens} tokens in ${batches} batches`);
  return undefined;
}

interface Evidence {
  readonly start: HeldState;
  readonly end: HeldState;
  readonly base: HeldState | undefined;
  readonly feedback: HeldState | undefined;
  readonly contributionBase: HeldState | undefined;
}

async function gather({ claim, interval, fetch }: AuditOptions): Promise<Outcome<Evidence>> {
  const { start, end, base, feedback, contributionBase } = wantedStates(claim, interval);
  const wanted = { start, end, base, feedback, contributionBase };
  const names = (Object.keys(wanted) as (keyof typeof wanted)[]).filter((name) => wanted[name]);
  const held = await fetch(names.map((name) => wanted[name]!));
  if (!held.ok) return held;
  const of = (name: keyof typeof wanted) => held.value[names.indexOf(name)];
  return accept({
    start: must(of('start'), 'start'),
    end: must(of('end'), 'end'),
    base: of('base'),
    feedback: of('feedback'),
    contributionBase: of('contributionBase'),
  });
}

/** Both states are local ones of this round, of the right steps, and error feedback is the same in both. */
function checkPlaces(
  claim: TrainingClaim,
  interval: number,
  { intervalSteps, flatLength }: AuditRules,
  { start, end }: Evidence,
): Fault | undefined {
  const [from, to] = intervalRange(interval, claim, intervalSteps);
  const before = placeOf(start.index, flatLength);
  const after = placeOf(end.index, flatLength);
  if (!before || !after) return fault('wrong-place', 'not states of this model');
  for (const [place, step] of [
    [before, from],
    [after, to],
  ] as const)
    if (place.round !== claim.round || place.step !== step)
      return fault('wrong-place', `round ${place.round}, step ${place.step}`);
  if (after.optimizerSteps - before.optimizerSteps !== to - from)
    return fault('wrong-place', `${after.optimizerSteps - before.optimizerSteps} optimizer steps`);
  const same = areEqual(leavesOf(start.index, 'errorFeedback'), leavesOf(end.index, 'errorFeedback'));
  return same ? undefined : fault('wrong-feedback', 'changed within the round');
}

function placeOf(index: StateIndex, flatLength: number): LocalPlace | undefined {
  const fits = index.leaves.length === localTensors.length * leavesPerTensor(flatLength);
  return index.kind === 'local' && fits ? index.place : undefined;
}

function leavesOf(index: StateIndex, tensor: (typeof localTensors)[number]): readonly Uint8Array[] {
  const perTensor = index.leaves.length / (index.kind === 'local' ? localTensors.length : 2);
  const first = perTensor * localTensors.indexOf(tensor);
  return index.leaves.slice(first, first + perTensor);
}

function areEqual(a: readonly Uint8Array[], b: readonly Uint8Array[]): boolean {
  return a.length === b.length && a.every((hash, i) => equalBytes(hash, b[i]!));
}

/**
 * A round begins at w_r, with the moments that the proof before ended with and the error feedback that its round left; or
 * with moments and feedback of zeros, as a new node does. Whoever could choose them freely could steer any step.
 */
async function checkChain(
  options: AuditOptions,
  { start, base }: Evidence,
): Promise<Fault | Rejection | undefined> {
  const { claim, rules, fetch, executor } = options;
  if (!base) return undefined;
  if (base.index.kind !== 'agreed' || base.index.round !== claim.round)
    return fault('wrong-base', `round ${claim.round}`);
  if (!areEqual(leavesOf(start.index, 'weights'), leavesOf(base.index, 'weights')))
    return fault('wrong-base', 'the first weights are not w_r');
  const zero = zeroLeafHashes(rules.flatLength);
  const isZero = (tensor: (typeof localTensors)[number]) => areEqual(leavesOf(start.index, tensor), zero);
  const place = must(placeOf(start.index, rules.flatLength), 'checked before');
  const isFresh = place.optimizerSteps === 0 && isZero('firstMoments') && isZero('secondMoments');
  if (isFresh && isZero('errorFeedback')) return undefined;

  const { previous, previousBase } = wantedStates(claim, 0);
  if (!previous || !previousBase) return fault('broken-chain', 'moments out of nothing');
  const indexes = await fetch([{ hash: previous.hash, tensors: [] }]);
  if (!indexes.ok) return indexes;
  const before = indexes.value[0]!.index;
  if (placeOf(before, rules.flatLength)?.optimizerSteps !== place.optimizerSteps)
    return fault('broken-chain', 'other optimizer steps than the proof before ended with');
  for (const tensor of ['firstMoments', 'secondMoments'] as const)
    if (!areEqual(leavesOf(before, tensor), leavesOf(start.index, tensor)))
      return fault('broken-chain', `other ${tensor} than the proof before ended with`);
  // Feedback may be dropped at any time: that is work thrown away.
  if (isZero('errorFeedback')) return undefined;

  const held = await fetch([previous, previousBase]);
  if (!held.ok) return held;
  const [last, lastBase] = held.value;
  const { counted, leftOut } = await executor.nextFeedback({
    stage: claim.stage,
    base: must(lastBase?.tensors.weights, 'w_r'),
    weights: must(last?.tensors.weights, 'weights'),
    errorFeedback: must(last?.tensors.errorFeedback, 'feedback'),
  });
  const { listed } = must(claim.previous, 'checked above');
  const expected = listed === null ? [counted, leftOut] : [listed ? counted : leftOut];
  return expected.some((leaves) => areEqual(leavesOf(start.index, 'errorFeedback'), leaves))
    ? undefined
    : fault('wrong-feedback', 'not what the round before left');
}

/** Of the drawn interval: from the sampler, or from what a stage and its neighbours signed. */
async function claimedSteps(options: AuditOptions): Promise<Outcome<ReExecution['steps']>> {
  const { claim, interval, rules } = options;
  const [from, to] = intervalRange(interval, claim, rules.intervalSteps);
  return rules.pipeline ? stageStepsOf(options, from, to) : accept(await stepsOf(options, from, to));
}

function reExecution(
  { claim, rules }: AuditOptions,
  { start, end, feedback, contributionBase }: Evidence,
  steps: ReExecution['steps'],
): ReExecution {
  return {
    stage: claim.stage,
    place: must(placeOf(start.index, rules.flatLength), 'checked before'),
    start: trainedOf(start),
    end: trainedOf(end),
    feedbackLeaves: leavesOf(start.index, 'errorFeedback'),
    steps,
    ...(feedback &&
      contributionBase && {
        contribution: {
          base: must(contributionBase.tensors.weights, 'w_r'),
          errorFeedback: must(feedback.tensors.errorFeedback, 'feedback'),
          blobHash: must(claim.contribution, 'a contribution'),
        },
      }),
    tolerance: rules.tolerance,
  };
}

function trainedOf({ tensors }: HeldState): ReExecution['start'] {
  return {
    weights: must(tensors.weights, 'weights'),
    firstMoments: must(tensors.firstMoments, 'firstMoments'),
    secondMoments: must(tensors.secondMoments, 'secondMoments'),
  };
}
