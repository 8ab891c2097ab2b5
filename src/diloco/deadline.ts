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

/** A contribution of a round: for which stage, and when it was here, in milliseconds after the round's start. */
export interface Arrival {
  readonly stage: number;
  readonly atMs: number;
}

/** The deadlines of all stages. Each learns from its own arrivals, and goes by those of all while it has none. */
export interface StageDeadlines {
  record(arrivals: readonly Arrival[]): void;
  trainingMs(stage: number): number | undefined;
  collectingMs(stage: number, arrived: readonly Arrival[]): number | undefined;
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

/** `members`: how many belong to each stage. */
export function createStageDeadlines(members: readonly number[]): StageDeadlines {
  const ofStage = members.map(createRoundDeadline);
  const ofAll = createRoundDeadline();
  const total = members.reduce((sum, count) => sum + count, 0);
  const times = (arrivals: readonly Arrival[]) => arrivals.map(({ atMs }) => atMs);
  return {
    record: (arrivals) => {
      ofAll.record(times(arrivals));
      for (const [stage, deadline] of ofStage.entries())
        deadline.record(times(arrivals.filter((one) => one.stage === stage)));
    },
    trainingMs: (stage) => ofStage[stage]!.trainingMs() ?? ofAll.trainingMs(),
    collectingMs: (stage, arrived) => {
      const own = arrived.filter((one) => one.stage === stage);
      const due = ofStage[stage]!.collectingMs(times(own), members[stage]!);
      return due ?? ofAll.collectingMs(times(arrived), total);
    },
  };
}
