/**
 * Merkle trees over byte chunks, so that any chunk can be verified alone. Leaves and inner nodes are hashed
 * under different prefixes (second-preimage safe); an odd node moves up unchanged.
 * Source: RFC 6962 section 2.1.
 */
import { equalBytes } from './bytes.ts';
import { sha256 } from './hash.ts';

const leafPrefix = new Uint8Array([0]);
const nodePrefix = new Uint8Array([1]);

export function merkleLeaf(chunk: Uint8Array): Uint8Array {
  return sha256(leafPrefix, chunk);
}

function merkleNode(left: Uint8Array, right: Uint8Array): Uint8Array {
  return sha256(nodePrefix, left, right);
}

/** All levels, leaves first; the last level holds the root alone. No leaves: the hash of nothing. */
export function merkleLevels(leaves: readonly Uint8Array[]): Uint8Array[][] {
  if (leaves.length === 0) return [[sha256(new Uint8Array())]];
  const levels: Uint8Array[][] = [leaves.slice()];
  for (let level = levels[0]!; level.length > 1; ) {
    const above: Uint8Array[] = [];
    for (let i = 0; i < level.length; i += 2) {
      const right = level[i + 1];
      above.push(right ? merkleNode(level[i]!, right) : level[i]!);
    }
    levels.push(above);
    level = above;
  }
  return levels;
}

export function merkleRoot(leaves: readonly Uint8Array[]): Uint8Array {
  return merkleLevels(leaves).at(-1)![0]!;
}

/** Sibling hashes from leaf `index` to the root; levels where the node has no sibling are skipped. */
export function merkleProof(leaves: readonly Uint8Array[], index: number): Uint8Array[] {
  return proofFromLevels(merkleLevels(leaves), index);
}

/** The same from `merkleLevels`, for those who prove many leaves of one tree. */
export function proofFromLevels(levels: readonly (readonly Uint8Array[])[], index: number): Uint8Array[] {
  const proof: Uint8Array[] = [];
  let position = index;
  for (const level of levels.slice(0, -1)) {
    const sibling = level[position ^ 1];
    if (sibling) proof.push(sibling);
    position >>= 1;
  }
  return proof;
}

/** Whether `chunk` is leaf `index` of the `count` leaves under `root`. */
export function verifyMerkleProof(
  root: Uint8Array,
  count: number,
  index: number,
  chunk: Uint8Array,
  proof: readonly Uint8Array[],
): boolean {
  return verifyMerkleLeaf(root, count, index, merkleLeaf(chunk), proof);
}

/** The same where only the leaf's hash (`merkleLeaf`) is at hand. */
export function verifyMerkleLeaf(
  root: Uint8Array,
  count: number,
  index: number,
  leaf: Uint8Array,
  proof: readonly Uint8Array[],
): boolean {
  if (!Number.isInteger(index) || index < 0 || index >= count) return false;
  let hash = leaf;
  let position = index;
  let width = count;
  let used = 0;
  while (width > 1) {
    if ((position ^ 1) < width) {
      const sibling = proof[used++];
      if (!sibling) return false;
      hash = position % 2 === 0 ? merkleNode(hash, sibling) : merkleNode(sibling, hash);
    }
    position >>= 1;
    width = (width + 1) >> 1;
  }
  return used === proof.length && equalBytes(hash, root);
}
