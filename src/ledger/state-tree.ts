/**
 * The Merkle tree over all rows of the ledger's state: a sparse binary tree whose paths are hashed keys, in which a
 * subtree with one row is that row's leaf. So its shape, and the root, depend on the rows alone and not on how they came,
 * and a short proof shows that a row is there, or is not. Knows rows as bytes only.
 * Source: the compact sparse Merkle tree of Jellyfish (Gao, Hu and Wu, 2021), without its versions.
 */
import { equalBytes, utf8 } from '../std/bytes.ts';
import { sha256 } from '../std/hash.ts';
import type { TableName } from './tables.ts';

export interface RowProof {
  /** Hashes beside the path, from the root down. */
  readonly siblings: readonly Uint8Array[];
  /** Where the path ends: at a leaf (of this row, or of another in its place), or at nothing. */
  readonly leaf: { readonly path: Uint8Array; readonly row: Uint8Array } | null;
}

interface Leaf {
  readonly path: Uint8Array;
  row: Uint8Array;
  hash: Uint8Array | undefined;
}

interface Inner {
  left: Node;
  right: Node;
  /** Absent after a change below. */
  hash: Uint8Array | undefined;
}

type Node = Leaf | Inner | undefined;

const emptyHash = new Uint8Array(32);
/** A prefix and two hashes, for one node after another: thousands are hashed for a full block. */
const leafBytes = new Uint8Array(65);
const innerBytes = new Uint8Array(65).fill(1, 0, 1);

/** 256 bits that say where a row's leaf is. Table names hold no slash, so no two rows share a preimage. */
function pathOf(table: TableName, key: string): Uint8Array {
  return sha256(utf8(`${table}/${key}`));
}

function bitOf(path: Uint8Array, depth: number): number {
  return (path[depth >> 3]! >> (7 - (depth & 7))) & 1;
}

function isLeaf(node: Leaf | Inner): node is Leaf {
  return 'path' in node;
}

function leafHash(path: Uint8Array, row: Uint8Array): Uint8Array {
  return pairHash(leafBytes, path, row);
}

function innerHash(left: Uint8Array, right: Uint8Array): Uint8Array {
  return pairHash(innerBytes, left, right);
}

function pairHash(prefixed: Uint8Array, first: Uint8Array, second: Uint8Array): Uint8Array {
  prefixed.set(first, 1);
  prefixed.set(second, 33);
  return sha256(prefixed);
}

function hashOf(node: Node): Uint8Array {
  if (!node) return emptyHash;
  if (isLeaf(node)) return (node.hash ??= leafHash(node.path, node.row));
  return (node.hash ??= innerHash(hashOf(node.left), hashOf(node.right)));
}

/** The subtree after a leaf was put into it. Hashes on the way are dropped and made when the root is asked for. */
function insert(node: Node, leaf: Leaf, depth: number): Leaf | Inner {
  if (!node) return leaf;
  if (!isLeaf(node)) {
    if (bitOf(leaf.path, depth)) node.right = insert(node.right, leaf, depth + 1);
    else node.left = insert(node.left, leaf, depth + 1);
    node.hash = undefined;
    return node;
  }
  if (equalBytes(node.path, leaf.path)) return leaf;
  const below = bitOf(node.path, depth) === bitOf(leaf.path, depth);
  const inner: Inner = { left: undefined, right: undefined, hash: undefined };
  if (below) {
    const child = insert(node, leaf, depth + 1);
    if (bitOf(leaf.path, depth)) inner.right = child;
    else inner.left = child;
  } else if (bitOf(leaf.path, depth)) {
    inner.left = node;
    inner.right = leaf;
  } else {
    inner.left = leaf;
    inner.right = node;
  }
  return inner;
}

function remove(node: Node, path: Uint8Array, depth: number): Node {
  if (!node) return undefined;
  if (isLeaf(node)) return equalBytes(node.path, path) ? undefined : node;
  if (bitOf(path, depth)) node.right = remove(node.right, path, depth + 1);
  else node.left = remove(node.left, path, depth + 1);
  node.hash = undefined;
  const { left, right } = node;
  // A subtree with a single leaf is that leaf, however it came to be the last one.
  if (!left && (!right || isLeaf(right))) return right;
  if (!right && left && isLeaf(left)) return left;
  return node;
}

export interface StateTree {
  /** `row`: its canonical bytes; undefined takes it away. */
  set(table: TableName, key: string, row: Uint8Array | undefined): void;
  /** 32 bytes; zeros for no rows. */
  root(): Uint8Array;
  prove(table: TableName, key: string): RowProof;
}

export function createStateTree(): StateTree {
  let top: Node;
  return {
    set: (table, key, row) => {
      const path = pathOf(table, key);
      top = row ? insert(top, { path, row: sha256(row), hash: undefined }, 0) : remove(top, path, 0);
    },
    root: () => hashOf(top),
    prove: (table, key) => {
      const path = pathOf(table, key);
      const siblings: Uint8Array[] = [];
      let node = top;
      for (let depth = 0; node && !isLeaf(node); depth++) {
        siblings.push(hashOf(bitOf(path, depth) ? node.left : node.right));
        node = bitOf(path, depth) ? node.right : node.left;
      }
      return { siblings, leaf: node ? { path: node.path, row: node.row } : null };
    },
  };
}

const pathBits = 256;

/**
 * Whether `root` says that the row is there with just these bytes or, for undefined, that there is none. The proof may
 * come from anyone.
 */
export function verifyRowProof(
  root: Uint8Array,
  table: TableName,
  key: string,
  row: Uint8Array | undefined,
  proof: RowProof,
): boolean {
  const { siblings, leaf } = proof;
  if (siblings.length > pathBits || siblings.some((sibling) => sibling.length !== 32)) return false;
  if (leaf && (leaf.path.length !== 32 || leaf.row.length !== 32)) return false;
  const path = pathOf(table, key);
  const isHere = leaf !== null && equalBytes(leaf.path, path);
  if (row ? !isHere || !equalBytes(leaf.row, sha256(row)) : isHere) return false;
  // Another row's leaf stands in this row's place only if its path leads there, too.
  if (leaf && !isHere) {
    for (let depth = 0; depth < siblings.length; depth++) {
      if (bitOf(leaf.path, depth) !== bitOf(path, depth)) return false;
    }
  }
  let hash = leaf ? leafHash(leaf.path, leaf.row) : emptyHash;
  for (let depth = siblings.length - 1; depth >= 0; depth--) {
    const sibling = siblings[depth]!;
    hash = bitOf(path, depth) ? innerHash(sibling, hash) : innerHash(hash, sibling);
  }
  return equalBytes(hash, root);
}
