/**
 * The stage of a node that the manifest does not name: it listens to what others announce, and takes the stage that has
 * the fewest replicas among those that fit its memory. It keeps nothing: who calls remembers the answer.
 */
import type { KeyPair } from '../identity/keys.ts';
import type { Transport } from '../net/transport.ts';
import { stageForNewcomer } from '../pipeline/assignment.ts';
import { createStageDirectory, type StageDirectory } from '../pipeline/directory.ts';
import type { StageAnnouncement } from '../pipeline/stage-announcement.ts';
import { type Clock, sleep } from '../std/clock.ts';
import type { Outcome } from '../std/outcome.ts';
import { type Random, uniform } from '../std/random.ts';
import type { EventSink } from './events.ts';
import type { NetworkManifest } from './network.ts';
import { stageBytes } from './plan.ts';

export interface NewcomerOptions {
  readonly network: NetworkManifest;
  readonly key: KeyPair;
  readonly transport: Transport;
  readonly clock: Clock;
  readonly random: Random;
  /** What this node may use. */
  readonly memoryBytes: number;
  readonly events: EventSink;
}

const pollMs = 250;
/** From the first announcement heard: longer than nodes leave between two of theirs. */
const listenMs = 8_000;
/** Newcomers who start together decide one after the other, and hear of each other. */
const apartMs = 4_000;
const lonelyMs = 10_000;

/**
 * Waits until somebody is heard of, however long that takes. Rejects with `no-stage-fits` before it listens at all; throws
 * the signal's reason.
 */
export async function chooseStage(options: NewcomerOptions, signal: AbortSignal): Promise<Outcome<number>> {
  const { network, key, memoryBytes } = options;
  const choose = (announcements: readonly StageAnnouncement[]) =>
    stageForNewcomer({
      announcements,
      stages: network.training.stages,
      self: { nodeId: key.nodeId, memoryBytes },
      stageBytes: stageBytes(network),
    });
  const possible = choose([]);
  if (!possible.ok) return possible;
  const directory = createStageDirectory({ ...options, networkId: network.networkId });
  try {
    await listen(options, directory, signal);
    const chosen = choose(heard(options, directory));
    // Said at once, for newcomers who are still listening: to be ready takes this node a while.
    if (chosen.ok) directory.announceSelf({ stage: chosen.value, memoryBytes, accepting: false });
    return chosen;
  } finally {
    directory.close();
  }
}

/** Members and whoever is connected: announcements of others cost nothing, and could make any stage look crowded. */
function heard({ network, transport }: NewcomerOptions, directory: StageDirectory): StageAnnouncement[] {
  const real = new Set([...network.members.map((member) => member.nodeId), ...transport.peers()]);
  return directory.all().filter(({ nodeId }) => real.has(nodeId));
}

/** Until somebody of every stage and every peer has been heard of, or for `listenMs` since the first. */
async function listen(
  options: NewcomerOptions,
  directory: StageDirectory,
  signal: AbortSignal,
): Promise<void> {
  const { network, transport, clock, random, events } = options;
  const startedMs = clock.nowMs();
  let firstMs: number | undefined;
  let warned = false;
  for (;;) {
    const known = heard(options, directory);
    const nowMs = clock.nowMs();
    if (known.length > 0) firstMs ??= nowMs;
    const nodes = new Set(known.map(({ nodeId }) => nodeId));
    const stages = new Set(
      known.map(({ stage }) => stage).filter((stage) => stage < network.training.stages),
    );
    const isComplete =
      stages.size === network.training.stages && transport.peers().every((peer) => nodes.has(peer));
    if (isComplete || (firstMs !== undefined && nowMs - firstMs >= listenMs)) break;
    if (firstMs === undefined && !warned && nowMs - startedMs >= lonelyMs) {
      warned = true;
      const detail =
        'no node of the network is heard of yet: waiting, to take the stage that needs this node';
      events({ type: 'warning', code: 'no-peers', detail });
    }
    await sleep(clock, pollMs, signal);
  }
  await sleep(clock, apartMs * uniform(random), signal);
}
