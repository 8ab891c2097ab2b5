/**
 * What is kept of epochs across a crash: how each began, how it ended, and its replica's own journal, each under keys of
 * the epoch's own, so that old ones can be forgotten whole. Knows nothing of who writes when.
 */
import { CodedError } from '../std/outcome.ts';
import type { Store } from '../std/store.ts';
import { decodeStart, encodeStart } from './epoch-end.ts';
import type { EpochRun, EpochStart } from './epoch-types.ts';
import { decodeRun, encodeRun } from './epoch-wire.ts';
import type { ConsensusLimits } from './limits.ts';

export interface EpochJournal {
  /** By epoch: those that began here and are not forgotten. */
  starts(): Promise<ReadonlyMap<number, EpochStart>>;
  putStart(start: EpochStart): Promise<void>;
  /** The block that ended the epoch, and what certifies it. */
  end(epoch: number): Promise<EpochRun | undefined>;
  putEnd(end: EpochRun): Promise<void>;
  /** Where the epoch's replica writes. */
  storeOf(epoch: number): Store;
  /** Forgets all of epochs before `blocks` but their ends, and the ends of those before `ends`. */
  prune(before: { readonly blocks: number; readonly ends: number }): Promise<void>;
}

const prefix = 'consensus/epoch/';

function epochKey(epoch: number, name: string): string {
  return `${prefix}${String(epoch).padStart(16, '0')}/${name}`;
}

function epochOf(key: string): number {
  return Number.parseInt(key.slice(prefix.length, prefix.length + 16), 10);
}

/** Throws CodedError `consensus-store-damaged` on reading what this code did not write. */
export function openEpochJournal(store: Store, networkId: Uint8Array, limits: ConsensusLimits): EpochJournal {
  return {
    async starts() {
      const starts = new Map<number, EpochStart>();
      for (const key of await store.list(prefix)) {
        if (key !== epochKey(epochOf(key), 'start')) continue;
        const start = decodeStart((await store.get(key))!, limits);
        if (!start.ok || start.value.epoch !== epochOf(key)) throw damaged(key);
        starts.set(start.value.epoch, start.value);
      }
      return starts;
    },
    putStart: (start) => store.put(epochKey(start.epoch, 'start'), encodeStart(start)),
    async end(epoch) {
      const key = epochKey(epoch, 'end');
      const bytes = await store.get(key);
      if (bytes === undefined) return undefined;
      const run = decodeRun(bytes, networkId, limits);
      if (!run.ok || run.value.epoch !== epoch || run.value.blocks.length === 0) throw damaged(key);
      return run.value;
    },
    putEnd: (end) => store.put(epochKey(end.epoch, 'end'), encodeRun(end)),
    storeOf: (epoch) => scoped(store, epochKey(epoch, '')),
    async prune({ blocks, ends }) {
      for (const key of await store.list(prefix)) {
        const epoch = epochOf(key);
        if (epoch < ends || (epoch < blocks && key !== epochKey(epoch, 'end'))) await store.delete(key);
      }
    },
  };
}

function scoped(store: Store, scope: string): Store {
  return {
    get: (key) => store.get(scope + key),
    put: (key, value) => store.put(scope + key, value),
    delete: (key) => store.delete(scope + key),
    list: async (wanted) => (await store.list(scope + wanted)).map((key) => key.slice(scope.length)),
  };
}

function damaged(key: string): CodedError {
  return new CodedError('consensus-store-damaged', `the consensus store is damaged at ${key}`);
}
