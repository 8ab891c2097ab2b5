/**
 * Applies BPE merges to one word: the pair of lowest rank first, left to right. Short words are merged in passes;
 * long ones with a heap, so that a hostile word of a megabyte costs n·log n and not n². Both give the same ids.
 */

/** id pairs are keyed as left·2^20 + right. */
const stride = 1 << 20;
const shortWordBytesMax = 48;

export interface MergeTable {
  /** Rank by pair key. */
  readonly ranks: ReadonlyMap<number, number>;
  /** Id that a merge gives, by rank. */
  readonly merged: readonly number[];
}

/** `merges` are [left, right, merged] in order of rank; of a pair listed twice the first counts. */
export function mergeTable(
  merges: readonly (readonly [number, number, number])[],
  vocabularySize: number,
): MergeTable {
  if (vocabularySize > stride) throw new RangeError(`at most ${stride} tokens`);
  const ranks = new Map<number, number>();
  for (const [rank, [left, right]] of merges.entries()) {
    const key = left * stride + right;
    if (!ranks.has(key)) ranks.set(key, rank);
  }
  return { ranks, merged: merges.map(([, , id]) => id) };
}

/** Ids of the merged word; `ids` (one for each byte) may be overwritten. */
export function mergeWord(ids: number[], table: MergeTable): number[] {
  return ids.length <= shortWordBytesMax ? mergeInPasses(ids, table) : mergeWithHeap(ids, table);
}

export function mergeInPasses(ids: number[], { ranks, merged }: MergeTable): number[] {
  for (;;) {
    let bestRank = Number.POSITIVE_INFINITY;
    let best = -1;
    for (let i = 1; i < ids.length; i++) {
      const rank = ranks.get(ids[i - 1]! * stride + ids[i]!);
      if (rank !== undefined && rank < bestRank) {
        bestRank = rank;
        best = i - 1;
      }
    }
    if (best < 0) return ids;
    ids[best] = merged[bestRank]!;
    ids.splice(best + 1, 1);
  }
}

/** A linked list over the word and a heap of candidate merges, ordered by (rank, position). */
export function mergeWithHeap(ids: number[], { ranks, merged }: MergeTable): number[] {
  const length = ids.length;
  const next = Int32Array.from({ length }, (_, i) => (i + 1 < length ? i + 1 : -1));
  const previous = Int32Array.from({ length }, (_, i) => i - 1);
  const heap: number[] = [];
  // A candidate is rank·2^26 + position in one exact number: words are shorter than 2^26 bytes.
  const offer = (left: number) => {
    const right = left < 0 ? -1 : next[left]!;
    if (right < 0) return;
    const rank = ranks.get(ids[left]! * stride + ids[right]!);
    if (rank !== undefined) heapPush(heap, rank * positionsMax + left);
  };
  for (let i = 0; i < length; i++) offer(i);
  for (let candidate = heapPop(heap); candidate !== undefined; candidate = heapPop(heap)) {
    const left = candidate % positionsMax;
    const rank = Math.floor(candidate / positionsMax);
    const right = next[left]!;
    // Stale: one of the two has since been merged into something else.
    if (ids[left]! < 0 || right < 0 || ranks.get(ids[left]! * stride + ids[right]!) !== rank) continue;
    ids[left] = merged[rank]!;
    ids[right] = -1;
    next[left] = next[right]!;
    if (next[right]! >= 0) previous[next[right]!] = left;
    offer(previous[left]!);
    offer(left);
  }
  return ids.filter((id) => id >= 0);
}

const positionsMax = 1 << 26;

function heapPush(heap: number[], value: number): void {
  let child = heap.push(value) - 1;
  while (child > 0) {
    const parent = (child - 1) >> 1;
    if (heap[parent]! <= value) break;
    heap[child] = heap[parent]!;
    child = parent;
  }
  heap[child] = value;
}

function heapPop(heap: number[]): number | undefined {
  const top = heap[0];
  const last = heap.pop();
  if (heap.length === 0 || last === undefined) return top;
  let parent = 0;
  for (;;) {
    let child = 2 * parent + 1;
    if (child >= heap.length) break;
    if (child + 1 < heap.length && heap[child + 1]! < heap[child]!) child++;
    if (heap[child]! >= last) break;
    heap[parent] = heap[child]!;
    parent = child;
  }
  heap[parent] = last;
  return top;
}
