/** How provers of the simulated economy behave: one who works, and those who would rather be paid for nothing. */
import { chance } from '../random.ts';
import { innerSteps, type Strategy } from './economy.ts';

const never = () => false;
const always = () => true;

export const honest: Strategy = () => ({ steps: innerSteps, isFalse: never });

/** Whole proofs, with this probability. */
export const falsifies =
  (share: number): Strategy =>
  (_count, random) => ({ steps: innerSteps, isFalse: chance(random, share) ? always : never });

export const cheaters = {
  'does nothing': falsifies(1),
  'falsifies 20%': falsifies(0.2),
  'falsifies 1%': falsifies(0.01),
  'every fourth interval': () => ({ steps: innerSteps, isFalse: (interval) => interval % 4 === 3 }),
  'honest until bonded': (count) => ({ steps: innerSteps, isFalse: count < 20 ? never : always }),
  'honest for long, then one in ten': (count, random) => ({
    steps: innerSteps,
    isFalse: count < 40 || !chance(random, 0.1) ? never : always,
  }),
  'bond of small proofs, then large ones': (count) =>
    count < 20 ? { steps: 1, isFalse: never } : { steps: innerSteps, isFalse: always },
  'small proofs ripen large ones': (count) =>
    count < 20 || count % 10 === 0
      ? { steps: innerSteps, isFalse: count < 20 ? never : always }
      : { steps: 1, isFalse: never },
  'withholds evidence': () => ({ steps: innerSteps, isFalse: always, withheld: true }),
} as const satisfies Readonly<Record<string, Strategy>>;
