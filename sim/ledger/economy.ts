/**
 * An economy of proofs without training: provers that work, or only say so, on the ledger's own rules for proofs and
 * audits. What re-execution would find is an oracle; signatures and blocks' bytes are left out. Profit is what a prover
 * could take away less what its real work cost.
 */
import { keyPairFrom } from '../../src/identity/keys.ts';
import { advanceDuties, pendingAuditors, phaseOf } from '../../src/ledger/duties.ts';
import { accountOf, chainOf, moneyInAll, numberKey } from '../../src/ledger/money.ts';
import type { LedgerPolicy } from '../../src/ledger/policy.ts';
import { type ProofBody, proofKey } from '../../src/ledger/proof.ts';
import { pruneRows } from '../../src/ledger/prune.ts';
import type { Author, BlockContext, LedgerConstants } from '../../src/ledger/rules.ts';
import type { Verdict } from '../../src/ledger/tables.ts';
import { auditCommit } from '../../src/ledger/transactions/audit-commit.ts';
import { auditReveal } from '../../src/ledger/transactions/audit-reveal.ts';
import { proof } from '../../src/ledger/transactions/proof.ts';
import { verdictCommitment } from '../../src/ledger/verdict.ts';
import { concatBytes, utf8 } from '../../src/std/bytes.ts';
import { sha256 } from '../../src/std/hash.ts';
import type { Random } from '../../src/std/random.ts';
import { stream } from '../random.ts';
import { holds } from '../scenario.ts';
import { createRows } from './rows.ts';

/** One claim: how many steps it says, and which of its intervals are false. */
export interface Claimed {
  readonly steps: number;
  readonly isFalse: (interval: number) => boolean;
  /** The evidence is not served to auditors. */
  readonly withheld?: boolean;
}

/** `count`: proofs that this identity has made. */
export type Strategy = (count: number, random: Random) => Claimed;

export interface EconomyOptions {
  readonly seed: number;
  readonly policy: LedgerPolicy;
  /** Each runs one identity at a time; a convicted one is thrown away for another. */
  readonly operators: readonly Strategy[];
  /** Whether the convicted come back under another name. */
  readonly comeBack: boolean;
  readonly auditors: number;
  /** Blocks with a proof from everyone, a minute each. */
  readonly blocks: number;
  /** A proof only every so many blocks, by operator; 1 unless said. */
  readonly every?: readonly number[];
}

export interface OperatorResult {
  /** Micro-NEURO in balance, stake and bond, of all its identities, less `cost`. */
  readonly profit: number;
  /** 0.7 of the reward of honest work for every step really made. */
  readonly cost: number;
  /** Proofs until the first conviction; undefined: never. */
  readonly caughtAfter: number | undefined;
  readonly identities: number;
}

export interface EconomyResult {
  readonly operators: readonly OperatorResult[];
  /** Audited intervals that were false, and those of them that did not lead to conviction. */
  readonly falseAudited: number;
  readonly falsePassed: number;
  /** True claims that led to conviction. */
  readonly wronged: number;
}

export const innerSteps = 20;
const blockMs = 60_000;
const startMs = 1_800_000_000_000;
const costShare = 0.7;
const hashOf = (...names: readonly (string | number)[]) => sha256(utf8(names.join(' ')));

interface Operator {
  readonly strategy: Strategy;
  readonly random: Random;
  readonly every: number;
  author: Author;
  /** Proofs of the identity of now. */
  count: number;
  stepsMade: number;
  caughtAfter: number | undefined;
  readonly identities: string[];
}

interface Sent {
  readonly operator: Operator;
  readonly number: number;
  readonly claimed: Claimed;
}

export function runEconomy(options: EconomyOptions): EconomyResult {
  const { seed, policy, blocks } = options;
  const rows = createRows();
  const constants = constantsOf(policy);
  const auditors = Array.from({ length: options.auditors }, (_, i) => authorOf(seed, `auditor ${i}`));
  openChain(rows, auditors);
  const operators = options.operators.map((strategy, i): Operator => {
    const author = authorOf(seed, `operator ${i} 0`);
    const random = stream(seed, 'operator', i);
    const every = options.every?.[i] ?? 1;
    const counts = { count: 0, stepsMade: 0, caughtAfter: undefined };
    return { strategy, random, every, author, identities: [author.nodeId], ...counts };
  });
  const sent = new Map<string, Sent>();
  const audited = new Map<string, boolean>();
  const settled = { falsePassed: 0, wronged: 0 };
  for (let block = 1; blocks >= block || (block < blocks + 200 && rows.keys('duty').length > 0); block++) {
    const context = nextBlock(rows, constants, auditors[block % auditors.length]!.nodeId);
    for (const [index, operator] of operators.entries()) {
      if (block > blocks || block % operator.every !== 0 || operator.author.nodeId === '') continue;
      replaceConvicted(rows, operator, seed, index, options.comeBack);
      if (operator.author.nodeId !== '') prove(rows, context, operator, sent);
    }
    auditAll(rows, context, auditors, sent, audited);
    const open = new Map([...audited].filter(([key]) => rows.get('duty', key)));
    advanceDuties(rows, context);
    for (const [key, isTrue] of open) {
      if (rows.get('duty', key)) continue;
      const isConvicted = rows.get('prover', sent.get(key)!.operator.author.nodeId)!.convicted;
      if (!isTrue && !isConvicted) settled.falsePassed += 1;
    }
    pruneRows(rows, context);
  }
  settled.wronged = operators.filter((operator) => isWronged(rows, operator, sent)).length;
  const { minted, burned } = chainOf(rows);
  holds(moneyInAll(rows) === minted - burned, 'supply', () => `${minted} − ${burned}`);
  return {
    operators: operators.map((operator) => resultOf(rows, constants, operator)),
    falseAudited: [...audited.values()].filter((isTrue) => !isTrue).length,
    ...settled,
  };
}

function constantsOf(policy: LedgerPolicy): LedgerConstants {
  const size = { innerSteps, microbatches: 1, tokensPerBatch: 1024, layers: 4, stageLayers: [4] };
  return { networkId: hashOf('simulated network'), policy, ...size };
}

function authorOf(seed: number, name: string): Author {
  const { nodeId, publicKey } = keyPairFrom(hashOf('key', seed, name));
  return { nodeId, publicKey };
}

function openChain(rows: ReturnType<typeof createRows>, auditors: readonly Author[]): void {
  rows.put('chain', '', {
    number: 0,
    hash: new Uint8Array(32),
    timeMs: startMs,
    minted: 0n,
    burned: 0n,
    seeds: [hashOf('first seed')],
    epoch: 0,
    epochStartMs: 0,
    voters: auditors.map(({ nodeId }): [string, number] => [nodeId, 1000]).sort(),
    bonded: 0n,
    provers: 0,
  });
}

/** Every block closes a round, so that each claim has one of its own. */
function nextBlock(
  rows: ReturnType<typeof createRows>,
  constants: LedgerConstants,
  proposer: string,
): BlockContext {
  const chain = chainOf(rows);
  const number = chain.number + 1;
  const timeMs = chain.timeMs + blockMs;
  const seed = sha256(concatBytes(chain.seeds.at(-1)!, hashOf('preimage', number)));
  rows.put('chain', '', { ...chain, number, timeMs, seeds: [...chain.seeds, seed].slice(-8) });
  const agreed = [[0, hashOf('base', number)] as const];
  // Three contributors: no bonus for scarcity, so that every step earns the same.
  const contributions = ['a', 'b', 'c'].map(
    (name) => [0, name, hashOf('base'), hashOf('blob'), innerSteps] as const,
  );
  const row = { list: hashOf('list'), contributions, stated: [], agreed };
  rows.put('round', numberKey(number - 1), row);
  return { constants, number, timeMs, proposer };
}

/** The convicted throw their name away; without coming back, that is the end. */
function replaceConvicted(
  rows: ReturnType<typeof createRows>,
  operator: Operator,
  seed: number,
  index: number,
  comeBack: boolean,
): void {
  if (!rows.get('prover', operator.author.nodeId)?.convicted) return;
  operator.caughtAfter ??= operator.count;
  operator.author = comeBack
    ? authorOf(seed, `operator ${index} ${operator.identities.length}`)
    : { ...operator.author, nodeId: '' };
  if (comeBack) operator.identities.push(operator.author.nodeId);
  operator.count = 0;
}

function prove(
  rows: ReturnType<typeof createRows>,
  context: BlockContext,
  operator: Operator,
  sent: Map<string, Sent>,
): void {
  const { number, timeMs, constants } = context;
  const { author } = operator;
  const claimed = operator.strategy(operator.count, operator.random);
  const { steps } = claimed;
  const { intervalSteps } = constants.policy;
  const intervals = Math.ceil(steps / intervalSteps);
  const body: ProofBody = {
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
    before: hashOf('before', author.nodeId, number),
    states: Array.from({ length: intervals }, (_, i) => hashOf('state', author.nodeId, number, i)),
    firstBatch: number * innerSteps,
    endBatch: number * innerSteps + steps,
    lossMicronats: 1,
    contribution: null,
    work: null,
  };
  const done = proof.apply(rows, body, author, context, hashOf('id'));
  holds(done.ok, 'proof-accepted', () => (done.ok ? '' : `${done.code} ${done.detail}`));
  operator.count += 1;
  for (let i = 0; i < intervals; i++) {
    if (!claimed.isFalse(i)) operator.stepsMade += Math.min(intervalSteps, steps - i * intervalSteps);
  }
  sent.set(proofKey(constants.networkId, author.nodeId, body), { operator, number: operator.count, claimed });
}

/** All auditors are honest and quick; what they find, the oracle says. */
function auditAll(
  rows: ReturnType<typeof createRows>,
  context: BlockContext,
  auditors: readonly Author[],
  sent: ReadonlyMap<string, Sent>,
  audited: Map<string, boolean>,
): void {
  const { networkId, policy } = context.constants;
  for (const key of rows.keys('duty')) {
    const duty = rows.get('duty', key)!;
    if (duty.dueAt === 0) continue;
    const { claimed } = sent.get(key)!;
    const isTrue = !claimed.isFalse(duty.interval);
    audited.set(key, isTrue && !claimed.withheld);
    const verdict: Verdict = claimed.withheld ? 'withheld' : isTrue ? 'valid' : 'false';
    const hash = verdict === 'withheld' ? new Uint8Array(32) : hashOf('recomputed', key);
    const pending = pendingAuditors(duty);
    const phase = phaseOf(duty, context.number, policy);
    for (const author of auditors.filter(({ nodeId }) => pending.includes(nodeId))) {
      const reveal = { duty: key, verdict, hash, salt: hashOf('salt', author.nodeId, key) };
      const commitment = verdictCommitment(networkId, author.nodeId, reveal);
      const done =
        phase === 'committing'
          ? auditCommit.apply(rows, { duty: key, commitment }, author, context, hash)
          : auditReveal.apply(rows, reveal, author, context, hash);
      holds(done.ok, 'audit-accepted', () => (done.ok ? '' : done.code));
    }
  }
}

function isWronged(
  rows: ReturnType<typeof createRows>,
  operator: Operator,
  sent: ReadonlyMap<string, Sent>,
): boolean {
  const isConvicted = operator.identities.some((node) => rows.get('prover', node)?.convicted);
  if (!isConvicted) return false;
  const own = [...sent.values()].filter((one) => one.operator === operator);
  return own.every(({ claimed }) => {
    const intervals = Array.from({ length: innerSteps }, (_, i) => i);
    return !claimed.withheld && !intervals.some((i) => claimed.isFalse(i));
  });
}

function resultOf(
  rows: ReturnType<typeof createRows>,
  { policy }: LedgerConstants,
  operator: Operator,
): OperatorResult {
  const { identities, stepsMade, count } = operator;
  const isCaughtNow = rows.get('prover', identities.at(-1)!)?.convicted;
  const caughtAfter = operator.caughtAfter ?? (isCaughtNow ? count : undefined);
  let owned = 0n;
  for (const node of identities) {
    const { balance, stake } = accountOf(rows, node);
    owned += balance + stake + (rows.get('prover', node)?.bond ?? 0n);
  }
  const perStep = (policy.rewardPerBatch * (1000 + policy.embeddingBonus + policy.headBonus)) / 1000;
  const cost = costShare * perStep * stepsMade;
  return { profit: Number(owned) - cost, cost, caughtAfter, identities: identities.length };
}
