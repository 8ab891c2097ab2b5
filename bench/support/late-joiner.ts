/**
 * A local network of four whose last node is started when the others have closed a round, so that it fetches a state
 * from them while they train. Ends when all four have closed the last round.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createChildGroup, describeExit } from '../../src/cli/child-nodes.ts';
import { clusterOf, type SwarmOptions } from '../../src/cli/swarm.ts';

/** Starts of nodes inherit this process's environment: the caller sets there what they are to load. */
export async function runLateJoiner(
  options: Pick<SwarmOptions, 'preset' | 'rounds' | 'innerSteps' | 'compression' | 'seed'> & {
    batch?: number;
  },
): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), 'late-joiner-'));
  const whole = { nodes: 4, stages: 1, microbatches: 1, activations: 'bf16' } as const;
  const rest = { attackers: 0, attack: 'zero', aggregator: 'default', heldOutBatches: 1, ...whole } as const;
  const cluster = await clusterOf({ ...options, ...rest }, directory, false);
  const late = cluster.nodes.at(-1)!.spec;
  const { promise: over, resolve, reject } = Promise.withResolvers<void>();
  const finished = new Set<string>();
  const group = createChildGroup({
    onEvent: (name, event) => {
      if (event.type === 'round' && !group.get(late.name)) group.start(late);
      if (event.type === 'finished' && finished.add(name).size === cluster.nodes.length) resolve();
    },
    onExit: (name, status) => {
      if (!finished.has(name)) reject(new Error(`${name}: ${describeExit(status)}`));
    },
  });
  try {
    for (const { spec } of cluster.nodes) if (spec !== late) group.start(spec);
    await over;
  } finally {
    await group.stopAll();
    await rm(directory, { recursive: true, force: true });
  }
}
