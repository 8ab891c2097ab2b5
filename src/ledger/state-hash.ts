/**
 * The state hash: what names the agreed state (plan, r, w_r, v) of a stage. How the leaves under its root are cut is the
 * business of who holds the state.
 */
import { taggedHash } from '../std/hash.ts';

/** H(plan, r, leaf count, Merkle root), 32 bytes. `plan` names architecture and stage, 32 bytes. */
export function stateHashOfRoot(
  plan: Uint8Array,
  round: number,
  leaves: number,
  root: Uint8Array,
): Uint8Array {
  const position = new DataView(new ArrayBuffer(12));
  position.setBigUint64(0, BigInt(round), true);
  position.setUint32(8, leaves, true);
  return taggedHash('neuroshard/state/1', plan, new Uint8Array(position.buffer), root);
}
