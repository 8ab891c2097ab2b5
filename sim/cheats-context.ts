/** What a cheat needs to know of the node it lives in. */
import type { PeerOptions } from '../src/peer/peer.ts';

export interface CheatContext {
  readonly honest: PeerOptions;
  /** Whether it cheats in that round. */
  readonly cheatsIn: (round: number) => boolean;
  /** Whether it cheats in the round in which the node stands. */
  readonly cheatsNow: () => boolean;
}
