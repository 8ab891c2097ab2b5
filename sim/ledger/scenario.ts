/**
 * Scenarios of the economy. `audits`: who falsifies a fifth of its proofs is caught within 50, and nobody honest is
 * convicted. `economy`: a day of each way to cheat, provers, members and payers, against honest work.
 */
import { holds, type Scenario } from '../scenario.ts';
import {
  caughtShare,
  caughtShares,
  memberProfits,
  type ProfitRow,
  proverProfits,
  selfPayingShare,
} from './profits.ts';
import { isSeldom } from './strategies.ts';

/** At most this part of honest profit is left to a cheater. */
const shareMax = 0.05;

/** More honest work earns more; who cheats has next to nothing of it, and never more than who does not. */
export function assertNoProfit(
  rate: number,
  provers: readonly ProfitRow[],
  others: readonly ProfitRow[],
): void {
  const [, half, ...cheats] = provers;
  holds(half!.share > 0 && half!.share < 1, 'more-earns-more', () => `${half!.share}`);
  for (const { name, share } of [...cheats, ...others]) {
    holds(
      share <= (isSeldom(name, rate) ? 1 : shareMax),
      'no-profit',
      () => `${name}: ${share} of honest profit`,
    );
  }
}

export const auditsScenario: Scenario = {
  name: 'audits',
  description: 'provers that falsify a fifth of their proofs: how soon they are caught',
  run: async (seed) => {
    const caught = caughtShare(seed, 200);
    // 1 − (1 − 0.2 · 0.2)^50 = 0.87; of 200, three deviations are 0.07.
    holds(caught >= 0.8, 'caught', () => `${caught}`);
    return { summary: `caught ${caught.toFixed(3)}`, trace: Math.round(caught * 1e6), numbers: { caught } };
  },
};

/** Proofs audited, in thousandths, by seed in turn: the rates of networks of all sizes. */
const rates = [500, 200, 100, 50] as const;

export const economyScenario: Scenario = {
  name: 'economy',
  means: true,
  description: 'a day of every way to cheat, against honest work; audited 50, 20, 10, 5% in turn',
  run: async (seed) => {
    const rate = rates[(seed - 1) % rates.length]!;
    const provers = proverProfits({ seed, rate, each: 4, minutes: 3 });
    const others = [...memberProfits({ seed, rate, each: 1 }), selfPayingShare()];
    assertNoProfit(rate, provers, others);
    const caught = caughtShares(seed, 40).map(([name, share]) => [`caught: ${name}`, share] as const);
    const shares = [...provers, ...others].map(
      ({ name, share }) => [`${name} at ${rate / 10}%`, share] as const,
    );
    const numbers = Object.fromEntries([...shares, ...caught]);
    const worst = [...provers.slice(2), ...others].filter(({ name }) => !isSeldom(name, rate));
    const most = worst.reduce((best, one) => (one.share > best.share ? one : best));
    return {
      summary: `${rate / 10}% audited; best cheat: ${most.name}, ${most.share.toFixed(3)} of honest profit`,
      trace: Math.round(provers.reduce((sum, { share }) => sum + share, 0) * 1e6),
      numbers,
    };
  },
};
