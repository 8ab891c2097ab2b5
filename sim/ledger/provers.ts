/**
 * Provers of the simulated economy: what each claims, what it really made, and what that cost it. An operator runs one
 * identity at a time and throws it away once it is convicted.
 */
import { keyPairFrom } from '../../src/identity/keys.ts';
import { accountOf } from '../../src/ledger/money.ts';
import { type ProofBody, proofKey } from '../../src/ledger/proof.ts';
import type { Author, BlockContext, LedgerConstants } from '../../src/ledger/rules.ts';
import { createDraft, putAll } from '../../src/ledger/state.ts';
import { proof } from '../../src/ledger/transactions/proof.ts';
import { utf8 } from '../../src/std/bytes.ts';
import { sha256 } from '../../src/std/hash.ts';
import type { Random } from '../../src/std/random.ts';
import { stream } from '../random.ts';
import { holds } from '../scenario.ts';
import type { Rows } from './rows.ts';

/** H, and s: ten intervals of a proof, as with 500 steps of which every fiftieth state is committed to. */
export const innerSteps = 100;
export const intervalSteps = 10;
/** Of the honest reward: what the computing costs. */
export const costShare = 0.7;

/** One claim. */
export interface Claimed {
  readonly steps: number;
  /** Which of its intervals an audit would find false. */
  readonly isFalse: (interval: number) => boolean;
  /** Whether an interval was computed all the same; those that are not false are, unless said. */
  readonly isMade?: (interval: number) => boolean;
  /** The evidence is not served to auditors. */
  readonly withheld?: boolean;
  /** Something that the ledger's own checks refuse is sent in its place. */
  readonly forged?: (honest: ProofBody, taken: ProofBody | undefined) => ProofBody;
}

/** `count`: proofs that this identity has made. */
export type Strategy = (count: number, random: Random) => Claimed;

export interface Operator {
  readonly strategy: Strategy;
  readonly random: Random;
  /** A proof only every so many blocks. */
  readonly every: number;
  author: Author;
  /** Proofs of the identity of now. */
  count: number;
  stepsMade: number;
  caughtAfter: number | undefined;
  /** The newest that the ledger took. */
  taken: ProofBody | undefined;
  readonly identities: string[];
}

export interface Sent {
  readonly operator: Operator;
  readonly claimed: Claimed;
}

export interface OperatorResult {
  /** Micro-NEURO of all its identities, paid or vesting, less `cost`. */
  readonly profit: number;
  /** 0.7 of the reward of honest work for every step really made. */
  readonly cost: number;
  /** Proofs until the first conviction; undefined: never. */
  readonly caughtAfter: number | undefined;
  readonly identities: number;
}

export const hashOf = (...names: readonly (string | number)[]) => sha256(utf8(names.join(' ')));

export function authorOf(seed: number, name: string): Author {
  const { nodeId, publicKey } = keyPairFrom(hashOf('key', seed, name));
  return { nodeId, publicKey };
}

export function createOperator(seed: number, index: number, strategy: Strategy, every = 1): Operator {
  const author = authorOf(seed, `operator ${index} 0`);
  const random = stream(seed, 'operator', index);
  const counts = { count: 0, stepsMade: 0, caughtAfter: undefined, taken: undefined };
  return { strategy, random, every, author, identities: [author.nodeId], ...counts };
}

/** The convicted throw their name away; without coming back, that is the end: false. */
export function isStillThere(
  rows: Rows,
  operator: Operator,
  seed: number,
  index: number,
  comeBack: boolean,
): boolean {
  if (operator.author.nodeId === '') return false;
  if (!rows.get('prover', operator.author.nodeId)?.convicted) return true;
  operator.caughtAfter ??= operator.count;
  operator.author = comeBack
    ? authorOf(seed, `operator ${index} ${operator.identities.length}`)
    : { ...operator.author, nodeId: '' };
  if (comeBack) operator.identities.push(operator.author.nodeId);
  operator.count = 0;
  operator.taken = undefined;
  return comeBack;
}

/** One proof of the round that the block before closed. */
export function prove(rows: Rows, context: BlockContext, operator: Operator, sent: Map<string, Sent>): void {
  const { constants } = context;
  const { author } = operator;
  const claimed = operator.strategy(operator.count, operator.random);
  const honest = bodyOf(context, author.nodeId, claimed.steps);
  const body = claimed.forged?.(honest, operator.taken) ?? honest;
  const draft = createDraft(rows);
  const done = proof.apply(draft, body, author, context, hashOf('id'));
  if (claimed.forged) {
    holds(!done.ok, 'forged-refused', () => 'a forged proof was taken');
    return;
  }
  holds(done.ok, 'proof-accepted', () => (done.ok ? '' : `${done.code} ${done.detail}`));
  putAll(rows, draft.changes());
  operator.count += 1;
  operator.taken = body;
  for (const interval of body.states.keys()) {
    const isMade = claimed.isMade?.(interval) ?? !claimed.isFalse(interval);
    if (isMade) operator.stepsMade += Math.min(intervalSteps, claimed.steps - interval * intervalSteps);
  }
  sent.set(proofKey(constants.networkId, author.nodeId, body), { operator, claimed });
}

function bodyOf({ number, timeMs, constants }: BlockContext, nodeId: string, steps: number): ProofBody {
  const intervals = Math.ceil(steps / intervalSteps);
  return {
    type: 'training',
    timestampMs: timeMs,
    tokens: steps * constants.tokensPerBatch,
    batches: steps,
    layers: 4,
    hasEmbedding: true,
    hasHead: true,
    nonce: number,
    round: number,
    stage: 0,
    firstStep: 0,
    endStep: steps,
    base: hashOf('base', number),
    before: hashOf('before', nodeId, number),
    states: Array.from({ length: intervals }, (_, i) => hashOf('state', nodeId, number, i)),
    firstBatch: number * innerSteps,
    endBatch: number * innerSteps + steps,
    lossMicronats: 1,
    contribution: null,
    work: null,
  };
}

/** Honest reward of one step of the whole model, in micro-NEURO. */
export function rewardPerStep({ policy }: Pick<LedgerConstants, 'policy'>): number {
  return (policy.rewardPerBatch * (1000 + policy.embeddingBonus + policy.headBonus)) / 1000;
}

/** Whether it never claimed anything false, and was convicted all the same. */
export function isWronged(rows: Rows, operator: Operator, sent: ReadonlyMap<string, Sent>): boolean {
  const isConvicted = operator.identities.some((node) => rows.get('prover', node)?.convicted);
  if (!isConvicted) return false;
  const own = [...sent.values()].filter((one) => one.operator === operator);
  return own.every(({ claimed }) => {
    const intervals = Array.from({ length: innerSteps / intervalSteps }, (_, i) => i);
    return !claimed.withheld && !intervals.some((i) => claimed.isFalse(i));
  });
}

/** What vests counts as paid: whoever stops cheating now will have it. What is under audit is settled by then. */
export function resultOf(rows: Rows, constants: LedgerConstants, operator: Operator): OperatorResult {
  const { identities, stepsMade, count } = operator;
  const isCaughtNow = rows.get('prover', identities.at(-1)!)?.convicted;
  const caughtAfter = operator.caughtAfter ?? (isCaughtNow ? count : undefined);
  let owned = 0n;
  for (const node of identities) {
    const { balance, stake } = accountOf(rows, node);
    const prover = rows.get('prover', node);
    const vesting = prover?.vesting.reduce((sum, [, amount]) => sum + amount, 0n) ?? 0n;
    owned += balance + stake + vesting + (prover?.bond ?? 0n);
  }
  const cost = costShare * rewardPerStep(constants) * stepsMade;
  return { profit: Number(owned) - cost, cost, caughtAfter, identities: identities.length };
}
