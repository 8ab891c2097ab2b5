/**
 * How many generations run at once on this node. Places of one request are taken together or not at all; nobody queues,
 * because a client that is told to come again keeps no memory here.
 */

export interface Admission {
  readonly max: number;
  readonly taken: () => number;
  /** Gives the places back; undefined when there are not enough. */
  take(places: number): (() => void) | undefined;
}

export function createAdmission(max: number): Admission {
  let taken = 0;
  return {
    max,
    taken: () => taken,
    take(places) {
      if (taken + places > max) return undefined;
      taken += places;
      let isHeld = true;
      return () => {
        if (isHeld) taken -= places;
        isHeld = false;
      };
    },
  };
}
