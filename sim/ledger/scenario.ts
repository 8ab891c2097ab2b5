/**
 * Scenario `audits`: who falsifies a fifth of its proofs is caught within 50, no cheater earns what honest work earns, and
 * nobody honest is convicted. Numbers are of one seed; over many, the means.
 */
import { defaultLedgerPolicy, type LedgerPolicy } from '../../src/ledger/policy.ts';
import { holds, type Scenario } from '../scenario.ts';
import { type EconomyResult, runEconomy } from './economy.ts';
import { cheaters, falsifies, honest } from './strategies.ts';

/** One audit rate for all sizes of the network. */
export function policyAt(rate: number, changes: Partial<LedgerPolicy> = {}): LedgerPolicy {
  const auditRates = [{ below: Number.MAX_SAFE_INTEGER, rate }];
  return { ...defaultLedgerPolicy, auditsPerBlockMax: 256, auditsOpenMax: 4096, auditRates, ...changes };
}

export function assertSound(result: EconomyResult): void {
  holds(result.falsePassed === 0, 'recognised', () => `${result.falsePassed} false intervals passed`);
  holds(result.wronged === 0, 'no-wronged', () => `${result.wronged} honest provers were convicted`);
}

/**
 * Share of provers that falsify 20% of their proofs and are convicted for one of the first 50, at an audit rate of 20%
 * and without a bond, whose audits would find them sooner.
 */
export function caughtShare(seed: number, provers: number): number {
  const operators = Array.from({ length: provers }, () => falsifies(0.2));
  const policy = policyAt(200, { bondProofs: 0 });
  const result = runEconomy({ seed, policy, operators, comeBack: false, auditors: 7, blocks: 50 });
  assertSound(result);
  return result.operators.filter(({ caughtAfter }) => caughtAfter !== undefined).length / provers;
}

export interface ProfitRow {
  readonly name: string;
  /** Of honest profit. */
  readonly share: number;
  readonly identities: number;
}

export interface ProfitOptions {
  readonly seed: number;
  /** Thousandths of proofs audited. */
  readonly rate: number;
  /** Operators of each kind. */
  readonly each: number;
  readonly hours?: number;
  /** Between two proofs of one operator; 6 unless said. Where few are audited rewards vest over more proofs. */
  readonly minutes?: number;
}

/** A day of honest work, of half as much, and of every cheater, whose convicted identities are thrown away. */
export function dayOfProfits({
  seed,
  rate,
  each,
  hours = 24,
  minutes = 6,
}: ProfitOptions): readonly ProfitRow[] {
  const kinds = [['honest', honest], ['honest, half as much', honest], ...Object.entries(cheaters)] as const;
  const operators = kinds.flatMap(([, strategy]) => Array.from({ length: each }, () => strategy));
  const every = kinds.flatMap((_, i) =>
    Array.from({ length: each }, () => (i === 1 ? 2 * minutes : minutes)),
  );
  const blocks = 60 * hours;
  const result = runEconomy({
    seed,
    policy: policyAt(rate),
    operators,
    comeBack: true,
    auditors: 7,
    blocks,
    every,
  });
  assertSound(result);
  const profits = kinds.map((_, kind) => {
    const own = result.operators.slice(kind * each, (kind + 1) * each);
    const mean = (value: (one: (typeof own)[number]) => number) =>
      own.reduce((sum, one) => sum + value(one), 0) / each;
    return { profit: mean(({ profit }) => profit), identities: mean(({ identities }) => identities) };
  });
  const full = profits[0]!.profit;
  holds(full > 0, 'honest-positive', () => `honest profit ${full}`);
  return kinds.map(([name], i) => ({
    name,
    share: profits[i]!.profit / full,
    identities: profits[i]!.identities,
  }));
}

export const auditsScenario: Scenario = {
  name: 'audits',
  description: 'provers that cheat on the ledger: how soon they are caught, and what it earns them',
  run: async (seed) => {
    const caught = caughtShare(seed, 200);
    // 1 − (1 − 0.2 · 0.2)^50 = 0.87; of 200, three deviations are 0.07.
    holds(caught >= 0.8, 'caught', () => `${caught}`);
    const rows = dayOfProfits({ seed, rate: 200, each: 4 });
    for (const { name, share } of rows.slice(2)) {
      // Who cheats so seldom is paid for its honest work while its luck lasts; only the mean of many days is below it.
      const isSeldom = name === 'falsifies 1%';
      holds(isSeldom || share <= 0.05, 'no-profit', () => `${name}: ${share} of honest profit`);
    }
    holds(rows[1]!.share > 0 && rows[1]!.share < 1, 'more-earns-more', () => `${rows[1]!.share}`);
    const shares = rows.map(({ name, share }) => `${name} ${share.toFixed(2)}`).join(', ');
    const numbers = Object.fromEntries(rows.map(({ name, share }) => [name, share]));
    return {
      summary: `caught ${caught.toFixed(3)}; profit: ${shares}`,
      trace: Math.round(caught * 1e6),
      numbers: { caught, ...numbers },
    };
  },
};
