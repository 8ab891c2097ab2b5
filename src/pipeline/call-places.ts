/**
 * Places for calls to each node, as many as the transport has on their way at once: a call that waits for others within
 * the transport would be held to be silent. It makes no calls.
 */
import { requestsAtOnceMax } from '../net/limits.ts';
import type { NodeId } from '../net/transport.ts';

export interface CallPlaces {
  /** In the order of asking; the result gives the place back. Undefined when the signal aborts or the wait is in vain. */
  take(node: NodeId, signal: AbortSignal): Promise<(() => void) | undefined>;
  /** Nobody waits for this node any longer. */
  dismiss(node: NodeId): void;
}

interface Places {
  taken: number;
  readonly waiting: Set<(isFree: boolean) => void>;
}

export function createCallPlaces(most = requestsAtOnceMax): CallPlaces {
  const nodes = new Map<NodeId, Places>();

  const leave = (node: NodeId, places: Places) => {
    const [next] = places.waiting;
    if (next) return next(true);
    places.taken -= 1;
    if (places.taken === 0) nodes.delete(node);
  };
  const turn = (places: Places, signal: AbortSignal) =>
    new Promise<boolean>((resolve) => {
      const end = (isFree: boolean) => {
        places.waiting.delete(end);
        signal.removeEventListener('abort', onAbort);
        resolve(isFree);
      };
      const onAbort = () => end(false);
      signal.addEventListener('abort', onAbort, { once: true });
      places.waiting.add(end);
    });
  return {
    take: async (node, signal) => {
      if (signal.aborted) return undefined;
      const places = nodes.get(node) ?? { taken: 0, waiting: new Set() };
      nodes.set(node, places);
      if (places.taken < most) places.taken += 1;
      else if (!(await turn(places, signal))) return undefined;
      let left = false;
      return () => {
        if (!left) leave(node, places);
        left = true;
      };
    },
    dismiss: (node) => {
      for (const end of [...(nodes.get(node)?.waiting ?? [])]) end(false);
    },
  };
}
