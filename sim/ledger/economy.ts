/**
 * An economy of proofs without training: provers that work, or only say so, and members that audit, on the ledger's own
 * rules. What re-execution would find is an oracle; signatures, votes and blocks' bytes are left out. Profit is what a node
 * has in the end less what its real work cost.
 */

import { advanceDuties } from '../../src/ledger/duties.ts';
import { endEpoch } from '../../src/ledger/members.ts';
import { chainOf, moneyInAll, numberKey } from '../../src/ledger/money.ts';
import type { LedgerPolicy } from '../../src/ledger/policy.ts';
import { pruneRows } from '../../src/ledger/prune.ts';
import type { BlockContext, LedgerConstants } from '../../src/ledger/rules.ts';
import { dropSilent } from '../../src/ledger/silence.ts';
import { createDraft } from '../../src/ledger/state.ts';
import { concatBytes } from '../../src/std/bytes.ts';
import { sha256 } from '../../src/std/hash.ts';
import { holds } from '../scenario.ts';
import {
  createOperator,
  hashOf,
  innerSteps,
  isStillThere,
  isWronged,
  type Operator,
  type OperatorResult,
  prove,
  resultOf,
  type Sent,
  type Strategy,
} from './provers.ts';
import { createRows, type Rows } from './rows.ts';
import {
  askAndAccuse,
  auditAll,
  createValidators,
  seatValidators,
  speaks,
  stakeOfEach,
  type Truth,
  type Validator,
  type ValidatorKind,
  type ValidatorResult,
  validatorResult,
} from './validators.ts';

export interface EconomyOptions {
  readonly seed: number;
  readonly policy: LedgerPolicy;
  /** Each runs one identity at a time; a convicted one is thrown away for another. */
  readonly operators: readonly Strategy[];
  /** Whether the convicted come back under another name. */
  readonly comeBack: boolean;
  readonly validators: readonly ValidatorKind[];
  /** Blocks with a proof from everyone, a minute each. */
  readonly blocks: number;
  /** A proof only every so many blocks, by operator; 1 unless said. */
  readonly every?: readonly number[];
  /** The operator for whom the grinder grinds. */
  readonly friend?: number;
}

export interface EconomyResult {
  readonly operators: readonly OperatorResult[];
  readonly validators: readonly ValidatorResult[];
  /** Audited intervals that were false, and those of them that did not lead to conviction. */
  readonly falseAudited: number;
  readonly falsePassed: number;
  /** True claims, or true verdicts, that led to conviction. */
  readonly wronged: number;
}

const blockMs = 60_000;
const startMs = 1_800_000_000_000;
/** Blocks after the last proof in which its audits end. */
const settleBlocksMax = 200;

interface Economy {
  readonly rows: Rows;
  readonly constants: LedgerConstants;
  readonly operators: readonly Operator[];
  readonly validators: readonly Validator[];
  readonly friend: Operator | undefined;
  readonly sent: Map<string, Sent>;
  /** Audited claims, and whether they were true. */
  readonly audited: Map<string, boolean>;
}

export function runEconomy(options: EconomyOptions): EconomyResult {
  const { seed, blocks, every = [], friend } = options;
  const operators = options.operators.map((strategy, i) => createOperator(seed, i, strategy, every[i]));
  const e: Economy = {
    rows: createRows(),
    constants: constantsOf(options.policy),
    operators,
    validators: createValidators(seed, options.validators),
    friend: friend === undefined ? undefined : operators[friend],
    sent: new Map(),
    audited: new Map(),
  };
  const { rows } = e;
  openChain(e);
  let falsePassed = 0;
  for (let block = 1; block <= blocks || (block < blocks + settleBlocksMax && isOpen(rows)); block++) {
    const context = nextBlock(e);
    for (const [index, operator] of operators.entries()) {
      if (block > blocks || block % operator.every !== 0) continue;
      if (isStillThere(rows, operator, seed, index, options.comeBack)) prove(rows, context, operator, e.sent);
    }
    askAndAccuse(rows, context, e.validators);
    auditAll(rows, context, e.validators, (key, duty) => truthOf(e, key, duty.interval));
    falsePassed += endBlock(e, context);
  }
  const { minted, burned } = chainOf(rows);
  holds(moneyInAll(rows) === minted - burned, 'supply', () => `${minted} − ${burned}`);
  const wrongedProvers = operators.filter((operator) => isWronged(rows, operator, e.sent));
  const wrongedMembers = e.validators.filter(
    ({ kind, author }) => kind === 'honest' && rows.get('prover', author.nodeId)?.convicted,
  );
  return {
    operators: operators.map((operator) => resultOf(rows, e.constants, operator)),
    validators: e.validators.map((one) => validatorResult(rows, e.constants, one)),
    falseAudited: [...e.audited.values()].filter((isTrue) => !isTrue).length,
    falsePassed,
    wronged: wrongedProvers.length + wrongedMembers.length,
  };
}

const isOpen = (rows: Rows) => rows.keys('duty').length > 0;

function constantsOf(policy: LedgerPolicy): LedgerConstants {
  const size = { innerSteps, microbatches: 1, tokensPerBatch: 1024, layers: 4, stageLayers: [4] };
  return { networkId: hashOf('simulated network'), policy, ...size };
}

function openChain({ rows, validators }: Economy): void {
  const bonded = stakeOfEach * BigInt(validators.length);
  seatValidators(rows, validators);
  rows.put('chain', '', {
    number: 0,
    hash: new Uint8Array(32),
    timeMs: startMs,
    minted: bonded,
    burned: 0n,
    seeds: [hashOf('first seed')],
    epoch: 0,
    epochStartMs: 0,
    voters: validators.map(({ author }): [string, number] => [author.nodeId, 1000]).sort(),
    bonded,
    provers: 0,
  });
}

/** Every block closes a round, so that each claim has one of its own. */
function nextBlock(e: Economy): BlockContext {
  const { rows, constants, validators } = e;
  const chain = chainOf(rows);
  const number = chain.number + 1;
  const timeMs = chain.timeMs + blockMs;
  // Three contributors: no bonus for scarcity, so that every step earns the same.
  const contributions = ['a', 'b', 'c'].map(
    (name) => [0, name, hashOf('base'), hashOf('blob'), innerSteps] as const,
  );
  const agreed = [[0, hashOf('base', number)] as const];
  rows.put('round', numberKey(number - 1), { list: hashOf('list'), contributions, stated: [], agreed });
  for (let turn = 0; ; turn++) {
    holds(turn <= validators.length, 'somebody-speaks', () => `block ${number}`);
    const proposer = validators[(number + turn) % validators.length]!;
    const { nodeId } = proposer.author;
    const seed = sha256(concatBytes(chain.seeds.at(-1)!, hashOf('preimage', number, nodeId)));
    const after = { ...chain, number, timeMs, seeds: [...chain.seeds, seed].slice(-8) };
    const context = { constants, number, timeMs, proposer: nodeId };
    if (!speaks(rows, proposer, () => drawsFriend(e, context, after))) continue;
    rows.put('chain', '', after);
    rows.put('member', nodeId, { ...rows.get('member', nodeId)!, proposedAt: number });
    return context;
  }
}

/** Whether the seed would have a false proof of the friend audited. */
function drawsFriend(e: Economy, context: BlockContext, chain: ReturnType<typeof chainOf>): boolean {
  const { rows, friend, sent } = e;
  const own = rows.keys('duty').filter((key) => {
    const { operator, claimed } = sent.get(key)!;
    return operator === friend && rows.get('duty', key)!.dueAt === 0 && claimed.isFalse(0);
  });
  if (own.length === 0) return false;
  const draft = createDraft(rows);
  draft.put('chain', '', chain);
  advanceDuties(draft, context);
  return own.some((key) => (draft.get('duty', key)?.dueAt ?? 0) > 0);
}

function truthOf({ sent, audited }: Economy, key: string, interval: number): Truth {
  const { claimed } = sent.get(key)!;
  const isTrue = !claimed.isFalse(interval);
  audited.set(key, isTrue && !claimed.withheld);
  if (claimed.withheld) return { verdict: 'withheld', hash: new Uint8Array(32) };
  return { verdict: isTrue ? 'valid' : 'false', hash: hashOf('recomputed', key, interval) };
}

/** Settles and draws; how many audits of something false ended without conviction. */
function endBlock({ rows, constants, sent, audited }: Economy, context: BlockContext): number {
  const open = [...audited].filter(([key]) => rows.get('duty', key));
  advanceDuties(rows, context);
  const passed = open.filter(([key, isTrue]) => {
    const isOver = !rows.get('duty', key);
    return isOver && !isTrue && !rows.get('prover', sent.get(key)!.operator.author.nodeId)!.convicted;
  });
  dropSilent(rows, context);
  pruneRows(rows, context);
  if (context.number % constants.policy.epochBlocks === 0) endEpoch(rows, context);
  return passed.length;
}
