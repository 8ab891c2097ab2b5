/**
 * Which stage a node holds: of members by the manifest alone, the same on every node; of whoever comes later by what it
 * has heard of the others. Knows no network and no model, only bytes and rates.
 */
import type { NodeId } from '../net/transport.ts';
import { accept, type Outcome, reject } from '../std/outcome.ts';

/** Member i, in the manifest's order, holds stage i mod `stages`. */
export function assignMembers(memberIds: readonly NodeId[], stages: number): Map<NodeId, number> {
  return new Map(memberIds.map((nodeId, i) => [nodeId, i % stages]));
}

export interface NewcomerOptions {
  /** What is known of others; the newcomer's own, and stages that are not in the model, count nothing. */
  readonly announcements: readonly {
    readonly nodeId: NodeId;
    readonly stage: number;
    readonly tokensPerSecond: number;
  }[];
  readonly stages: number;
  readonly self: { readonly nodeId: NodeId; readonly memoryBytes: number };
  /** The memory bill of each stage. */
  readonly stageBytes: readonly number[];
}

/**
 * Among the stages that fit its memory: the one with the fewest replicas, then the one whose replicas together are
 * slowest, then the first. Rejects with `no-stage-fits`. A newcomer keeps its stage: nothing moves for it.
 */
export function stageForNewcomer(options: NewcomerOptions): Outcome<number> {
  const { announcements, stages, self, stageBytes } = options;
  const others = new Map(announcements.map((one) => [one.nodeId, one]));
  others.delete(self.nodeId);
  const cohorts = Array.from({ length: stages }, () => ({ replicas: 0, tokensPerSecond: 0 }));
  for (const { stage, tokensPerSecond } of others.values()) {
    const cohort = cohorts[stage];
    if (!cohort) continue;
    cohort.replicas += 1;
    cohort.tokensPerSecond += tokensPerSecond;
  }
  let chosen: number | undefined;
  for (const [stage, cohort] of cohorts.entries()) {
    if (!((stageBytes[stage] ?? Number.POSITIVE_INFINITY) <= self.memoryBytes)) continue;
    const best = chosen === undefined ? undefined : cohorts[chosen]!;
    const isNeedier =
      !best ||
      cohort.replicas < best.replicas ||
      (cohort.replicas === best.replicas && cohort.tokensPerSecond < best.tokensPerSecond);
    if (isNeedier) chosen = stage;
  }
  if (chosen !== undefined) return accept(chosen);
  const least = Math.min(...stageBytes.slice(0, stages));
  return reject(
    'no-stage-fits',
    `the smallest stage needs ${least} bytes, and ${self.memoryBytes} may be used`,
  );
}

/**
 * The smallest number of stages, up to one for each layer, whose heaviest stage fits; `bill` gives that one's bytes.
 * Rejects with `no-cut-fits`.
 */
export function stagesFor(
  memoryBytes: number,
  bill: (stages: number) => number,
  layersMax: number,
): Outcome<number> {
  for (let stages = 1; stages <= layersMax; stages++) if (bill(stages) <= memoryBytes) return accept(stages);
  return reject(
    'no-cut-fits',
    `${memoryBytes} bytes do not hold one layer of the model with all that it needs`,
  );
}
