/**
 * What a day of each way to cheat is worth, as a share of what honest work of the same kind earns, and how soon cheats in
 * the work are found. Shares of one seed are means over the operators of a kind.
 */
import { keyPairFrom } from '../../src/identity/keys.ts';
import { accountOf } from '../../src/ledger/money.ts';
import { defaultLedgerPolicy, type LedgerPolicy } from '../../src/ledger/policy.ts';
import { signReceipt } from '../../src/ledger/receipt.ts';
import type { BlockContext } from '../../src/ledger/rules.ts';
import { claim } from '../../src/ledger/transactions/claim.ts';
import { escrow } from '../../src/ledger/transactions/escrow.ts';
import { toHex } from '../../src/std/bytes.ts';
import { holds } from '../scenario.ts';
import { type EconomyResult, runEconomy } from './economy.ts';
import { hashOf, innerSteps, intervalSteps, type Strategy } from './provers.ts';
import { createRows } from './rows.ts';
import { cheaters, falsifies, honest, partly, trainingCheats } from './strategies.ts';
import type { ValidatorKind } from './validators.ts';

/** One audit rate for all sizes of the network, and auditors with time for it. */
export function policyAt(rate: number, changes: Partial<LedgerPolicy> = {}): LedgerPolicy {
  return {
    ...defaultLedgerPolicy,
    intervalSteps,
    auditsPerBlockMax: 256,
    auditsOpenMax: 4096,
    auditRates: [{ below: Number.MAX_SAFE_INTEGER, rate }],
    ...changes,
  };
}

export function assertSound(result: EconomyResult): void {
  holds(result.falsePassed === 0, 'recognised', () => `${result.falsePassed} false intervals passed`);
  holds(result.wronged === 0, 'no-wronged', () => `${result.wronged} honest nodes were convicted`);
}

const sevenHonest: readonly ValidatorKind[] = Array.from({ length: 7 }, () => 'honest');

/**
 * Share of provers that cheat so in 20% of their proofs and are convicted for one of the first 50, at an audit rate of 20%
 * and without a bond, whose audits would find them sooner.
 */
export function caughtShare(seed: number, provers: number, cheat: Strategy = falsifies(1)): number {
  const operators = Array.from({ length: provers }, () => partly(cheat, 0.2));
  const policy = policyAt(200, { bondProofs: 0 });
  const result = runEconomy({
    seed,
    policy,
    operators,
    comeBack: false,
    validators: sevenHonest,
    blocks: 50,
  });
  assertSound(result);
  return result.operators.filter(({ caughtAfter }) => caughtAfter !== undefined).length / provers;
}

export interface ProfitRow {
  readonly name: string;
  /** Of honest profit. */
  readonly share: number;
  /** Names used up. */
  readonly identities: number;
}

export interface ProfitOptions {
  readonly seed: number;
  /** Thousandths of proofs audited. */
  readonly rate: number;
  /** Operators of each kind. */
  readonly each: number;
  readonly hours?: number;
  /** Between two proofs of one operator; 6 unless said. */
  readonly minutes?: number;
  readonly policy?: Partial<LedgerPolicy>;
}

const halfAsMuch = 'honest, half as much';

/** A day of honest work, of half as much, and of every cheating prover, whose convicted identities are thrown away. */
export function proverProfits(options: ProfitOptions): readonly ProfitRow[] {
  const { seed, rate, each, hours = 24, minutes = 6 } = options;
  const kinds: readonly (readonly [string, Strategy])[] = [
    ['honest', honest],
    [halfAsMuch, honest],
    ...Object.entries(cheaters),
  ];
  const many = <Value>(value: Value) => Array.from({ length: each }, () => value);
  const result = runEconomy({
    seed,
    policy: policyAt(rate, options.policy),
    operators: kinds.flatMap(([, strategy]) => many(strategy)),
    every: kinds.flatMap(([name]) => many(name === halfAsMuch ? 2 * minutes : minutes)),
    comeBack: true,
    validators: sevenHonest,
    blocks: 60 * hours,
  });
  assertSound(result);
  const ofKind = (kind: number) => result.operators.slice(kind * each, (kind + 1) * each);
  const full = meanOf(ofKind(0), ({ profit }) => profit);
  holds(full > 0, 'honest-positive', () => `honest profit ${full}`);
  return kinds.map(([name], i) => ({
    name,
    share: meanOf(ofKind(i), ({ profit }) => profit) / full,
    identities: meanOf(ofKind(i), ({ identities }) => identities),
  }));
}

const dishonest = ['accuser', 'rubber-stamp', 'copier', 'lazy', 'silent', 'equivocator'] as const;
const provers: readonly Strategy[] = [...Array.from({ length: 12 }, () => honest), falsifies(0.2)];

/** A day of members of whom two in seven cheat, as shares of what the honest five earn on the mean. */
export function memberProfits({
  seed,
  rate,
  hours = 24,
  minutes = 6,
  policy,
}: ProfitOptions): readonly ProfitRow[] {
  const day = (kinds: readonly ValidatorKind[], friend?: Strategy) => {
    const operators = friend ? [...provers, friend] : provers;
    const result = runEconomy({
      seed,
      policy: policyAt(rate, policy),
      operators,
      every: operators.map(() => minutes),
      comeBack: true,
      validators: [...kinds, ...sevenHonest.slice(kinds.length)],
      blocks: 60 * hours,
      ...(friend && { friend: provers.length }),
    });
    assertSound(result);
    const honestMembers = result.validators.filter(({ kind }) => kind === 'honest');
    const full = meanOf(honestMembers, ({ profit }) => profit);
    holds(full > 0, 'honest-auditor-positive', () => `${full}`);
    return { result, full };
  };
  const rows = dishonest.map((kind): ProfitRow => {
    const { result, full } = day([kind, kind]);
    const own = result.validators.filter((one) => one.kind === kind);
    return { name: kind, share: meanOf(own, ({ profit }) => profit) / full, identities: 1 };
  });
  const { result, full } = day(['grinder'], falsifies(0.2));
  const prover = meanOf(result.operators.slice(0, 12), ({ profit }) => profit);
  const both = result.operators.at(-1)!.profit + result.validators[0]!.profit;
  const { identities } = result.operators.at(-1)!;
  return [...rows, { name: 'grinds for a prover of its own', share: both / (prover + full), identities }];
}

/** A hundred times all its money to itself, by way of escrow and receipt; of an honest prover's profit that has as much. */
export function selfPayingShare(): ProfitRow {
  const rows = createRows();
  const key = keyPairFrom(hashOf('pays itself'));
  const { nodeId, publicKey } = key;
  const before = 1_000_000_000n;
  rows.put('account', nodeId, { balance: before, stake: 0n, unbonding: [], nonce: 0 });
  rows.put('chain', '', {
    ...{
      number: 0,
      hash: new Uint8Array(32),
      timeMs: 1,
      minted: before,
      burned: 0n,
      seeds: [hashOf('seed')],
    },
    ...{ epoch: 0, epochStartMs: 0, voters: [], bonded: 0n, provers: 0 },
  });
  const size = { innerSteps, microbatches: 1, tokensPerBatch: 1, layers: 1, stageLayers: [1] };
  const constants = { networkId: hashOf('simulated network'), policy: policyAt(200), ...size };
  const context: BlockContext = { constants, number: 1, timeMs: 2, proposer: nodeId };
  for (let i = 0; i < 100; i++) {
    const id = hashOf('escrow', i);
    const amount = accountOf(rows, nodeId).balance;
    const body = { payee: nodeId, amount, expiresMs: 3 };
    const opened = escrow.apply(rows, body, { nodeId, publicKey }, context, id);
    const receipt = signReceipt(constants.networkId, { escrow: toHex(id), amount }, key);
    const servers = { driver: nodeId, workers: [nodeId], validator: nodeId };
    const paid = claim.apply(rows, { ...receipt, ...servers }, { nodeId, publicKey }, context, id);
    holds(opened.ok && paid.ok, 'pays-itself', () => `${i}`);
  }
  const share = Number(accountOf(rows, nodeId).balance - before) / Number(before);
  return { name: 'pays itself for inference', share, identities: 1 };
}

/** How soon each cheat in the work is found, when one proof in five has it. */
export function caughtShares(seed: number, provers: number): readonly (readonly [string, number])[] {
  return Object.entries(trainingCheats).map(([name, cheat]) => [name, caughtShare(seed, provers, cheat)]);
}

function meanOf<One>(all: readonly One[], value: (one: One) => number): number {
  return all.reduce((sum, one) => sum + value(one), 0) / all.length;
}
