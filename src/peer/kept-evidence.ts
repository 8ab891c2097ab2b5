/**
 * Evidence of this node's own work over a restart: of rounds whose proofs await their draw or verdict, all that the replica
 * still has is written to the node's store when it stops, and served from there until no verdict is awaited. A node that is
 * killed has no time for that. It knows no duties.
 */
import { type EvidenceShelf, type EvidenceSource, replicaSource } from '../audit/evidence.ts';
import type { StageWork } from '../audit/provide.ts';
import { decodeStateIndex } from '../diloco/local-state.ts';
import type { StageReplica } from '../diloco/replica.ts';
import { encodeStepEvidence, rowsOf } from '../pipeline/step-evidence.ts';
import { encodeWorkList, workHash, workOf } from '../pipeline/work-list.ts';
import { toHex } from '../std/bytes.ts';
import type { HashHex } from '../std/hash.ts';
import type { Store } from '../std/store.ts';

const prefix = 'evidence/';
const indexName = (hash: HashHex) => `${prefix}index/${hash}`;
const leafName = (leafHash: Uint8Array) => `${prefix}leaf/${toHex(leafHash)}`;
const bytesName = (hash: HashHex) => `${prefix}bytes/${hash}`;

/** Written at most: a node is stopped by people who wait for it. */
export const keptBytesMax = 2 ** 30;

type Prover = Pick<StageReplica, 'record' | 'evidenceIndex' | 'evidenceLeaf'>;

export interface OwnEvidence {
  /** What is drawn already. */
  readonly shelf: EvidenceShelf;
  readonly replica: Prover;
  readonly work: StageWork | undefined;
  /** Rounds of which something may be drawn: newest first. */
  readonly rounds: readonly number[];
}

export interface KeptEvidence extends EvidenceSource {
  /** The list of a stage's steps, one of them, rows: by their SHA-256. */
  bytes(hash: HashHex): Promise<Uint8Array | undefined>;
  /** Nothing is kept. */
  readonly isEmpty: boolean;
  /** Writes what is left of it, up to so many bytes; false when they were not enough. */
  keep(evidence: OwnEvidence, bytesMax?: number): Promise<boolean>;
  /** All verdicts are there. */
  forget(): Promise<void>;
}

export async function openKeptEvidence(store: Store): Promise<KeptEvidence> {
  const names = new Set(await store.list(prefix));
  const get = async (name: string) => (names.has(name) ? store.get(name) : undefined);
  return {
    index: (hash) => get(indexName(hash)),
    leaf: async (hash, number) => {
      const encoded = await get(indexName(hash));
      const index = encoded && decodeStateIndex(encoded);
      const leafHash = index?.ok ? index.value.leaves[number] : undefined;
      return leafHash && get(leafName(leafHash));
    },
    bytes: (hash) => get(bytesName(hash)),
    get isEmpty() {
      return names.size === 0;
    },
    keep: async ({ shelf, replica, work, rounds }, bytesMax = keptBytesMax) => {
      let left = bytesMax;
      const put = async (name: string, bytes: Uint8Array) => {
        if (names.has(name)) return;
        left -= bytes.length;
        if (left < 0) throw outOfRoom;
        await store.put(name, bytes);
        names.add(name);
      };
      try {
        const { states, bytes } = shelf.contents();
        for (const hash of states) await keepState(shelf, hash, put);
        for (const hash of bytes) await put(bytesName(hash), shelf.bytesOf(hash)!);
        for (const round of [...rounds].sort((a, b) => b - a)) {
          await keepRound(replica, round, put);
          if (work) await keepSteps(work, round, put);
        }
        return true;
      } catch (error) {
        if (error === outOfRoom) return false;
        throw error;
      }
    },
    forget: async () => {
      for (const name of [...names]) {
        names.delete(name);
        await store.delete(name);
      }
    },
  };
}

const outOfRoom = new Error('no room for more evidence');

type Put = (name: string, bytes: Uint8Array) => Promise<void>;

/** The agreed state that the round began from, and of its recorded states those of which copies are kept. */
async function keepRound(replica: Prover, round: number, put: Put): Promise<void> {
  const record = await replica.record(round);
  if (!record) return;
  const kept = record.boundaries.filter((boundary) => boundary.kept).map(({ hash }) => hash);
  for (const hash of [record.base, ...kept]) await keepState(replicaSource(replica), hash, put);
}

/** Of some states only a part can be had: of agreed ones the weights. */
async function keepState(source: EvidenceSource, hash: HashHex, put: Put): Promise<void> {
  const encoded = await source.index(hash);
  const index = encoded && decodeStateIndex(encoded);
  if (!encoded || !index?.ok) return;
  await put(indexName(hash), encoded);
  for (const [number, leafHash] of index.value.leaves.entries()) {
    const bytes = await source.leaf(hash, number);
    if (bytes) await put(leafName(leafHash), bytes);
  }
}

async function keepSteps(work: StageWork, round: number, put: Put): Promise<void> {
  const steps = (await work.stepsOf(round)) ?? [];
  if (steps.length === 0) return;
  const list = workOf(steps);
  await put(bytesName(workHash(list)), encodeWorkList(list));
  for (const [i, step] of steps.entries()) {
    await put(bytesName(list[i]!.evidence), encodeStepEvidence(step));
    for (const hash of rowsOf(step)) {
      const bytes = await work.rows(hash);
      if (bytes) await put(bytesName(hash), bytes);
    }
  }
}
