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
  views(firstSlot: number, slots: number): Readonly<Record<string, Float32Array>>;
  /** Buffers for the new rows of a run, by the graph's names: [sequences, KV, newTokens, headWidth] each. */
  freshRows(sequences: number, newTokens: number): Record<string, Float32Array>;
  /** Copies `count` new rows of one sequence of a run behind what its slot holds. */
  store(rows: {
    readonly fresh: Readonly<Record<string, Float32Array>>;
    readonly sequence: number;
    readonly newTokens: number;
    readonly slot: number;
    readonly position: number;
    readonly count: number;
  }): void;
}

interface CacheOptions {
  readonly config: ModelConfig;
  readonly stage: StageSpec;
  readonly capacity: number;
  readonly slots: number;
  readonly width: number;
}

interface Slab {
  /** Of every layer, by the graph's names. */
  readonly arrays: Readonly<Record<string, Float32Array>>;
  /** Views that were asked for: the same again, so that the engine knows them. */
  readonly ranges: Map<number, Readonly<Record<string, Float32Array>>>;
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
export function createDecodeCache({ config, stage, capacity, slots, width }: CacheOptions): DecodeCache {
  const stride = config.kvHeads * capacity * config.headWidth;
  const layers = Array.from({ length: stage.endLayer - stage.firstLayer }, (_, i) =>
    cacheNames(stage.firstLayer + i),
  );
  const pairs = layers.flatMap(({ pastKey, newKey, pastValue, newValue }) => [
    [pastKey, newKey] as const,
    [pastValue, newValue] as const,
  ]);
  const slabs = new Map<number, Slab>();
  const taken = new Set<number>();
  const slabOf = (slot: number) => must(slabs.get(Math.floor(slot / width)), 'slab of a taken slot');
  const views = (firstSlot: number, count: number) => {
    const first = firstSlot % width;
    assert(first + count <= width, 'a run over two slabs');
    const { arrays, ranges } = slabOf(firstSlot);
    const key = first * (width + 1) + count;
    let range = ranges.get(key);
    if (!range) {
      range = Object.fromEntries(
        Object.entries(arrays).map(([name, array]) => [
          name,
          array.subarray(first * stride, (first + count) * stride),
        ]),
      );
      ranges.set(key, range);
    }
    return range;
  };
  return {
    width,
    take() {
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
      else for (const view of Object.values(views(slot, 1))) view.fill(0);
      return slot;
    },
    free(slot) {
      assert(taken.delete(slot), `slot ${slot} is free already`);
      const index = Math.floor(slot / width);
      if (![...taken].some((other) => Math.floor(other / width) === index)) slabs.delete(index);
    },
    views,
    freshRows: (sequences, newTokens) =>
      Object.fromEntries(
        pairs.map(([, fresh]) => [
          fresh,
          new Float32Array(sequences * config.kvHeads * newTokens * config.headWidth),
        ]),
      ),
    store({ fresh, sequence, newTokens, slot, position, count }) {
      const { kvHeads, headWidth } = config;
      const { arrays } = slabOf(slot);
      for (const [past, name] of pairs) {
        const rows = must(fresh[name], name);
        const cache = must(arrays[past], past);
        for (let head = 0; head < kvHeads; head++) {
          const from = (sequence * kvHeads + head) * newTokens * headWidth;
          const to = (slot % width) * stride + (head * capacity + position) * headWidth;
          if (count === 1 && headWidth <= 128)
            for (let i = 0; i < headWidth; i++) cache[to + i] = rows[from + i]!;
          else cache.set(rows.subarray(from, from + count * headWidth), to);
        }
      }
    },
  };
}
