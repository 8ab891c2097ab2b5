/**
 * Evidence for audits: states that provers committed to, leaf by leaf. Every leaf is checked against the committed hash, so
 * who serves it does not matter, and who has fetched a state serves it on. It knows no verdicts.
 */
import { z } from 'zod';
import {
  decodeStateIndex,
  hashOfIndex,
  type LocalTensor,
  leavesPerTensor,
  localTensors,
  type StateIndex,
} from '../diloco/local-state.ts';
import { evidenceProtocol } from '../net/protocol.ts';
import type { NodeId, Transport } from '../net/transport.ts';
import { equalBytes, fromHex, toHex } from '../std/bytes.ts';
import { decodeCanonical, encodeCanonical } from '../std/codec.ts';
import type { HashHex } from '../std/hash.ts';
import { merkleLeaf } from '../std/merkle.ts';
import { accept, type Outcome, reject } from '../std/outcome.ts';

/** Whoever may have evidence: this node's replica, its shelf, a peer. Nothing that it gives is trusted. */
export interface EvidenceSource {
  /** Encoded leaf hashes of a state. */
  index(stateHash: HashHex): Promise<Uint8Array | undefined>;
  leaf(stateHash: HashHex, index: number): Promise<Uint8Array | undefined>;
}

/** What of a replica serves evidence of its own work. */
export function replicaSource(replica: {
  evidenceIndex: EvidenceSource['index'];
  evidenceLeaf: EvidenceSource['leaf'];
}): EvidenceSource {
  return {
    index: (hash) => replica.evidenceIndex(hash),
    leaf: (hash, index) => replica.evidenceLeaf(hash, index),
  };
}

/** States that were fetched and checked: kept for the audit, and served to others until they are forgotten. */
export interface EvidenceShelf extends EvidenceSource {
  putIndex(stateHash: HashHex, encoded: Uint8Array): void;
  /** `leafHash` is that of `bytes`. Does nothing when the state's index is not there (any more). */
  putLeaf(stateHash: HashHex, index: number, leafHash: Uint8Array, bytes: Uint8Array): void;
  /** By its own hash, of whatever state: states share leaves. */
  byHash(leafHash: Uint8Array): Uint8Array | undefined;
  /** Bytes under their own SHA-256, which the caller has checked. */
  putBytes(hash: HashHex, bytes: Uint8Array): void;
  bytesOf(hash: HashHex): Uint8Array | undefined;
  /** Hashes of the states, and of the bytes, that are here. */
  contents(): { readonly states: readonly HashHex[]; readonly bytes: readonly HashHex[] };
  /** After the verdict. */
  forget(stateHash: HashHex): void;
  readonly bytes: number;
}

interface Shelved {
  readonly encoded: Uint8Array;
  readonly leaves: Map<number, string>;
}

/** Beside the states, which go by their hashes. */
const bytesPrefix = 'bytes/';
const bytesName = (hash: HashHex) => `${bytesPrefix}${hash}`;

/** Keeps at most so many bytes: the states put longest ago go first. */
export function createEvidenceShelf({ bytesMax }: { readonly bytesMax: number }): EvidenceShelf {
  const states = new Map<HashHex, Shelved>();
  const leaves = new Map<string, { readonly bytes: Uint8Array; states: number }>();
  let held = 0;
  const forget = (stateHash: HashHex) => {
    const state = states.get(stateHash);
    if (!state) return;
    states.delete(stateHash);
    held -= state.encoded.length;
    for (const hash of state.leaves.values()) {
      const leaf = leaves.get(hash)!;
      leaf.states -= 1;
      if (leaf.states > 0) continue;
      leaves.delete(hash);
      held -= leaf.bytes.length;
    }
  };
  const bound = (newest: HashHex) => {
    for (const hash of states.keys()) {
      if (held <= bytesMax || hash === newest) return;
      forget(hash);
    }
  };
  const putIndex = (name: string, encoded: Uint8Array) => {
    if (states.has(name)) return;
    states.set(name, { encoded, leaves: new Map() });
    held += encoded.length;
    bound(name);
  };
  return {
    get bytes() {
      return held;
    },
    putBytes: (hash, bytes) => putIndex(bytesName(hash), bytes),
    bytesOf: (hash) => states.get(bytesName(hash))?.encoded,
    contents: () => {
      const names = [...states.keys()];
      const isBytes = (name: string) => name.startsWith(bytesPrefix);
      return {
        states: names.filter((name) => !isBytes(name)),
        bytes: names.filter(isBytes).map((name) => name.slice(bytesPrefix.length)),
      };
    },
    index: async (stateHash) => states.get(stateHash)?.encoded,
    leaf: async (stateHash, index) => {
      const hash = states.get(stateHash)?.leaves.get(index);
      return hash === undefined ? undefined : leaves.get(hash)?.bytes;
    },
    byHash: (leafHash) => leaves.get(toHex(leafHash))?.bytes,
    putIndex,
    putLeaf: (stateHash, index, leafHash, bytes) => {
      const state = states.get(stateHash);
      if (!state || state.leaves.has(index)) return;
      const key = toHex(leafHash);
      const known = leaves.get(key);
      state.leaves.set(index, key);
      if (known) known.states += 1;
      else {
        leaves.set(key, { bytes, states: 1 });
        held += bytes.length;
      }
      bound(stateHash);
    },
    forget,
  };
}

const requestSchema = z.tuple([
  z.instanceof(Uint8Array).refine((value) => value.length === 32),
  z.number().int().min(0).nullable(),
]);

/** Answers [state hash, leaf number | null] with the leaf, or the index: `malformed`, `unknown-evidence`. */
export function serveEvidence(transport: Transport, sources: readonly EvidenceSource[]): () => void {
  return transport.handle(evidenceProtocol, async (_from, request) => {
    const decoded = decodeCanonical(request, evidenceProtocol.requestBytesMax);
    if (!decoded.ok) return decoded;
    const parsed = requestSchema.safeParse(decoded.value);
    if (!parsed.success) return reject('malformed');
    const [hash, leaf] = parsed.data;
    for (const source of sources) {
      const bytes = leaf === null ? await source.index(toHex(hash)) : await source.leaf(toHex(hash), leaf);
      if (bytes) return accept(bytes);
    }
    return reject('unknown-evidence');
  });
}

/** What of a state an audit needs: its leaf hashes, and the tensors named. */
export interface WantedState {
  readonly hash: HashHex;
  readonly tensors: readonly LocalTensor[];
}

export interface HeldState {
  readonly index: StateIndex;
  /** Leaves of the tensors that were wanted. */
  readonly tensors: Readonly<Partial<Record<LocalTensor, readonly Uint8Array[]>>>;
}

export interface EvidenceRequest {
  readonly transport: Transport;
  readonly shelf: EvidenceShelf;
  /** Asked before any peer: this node's replica, which may have been in the same round. */
  readonly local: readonly EvidenceSource[];
  /** The prover first, then whoever may have fetched it before. */
  readonly peers: readonly NodeId[];
  /** 32 bytes, of the prover's stage. */
  readonly plan: Uint8Array;
  readonly flatLength: number;
  readonly signal: AbortSignal;
}

/** Leaves asked for at a time. */
const leavesInFlight = 4;

/**
 * All that is wanted of the states, in their order, in the shelf from then on. `withheld` when nobody gives it; a peer whose
 * answer does not have its hash is penalised and not asked again.
 */
export async function fetchEvidence(
  request: EvidenceRequest,
  wanted: readonly WantedState[],
): Promise<Outcome<HeldState[]>> {
  const asking = createAsking(request);
  const held: HeldState[] = [];
  for (const { hash, tensors } of wanted) {
    const index = await asking.index(hash);
    if (!index) return reject('withheld', `the leaf hashes of state ${hash.slice(0, 16)}`);
    const got: Partial<Record<LocalTensor, readonly Uint8Array[]>> = {};
    for (const tensor of tensors) {
      const leaves = await asking.tensor(hash, index, tensor);
      if (!leaves) return reject('withheld', `${tensor} of state ${hash.slice(0, 16)}`);
      got[tensor] = leaves;
    }
    held.push({ index, tensors: got });
  }
  return accept(held);
}

function createAsking({ transport, shelf, local, peers, plan, flatLength, signal }: EvidenceRequest) {
  const usable = new Set(peers);
  const perTensor = leavesPerTensor(flatLength);

  /** Asked once for each state: a replica answers between two steps, and of most states it knows nothing. */
  const indexes = new Map<EvidenceSource, Map<HashHex, Promise<Uint8Array | undefined>>>(
    local.map((source) => [source, new Map()]),
  );
  const localIndex = (source: EvidenceSource, hash: HashHex) => {
    const known = indexes.get(source)!;
    if (!known.has(hash)) known.set(hash, source.index(hash));
    return known.get(hash)!;
  };

  /** The first answer that passes `check`, from this node or a peer. */
  const ask = async <T>(
    hash: HashHex,
    leaf: number | null,
    check: (bytes: Uint8Array) => T | undefined,
  ): Promise<T | undefined> => {
    for (const source of [shelf, ...local]) {
      const index = await (source === shelf ? shelf.index(hash) : localIndex(source, hash));
      const bytes = leaf === null ? index : index && (await source.leaf(hash, leaf));
      const checked = bytes && check(bytes);
      if (checked !== undefined) return checked;
    }
    const body = encodeCanonical([fromHex(hash), leaf]);
    for (const peer of [...usable]) {
      if (signal.aborted) return undefined;
      const answer = await transport.request(peer, evidenceProtocol, body, signal);
      if (!answer.ok) continue;
      const checked = check(answer.value);
      if (checked !== undefined) return checked;
      usable.delete(peer);
      transport.penalize(peer, 'bad-evidence');
    }
    return undefined;
  };

  const leafOf = (hash: HashHex, index: number, leafHash: Uint8Array) => {
    const known = shelf.byHash(leafHash);
    if (known) shelf.putLeaf(hash, index, leafHash, known);
    if (known) return known;
    return ask(hash, index, (bytes) => {
      if (!equalBytes(merkleLeaf(bytes), leafHash)) return undefined;
      shelf.putLeaf(hash, index, leafHash, bytes);
      return bytes;
    });
  };

  return {
    index: (hash: HashHex) =>
      ask(hash, null, (bytes) => {
        const decoded = decodeStateIndex(bytes);
        if (!decoded.ok || hashOfIndex(plan, decoded.value) !== hash) return undefined;
        shelf.putIndex(hash, bytes);
        return decoded.value;
      }),
    tensor: async (hash: HashHex, index: StateIndex, tensor: LocalTensor) => {
      const first = perTensor * localTensors.indexOf(tensor);
      const hashes = index.leaves.slice(first, first + perTensor);
      if (hashes.length < perTensor) return undefined;
      const leaves: (Uint8Array | undefined)[] = new Array(perTensor);
      let next = 0;
      let missing = false;
      const worker = async () => {
        while (next < perTensor && !missing) {
          const number = next++;
          leaves[number] = await leafOf(hash, first + number, hashes[number]!);
          if (!leaves[number]) missing = true;
        }
      };
      await Promise.all(Array.from({ length: leavesInFlight }, worker));
      return missing ? undefined : (leaves as Uint8Array[]);
    },
  };
}

/**
 * Takes evidence of this node's own work over from the replica, which keeps little, into the shelf: to be done as soon as
 * an audit of it is drawn. `not-kept` when the replica has let go of it: replay the interval first.
 */
export async function shelveEvidence(
  replica: EvidenceSource,
  shelf: EvidenceShelf,
  wanted: readonly WantedState[],
  flatLength: number,
): Promise<Outcome<void>> {
  const perTensor = leavesPerTensor(flatLength);
  const indexes = await Promise.all(wanted.map(({ hash }) => replica.index(hash)));
  const leaves: { readonly hash: HashHex; readonly tensor: LocalTensor; readonly number: number }[] = [];
  const hashesOf = new Map<HashHex, readonly Uint8Array[]>();
  for (const [i, { hash, tensors }] of wanted.entries()) {
    const index = indexes[i] && decodeStateIndex(indexes[i]);
    if (!indexes[i] || !index?.ok) return reject('not-kept', `state ${hash.slice(0, 16)}`);
    shelf.putIndex(hash, indexes[i]);
    hashesOf.set(hash, index.value.leaves);
    for (const tensor of tensors) {
      const first = perTensor * localTensors.indexOf(tensor);
      for (let number = first; number < first + perTensor; number++) leaves.push({ hash, tensor, number });
    }
  }
  // At once: a replica answers between two steps, and would make a step between any two leaves.
  const all = await Promise.all(leaves.map(({ hash, number }) => replica.leaf(hash, number)));
  for (const [i, { hash, tensor, number }] of leaves.entries()) {
    const bytes = all[i];
    if (!bytes) return reject('not-kept', `${tensor} of state ${hash.slice(0, 16)}`);
    shelf.putLeaf(hash, number, hashesOf.get(hash)![number]!, bytes);
  }
  return accept(undefined);
}
