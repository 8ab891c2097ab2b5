/**
 * Keeps a stage's weights still from a microbatch's forward to its backward: many microbatches pass at once, an
 * optimizer step waits until those inside have left and holds back the others. It knows no weights.
 */
export interface WeightsGate {
  /** Waits while a step is waiting or running; the result lets go. */
  enter(): Promise<() => void>;
  /** Runs alone. Steps run in the order they were asked for. */
  alone<T>(step: () => Promise<T>): Promise<T>;
}

export function createWeightsGate(): WeightsGate {
  let inside = 0;
  let steps = 0;
  let waiting: (() => void)[] = [];
  let tail: Promise<unknown> = Promise.resolve();

  const changed = () => {
    const resumed = waiting;
    waiting = [];
    for (const resume of resumed) resume();
  };
  const change = () => new Promise<void>((resolve) => waiting.push(resolve));

  return {
    enter: async () => {
      while (steps > 0) await change();
      inside++;
      let left = false;
      return () => {
        if (left) return;
        left = true;
        inside--;
        changed();
      };
    },
    alone: (step) => {
      steps++;
      const turn = tail.then(async () => {
        while (inside > 0) await change();
        return step();
      });
      tail = turn.then(
        () => {},
        () => {},
      );
      return turn.finally(() => {
        steps--;
        changed();
      });
    },
  };
}
