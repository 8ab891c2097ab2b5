/** How provers of the simulated economy behave: one who works, and those who would rather be paid for nothing. */
import { chance } from '../random.ts';
import { type Claimed, innerSteps, type Strategy } from './provers.ts';

const never = () => false;
const always = () => true;
const last = (interval: number) => interval === 9;
const whole = { steps: innerSteps } as const;

const work: Claimed = { ...whole, isFalse: never };
const nothing: Claimed = { ...whole, isFalse: always };
/** All the computing, of something else. */
const otherWork: Claimed = { ...whole, isFalse: always, isMade: always };

export const honest: Strategy = () => work;

/** In this share of its proofs the cheat, else honest. */
export const partly =
  (cheat: Strategy, share: number): Strategy =>
  (count, random) =>
    chance(random, share) ? cheat(count, random) : work;

/** Whole proofs, with this probability. */
export const falsifies = (share: number): Strategy => partly(() => nothing, share);

/** One honest proof, and from then on what the ledger's checks refuse. */
const forging =
  (forged: NonNullable<Claimed['forged']>): Strategy =>
  (count) =>
    count === 0 ? work : { ...nothing, forged };

/** Cheats in the work of a proof. */
export const trainingCheats = {
  'does nothing': () => nothing,
  'other data, labels or rows': () => otherWork,
  'half of the steps': () => ({ ...whole, isFalse: (interval) => interval >= 5 }),
  'every third interval': () => ({ ...whole, isFalse: (interval) => interval % 3 === 2 }),
  'poisons its contribution': () => ({ ...whole, isFalse: last, isMade: always }),
  'withholds evidence': () => ({ ...nothing, withheld: true }),
} as const satisfies Readonly<Record<string, Strategy>>;

export const cheaters = {
  ...trainingCheats,
  'copies a contribution': () => nothing,
  'second name for one work': () => nothing,
  'falsifies 20%': falsifies(0.2),
  'falsifies 5%': falsifies(0.05),
  'falsifies 1%': falsifies(0.01),
  'honest until bonded': (count) => (count < 20 ? work : nothing),
  'honest for long, then one in ten': (count, random) =>
    count < 40 || !chance(random, 0.1) ? work : nothing,
  'bond of small proofs, then large ones': (count) => (count < 20 ? { steps: 10, isFalse: never } : nothing),
  'small proofs ripen large ones': (count) =>
    count < 20 ? work : count % 10 === 0 ? nothing : { steps: 10, isFalse: never },
  replays: forging((honestBody, taken) => taken ?? honestBody),
  'forges the time': forging((body) => ({ ...body, timestampMs: body.timestampMs + 600_000 })),
  'inflates tokens': forging((body) => ({ ...body, tokens: 10 * body.tokens })),
  'inflates layers': forging((body) => ({ ...body, layers: 8 })),
  'claims a role': forging((body) => ({ ...body, hasHead: false })),
} as const satisfies Readonly<Record<string, Strategy>>;

/** Falsify so little that their luck may last for a day: paid for what they do honestly, and less than if they did all. */
const seldom: ReadonlySet<string> = new Set(['falsifies 5%', 'falsifies 1%']);
/** One in 200 proofs is false and audited where one in twenty is audited: in some days none. */
const seldomFound: ReadonlySet<string> = new Set(['honest for long, then one in ten']);

/** `rate`: thousandths of proofs audited. */
export function isSeldom(name: string, rate: number): boolean {
  return seldom.has(name) || (rate < 100 && seldomFound.has(name));
}
