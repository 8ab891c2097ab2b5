/**
 * The memory of a decode stage's key/value caches: slabs of neighbouring slots, one slot for each session, so that a
 * batch reads a range of slots as it lies there and nothing is copied but the new rows. It knows no sessions.
 */
import { assert, must } from '../std/assert.ts';
import type { ModelConfig } from './config.ts';
import { cacheNames } from './decode-graph.ts';
import type { StageSpec } from './parameters.ts';

export interface DecodeCache {
  /** Slots that lie together: the widest batch, 1, 8 or 32. */
  readonly width: number;
  /** The lowest free slot, its memory zeroed. There must be one. */
  take(): number;
  free(slot: number): void;
  /** [slots, KV, capacity, headWidth] of every layer, by the graph's names; the range lies in one slab. */
  views(firstSlot: number, slots: number): Views;
  /** Buffers for the new rows of a run, by the graph's names: [sequences, KV, newTokens, headWidth] each. */
  freshRows(sequences: number, newTokens: number): Record<string, Float32Array>;
  /** Copies `count` new rows of one sequence of a run behind what its slot holds. */
  store(rows: NewRows): void;
}

interface NewRows {
  readonly fresh: Views;
  readonly sequence: number;
  readonly newTokens: number;
  readonly slot: number;
  readonly position: number;
  readonly count: number;
}

/** By the graph's names. */
type Views = Readonly<Record<string, Float32Array>>;

interface CacheOptions {
  readonly config: ModelConfig;
  readonly stage: StageSpec;
  readonly capacity: number;
  readonly slots: number;
  readonly width: number;
}

interface Slab {
  /** Of every layer. */
  readonly arrays: Views;
  /** Views that were asked for: the same again, so that the engine knows them. */
  readonly ranges: Map<number, Views>;
}

interface Cache {
  readonly options: CacheOptions;
  /** Elements of one slot in one array. */
  readonly stride: number;
  /** Of the keys and of the values of every layer: where the past lies, and where new rows come. */
  readonly pairs: readonly (readonly [past: string, fresh: string])[];
  readonly slabs: Map<number, Slab>;
  readonly taken: Set<number>;
}

/** Bytes of one session's keys and values at this stage. */
export function sessionCacheBytes(config: ModelConfig, stage: StageSpec, capacity: number): number {
  return (stage.endLayer - stage.firstLayer) * 2 * config.kvHeads * capacity * config.headWidth * 4;
}

/** How many slots the memory holds in whole slabs, the widest that fit; a stage without layers needs none and gets 1024. */
export function slotsOf(bytesMax: number, sessionBytes: number): { slots: number; width: number } {
  const most = sessionBytes === 0 ? 1024 : Math.min(1024, Math.floor(bytesMax / sessionBytes));
  const width = most >= 32 ? 32 : most >= 8 ? 8 : 1;
  return { slots: most - (most % width), width };
}

/** Slabs are made when their first slot is taken, and given back with their last. */
export function createDecodeCache(options: CacheOptions): DecodeCache {
  const { config, capacity, width } = options;
  const { kvHeads, headWidth } = config;
  const stride = kvHeads * capacity * headWidth;
  const cache: Cache = { options, stride, pairs: pairsOf(options), slabs: new Map(), taken: new Set() };
  return {
    width,
    take: () => take(cache),
    free: (slot) => free(cache, slot),
    views: (firstSlot, slots) => views(cache, firstSlot, slots),
    freshRows: (sequences, newTokens) => {
      const elements = sequences * kvHeads * newTokens * headWidth;
      return Object.fromEntries(cache.pairs.map(([, fresh]) => [fresh, new Float32Array(elements)]));
    },
    store: (rows) => store(cache, rows),
  };
}

function pairsOf({ stage }: CacheOptions): Cache['pairs'] {
  const layers = Array.from({ length: stage.endLayer - stage.firstLayer }, (_, i) => stage.firstLayer + i);
  return layers
    .map(cacheNames)
    .flatMap(({ pastKey, newKey, pastValue, newValue }) => [
      [pastKey, newKey] as const,
      [pastValue, newValue] as const,
    ]);
}

function take(cache: Cache): number {
  const { options, stride, pairs, slabs, taken } = cache;
  const { slots, width } = options;
  let slot = 0;
  while (taken.has(slot)) slot++;
  assert(slot < slots, 'no free slot');
  taken.add(slot);
  const index = Math.floor(slot / width);
  if (!slabs.has(index))
    slabs.set(index, {
      arrays: Object.fromEntries(pairs.map(([past]) => [past, new Float32Array(width * stride)])),
      ranges: new Map(),
    });
  // Hidden columns count zero times what they hold, which must therefore be finite.
  else for (const view of Object.values(views(cache, slot, 1))) view.fill(0);
  return slot;
}

function free({ options, slabs, taken }: Cache, slot: number): void {
  assert(taken.delete(slot), `slot ${slot} is free already`);
  const slabIndex = (one: number) => Math.floor(one / options.width);
  const index = slabIndex(slot);
  if (![...taken].some((other) => slabIndex(other) === index)) slabs.delete(index);
}

function slabOf({ options, slabs }: Cache, slot: number): Slab {
  return must(slabs.get(Math.floor(slot / options.width)), 'slab of a taken slot');
}

function views(cache: Cache, firstSlot: number, count: number): Views {
  const { stride } = cache;
  const { width } = cache.options;
  const first = firstSlot % width;
  assert(first + count <= width, 'a run over two slabs');
  const { arrays, ranges } = slabOf(cache, firstSlot);
  const key = first * (width + 1) + count;
  let range = ranges.get(key);
  if (!range) {
    const part = (array: Float32Array) => array.subarray(first * stride, (first + count) * stride);
    range = Object.fromEntries(Object.entries(arrays).map(([name, array]) => [name, part(array)]));
    ranges.set(key, range);
  }
  return range;
}

function store(cache: Cache, { fresh, sequence, newTokens, slot, position, count }: NewRows): void {
  const { capacity, width, config } = cache.options;
  const { kvHeads, headWidth } = config;
  const { arrays } = slabOf(cache, slot);
  for (const [past, name] of cache.pairs) {
    const rows = must(fresh[name], name);
    const kept = must(arrays[past], past);
    for (let head = 0; head < kvHeads; head++) {
      const from = (sequence * kvHeads + head) * newTokens * headWidth;
      const to = (slot % width) * cache.stride + (head * capacity + position) * headWidth;
      // For so few elements a view costs more than the copy.
      if (count === 1 && headWidth <= 128) for (let i = 0; i < headWidth; i++) kept[to + i] = rows[from + i]!;
      else kept.set(rows.subarray(from, from + count * headWidth), to);
    }
  }
}
