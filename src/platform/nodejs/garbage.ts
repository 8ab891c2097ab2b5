/**
 * Settings of V8's garbage collector for a training node. Its heap is small, and every round passes contributions of
 * many times its size through array buffers, which count: with the default limits, a multiple of the small heap, whole
 * collections followed each other without a pause and took 4% of the node's CPU. Knows nothing else of the node.
 */
import { setFlagsFromString } from 'node:v8';

/** In MiB; what is young and dies in a round is then never promoted. */
const youngMiB = { first: 16, most: 32 };
/** The next whole collection comes when the heap, buffers included, has grown by this much since the last. */
const growthPercent = 400;

/** Call before the compute thread is started: sizes hold for threads made afterwards, the limits for all. */
export function tuneGarbageCollection(): void {
  setFlagsFromString(`--heap-growing-percent=${growthPercent}`);
  // It collects whenever a thread has been quiet for some seconds, which ours is in every step.
  setFlagsFromString('--no-memory-reducer');
  setFlagsFromString(`--min-semi-space-size=${youngMiB.first}`);
  setFlagsFromString(`--max-semi-space-size=${youngMiB.most}`);
}
