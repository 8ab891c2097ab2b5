/**
 * What the beacon draws: which proofs are audited, which interval of each, and by whom. Pure functions of a seed that
 * nobody knew when the proof was made. They pay and change nothing. Source: docs/proofs.md, Audits.
 */
import { utf8 } from '../std/bytes.ts';
import { taggedHash } from '../std/hash.ts';
import { seededRandom, uniformBelow } from '../std/random.ts';
import type { LedgerPolicy } from './policy.ts';
import type { DutyRow } from './tables.ts';

/** [key, duty]: one that awaits its first draw. */
export type Candidate = readonly [string, DutyRow];

export interface AuditDraw {
  /** Auditors are to be drawn now. */
  readonly now: readonly Candidate[];
  /** Audited for certain, when there is room. */
  readonly later: readonly Candidate[];
  /** Not audited: the reward begins to vest. */
  readonly passed: readonly Candidate[];
}

function drawSeed(name: string, seed: Uint8Array, key: string, tier: number): Uint8Array {
  return taggedHash(`neuroshard/${name}/1`, seed, utf8(`${key}/${tier}`));
}

/** Whether the audit of this proof is certain: a first proof, or one that was drawn before. */
const isCertain = ([, duty]: Candidate) => duty.first || duty.interval >= 0;

/**
 * Which of the candidates are audited now. The rate shrinks when the budget is short, so that what is drawn can be done;
 * half of the budget is for those whose audit is certain, so that newcomers cannot crowd out the audits of others, nor
 * others those of newcomers.
 */
export function drawAudits(
  seed: Uint8Array,
  candidates: readonly Candidate[],
  { auditsPerBlockMax: slots }: Pick<LedgerPolicy, 'auditsPerBlockMax'>,
  rate: number,
): AuditDraw {
  const ordered = inDrawnOrder(seed, candidates);
  const certain = ordered.filter(isCertain);
  const free = ordered.filter((candidate) => !isCertain(candidate));
  const freeSlots = slots - Math.min(certain.length, Math.floor(slots / 2));
  const affordable = free.length === 0 ? rate : Math.min(rate, Math.floor((1000 * freeSlots) / free.length));
  const drawn: Candidate[] = [];
  const passed: Candidate[] = [];
  for (const candidate of free) {
    const random = seededRandom(drawSeed('audit', seed, candidate[0], 0));
    (uniformBelow(random, 1000) < affordable ? drawn : passed).push(candidate);
  }
  // Chance may draw more than there is room for. Those do not wait: their provers would have to keep evidence meanwhile.
  passed.push(...drawn.slice(freeSlots));
  const queue = [...drawn.slice(0, freeSlots), ...certain];
  return { now: queue.slice(0, slots), later: queue.slice(slots), passed };
}

/** By hash with the seed: the name of a proof gives it no place in the queue. */
function inDrawnOrder(seed: Uint8Array, candidates: readonly Candidate[]): Candidate[] {
  const rank = new Map<string, number>();
  for (const [key] of candidates) {
    rank.set(key, seededRandom(drawSeed('audit-order', seed, key, 0)).uint32());
  }
  return candidates.toSorted((a, b) => rank.get(a[0])! - rank.get(b[0])! || (a[0] < b[0] ? -1 : 1));
}

/**
 * One of so many draws is the last interval, for only there the contribution is checked that everybody will use; every second
 * one where a round waits for it.
 */
const lastIntervalEvery = { always: 4, awaited: 2 };

export function drawInterval(seed: Uint8Array, key: string, intervals: number, isAwaited = false): number {
  const random = seededRandom(drawSeed('audit-interval', seed, key, 0));
  const every = isAwaited ? lastIntervalEvery.awaited : lastIntervalEvery.always;
  const isLast = uniformBelow(random, every) === 0;
  return isLast ? intervals - 1 : uniformBelow(random, intervals);
}

export interface AuditorDraw {
  readonly seed: Uint8Array;
  readonly key: string;
  readonly tier: number;
  /** [node id, weight]: those who may be drawn. Weight 0 is never drawn. */
  readonly eligible: readonly (readonly [string, number])[];
  readonly count: number;
}

/**
 * Auditors, without repetition, by voting weight: a committee drawn so has no more of the dishonest than the vote itself,
 * and whoever splits one stake over many members is drawn no more often.
 */
export function drawAuditors({ seed, key, tier, eligible, count }: AuditorDraw): string[] {
  const random = seededRandom(drawSeed('auditors', seed, key, tier));
  const left = eligible.filter(([, weight]) => weight > 0).map(([node, weight]) => [node, weight] as const);
  const drawn: string[] = [];
  while (drawn.length < count && left.length > 0) {
    const total = left.reduce((sum, [, weight]) => sum + BigInt(weight), 0n);
    let ticket = wideDraw(random) % total;
    let at = 0;
    while (ticket >= BigInt(left[at]![1])) ticket -= BigInt(left[at++]![1]);
    drawn.push(left[at]![0]);
    left.splice(at, 1);
  }
  return drawn;
}

/** 128 bits: the bias of the remainder is below 2^-60. */
function wideDraw(random: ReturnType<typeof seededRandom>): bigint {
  let value = 0n;
  for (let i = 0; i < 4; i++) value = (value << 32n) | BigInt(random.uint32());
  return value;
}
