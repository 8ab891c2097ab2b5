/**
 * The storm of the pipeline scenario: besides crashes, partitions and bad weather, nodes whose network hangs while their
 * connections stand, and nodes that give signs of life and never come to an end. A stage keeps one good replica where it
 * has several. It ends in the calm.
 */
import type { Cluster } from '../cluster.ts';
import type { DilocoWorld } from '../diloco/world.ts';
import { badWeather } from '../faults.ts';
import { calm } from '../network.ts';
import { between, pick, sample, stream } from '../random.ts';

export interface PipelineStormOptions {
  readonly durationMs: number;
  /** By stage, the honest nodes. */
  readonly cohorts: readonly (readonly number[])[];
  readonly world: Pick<DilocoWorld, 'hung'>;
}

const faults = ['crash', 'crash', 'stall', 'hang', 'mend', 'mend', 'split', 'join', 'weather'] as const;

export async function runPipelineStorm(cluster: Cluster, options: PipelineStormOptions): Promise<void> {
  const { durationMs, cohorts, world } = options;
  const random = stream(cluster.seed, 'pipeline storm');
  const { hub } = cluster.network;
  const endMs = cluster.clock.nowMs() + durationMs;
  const stalled = new Set<number>();
  const idOf = (index: number) => cluster.keys[index]!.nodeId;
  const isWell = (index: number) => cluster.isUp(index) && !stalled.has(index) && !world.hung.has(index);
  const mend = async (index: number) => {
    world.hung.delete(index);
    if (stalled.delete(index)) hub.resume(idOf(index));
    if (!cluster.isUp(index)) await cluster.start(index);
  };
  while (cluster.clock.nowMs() < endMs) {
    await cluster.run(Math.min(between(random, 200, 5_000), endMs - cluster.clock.nowMs()));
    const what = pick(random, faults);
    // Of a stage with one replica that one may fail, too; of others, all but one.
    const mortal = cohorts.flatMap((cohort) => {
      const well = cohort.filter(isWell);
      return well.length > 1 || cohort.length === 1 ? well : [];
    });
    const broken = cohorts.flat().filter((index) => !isWell(index));
    if (what === 'mend' && broken.length > 0) await mend(pick(random, broken));
    else if (what === 'split') {
      const all = [...cluster.keys.keys()];
      const one = sample(random, all, 1 + (random.uint32() % (all.length - 1)));
      cluster.partition([one, all.filter((index) => !one.includes(index))]);
    } else if (what === 'join') cluster.partition(null);
    else if (what === 'weather') cluster.network.setWeather(badWeather(random));
    else if (mortal.length > 0) {
      const index = pick(random, mortal);
      if (what === 'crash') cluster.crash(index);
      else if (what === 'hang') world.hung.add(index);
      else {
        stalled.add(index);
        hub.stall(idOf(index));
      }
    }
  }
  cluster.partition(null);
  cluster.network.setWeather(calm);
  for (const index of cohorts.flat()) await mend(index);
}
