/**
 * How long a round may take: learnt from when contributions arrived in past rounds (median + k·MAD), never a fixed
 * guess. Durations are measured from the node's own start of the round.
 */

export interface RoundDeadline {
  /** Records when each contribution of a closed round arrived, in milliseconds after the round's start. */
  record(arrivalsMs: readonly number[]): void;
  /** When a node that is still training should contribute what it has; undefined while nothing is known. */
  trainingMs(): number | undefined;
  /** When to decide with what has come. `arrivedMs`: arrivals so far; `members`: how many could arrive. */
  collectingMs(arrivedMs: readonly number[], members: number): number | undefined;
}

const roundsRemembered = 8;
/** MADs above the median: 1.4826 MAD estimates one standard deviation, so this is about four of them. */
const madFactor = 6;
/** Share of the median that always is allowed on top: short histories underestimate the spread. */
const allowance = 0.25;
const graceMsMin = 1_500;

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

export function medianPlusMad(values: readonly number[], k: number): number {
  const center = median(values);
  return center + k * median(values.map((value) => Math.abs(value - center)));
}

export function createRoundDeadline(): RoundDeadline {
  const history: (readonly number[])[] = [];
  const trainingMs = () => {
    const arrivals = history.flat();
    if (arrivals.length === 0) return undefined;
    return medianPlusMad(arrivals, madFactor) + allowance * median(arrivals);
  };
  return {
    record: (arrivalsMs) => {
      if (arrivalsMs.length === 0) return;
      history.push(arrivalsMs.slice());
      if (history.length > roundsRemembered) history.shift();
    },
    trainingMs,
    collectingMs: (arrivedMs, members) => {
      const learnt = trainingMs();
      if (learnt !== undefined) return learnt + Math.max(graceMsMin, allowance * learnt);
      // Nothing is known in the first round: wait as long again as the first half of the members took.
      if (2 * arrivedMs.length <= members) return undefined;
      const half = [...arrivedMs].sort((a, b) => a - b)[Math.floor(members / 2)]!;
      return 2 * half + graceMsMin;
    },
  };
}
