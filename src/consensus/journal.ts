/**
 * What a replica keeps across a crash: its votes at the height where it last spoke, the undecided chain with its
 * certificates, and the decided chain. Writes happen in the order asked for, one at a time; a vote is sent only after
 * `write` of its record has resolved, so a restarted member cannot contradict itself.
 */
import { type Canonical, decodeCanonical, encodeCanonical } from '../std/codec.ts';
import { CodedError, type Outcome } from '../std/outcome.ts';
import type { Store } from '../std/store.ts';
import { blockBody, blockHash, decidedBody, isHeight, readBlock, readDecided } from './block.ts';
import { certificateBody, readCertificate } from './certificate.ts';
import type { ConsensusLimits } from './limits.ts';
import type { Proposal } from './messages.ts';
import type { HeightTally } from './tally.ts';
import type { Certificate, DecidedBlock } from './types.ts';

/** All that this member has said at one height. It never speaks at a lower one again. */
export interface VotingRecord {
  readonly height: number;
  readonly vote?: Uint8Array;
  readonly dummy?: true;
  readonly finalize?: Uint8Array;
  /** As leader. */
  readonly proposal?: Proposal;
}

export interface UndecidedHeight {
  readonly height: number;
  readonly proposal?: Proposal;
  readonly certificates: readonly Certificate[];
}

export interface JournalContent {
  readonly record: VotingRecord;
  readonly undecided: readonly UndecidedHeight[];
  /** Ascending. */
  readonly decided: readonly DecidedBlock[];
  readonly appliedHeight: number;
}

export interface Journal {
  load(): Promise<JournalContent>;
  /** Resolves when everything asked for so far is durable. Rejects once the store has failed. */
  record(record: VotingRecord): Promise<void>;
  undecided(tally: HeightTally): void;
  decided(blocks: readonly DecidedBlock[]): Promise<void>;
  applied(height: number): void;
  /** Forgets decided blocks of these heights. */
  prune(heights: readonly number[]): void;
  settled(): Promise<void>;
}

const prefix = 'consensus/';
const recordKey = `${prefix}record`;
const appliedKey = `${prefix}applied`;
const undecidedPrefix = `${prefix}undecided/`;
const decidedPrefix = `${prefix}decided/`;
const storedBytesMax = 16 * 1024 * 1024;

function heightKey(keyPrefix: string, height: number): string {
  return keyPrefix + String(height).padStart(16, '0');
}

export function openJournal(
  store: Store,
  networkId: Uint8Array,
  limits: ConsensusLimits,
  failed: (error: unknown) => void,
): Journal {
  let tail: Promise<void> = Promise.resolve();
  /** Heights with an undecided entry in the store. */
  const written = new Set<number>();
  const enqueue = (write: () => Promise<void>): Promise<void> => {
    const done = tail.then(write);
    tail = done;
    done.catch(failed);
    return done;
  };
  return {
    async load() {
      const content = await loadJournal(store, networkId, limits);
      for (const { height } of content.undecided) written.add(height);
      return content;
    },
    record(record) {
      const bytes = encodeCanonical(recordBody(record));
      return enqueue(() => store.put(recordKey, bytes));
    },
    undecided(tally) {
      const bytes = encodeCanonical(undecidedBody(tally));
      written.add(tally.height);
      void enqueue(() => store.put(heightKey(undecidedPrefix, tally.height), bytes));
    },
    decided(blocks) {
      const entries = blocks.map((decided) => ({
        key: heightKey(decidedPrefix, decided.block.height),
        bytes: encodeCanonical(decidedBody(decided)),
      }));
      const top = blocks.at(-1)?.block.height ?? 0;
      const obsolete = [...written].filter((height) => height <= top);
      for (const height of obsolete) written.delete(height);
      return enqueue(async () => {
        // The newest last: what the store holds is always a chain that ends in a certificate, or one block short.
        for (const { key, bytes } of entries) await store.put(key, bytes);
        for (const height of obsolete) await store.delete(heightKey(undecidedPrefix, height));
      });
    },
    applied(height) {
      void enqueue(() => store.put(appliedKey, encodeCanonical(height)));
    },
    prune(heights) {
      void enqueue(async () => {
        for (const height of heights) await store.delete(heightKey(decidedPrefix, height));
      });
    },
    settled: () => tail.catch(() => {}),
  };
}

function recordBody(record: VotingRecord): Canonical {
  const { height, vote, dummy, finalize, proposal } = record;
  return [height, vote ?? null, dummy === true, finalize ?? null, proposal ? proposalBody(proposal) : null];
}

function proposalBody(proposal: Proposal): Canonical {
  return [blockBody(proposal.block), proposal.signature];
}

/** Only the notarized block is kept: others may be sent again, and are never needed to prove anything. */
function undecidedBody(tally: HeightTally): Canonical {
  const notarized = tally.certificates.vote ?? tally.certificates.finalize;
  const proposal = [...tally.proposals.values()].find(
    ({ hash }) => notarized && hash.every((byte, i) => byte === notarized.blockHash[i]),
  );
  const certificates = Object.values(tally.certificates).map((certificate) => certificateBody(certificate));
  return [tally.height, proposal ? proposalBody(proposal) : null, certificates];
}

async function loadJournal(
  store: Store,
  networkId: Uint8Array,
  limits: ConsensusLimits,
): Promise<JournalContent> {
  const read = async (key: string): Promise<unknown> => {
    const bytes = await store.get(key);
    return bytes === undefined ? undefined : taken(key, decodeCanonical(bytes, storedBytesMax));
  };
  const readProposal = (key: string, value: unknown): Proposal | undefined => {
    if (value === null) return undefined;
    const [body, signature] = array(key, value, 2);
    const block = taken(key, readBlock(body, limits));
    return { block, hash: blockHash(networkId, block), signature: bytesAt(key, signature) };
  };
  const undecided: UndecidedHeight[] = [];
  for (const key of await store.list(undecidedPrefix)) {
    const [height, proposal, certificates] = array(key, await read(key), 3);
    if (!isHeight(height)) throw damaged(key);
    const read3 = array(key, certificates).map((certificate) => taken(key, readCertificate(certificate)));
    const block = readProposal(key, proposal);
    undecided.push({ height, certificates: read3, ...(block && { proposal: block }) });
  }
  const decided: DecidedBlock[] = [];
  for (const key of await store.list(decidedPrefix)) {
    decided.push(taken(key, readDecided(await read(key), networkId, limits)));
  }
  const applied = (await read(appliedKey)) ?? 0;
  if (applied !== 0 && !isHeight(applied)) throw damaged(appliedKey);
  return { record: await loadRecord(read, readProposal), undecided, decided, appliedHeight: applied };
}

async function loadRecord(
  read: (key: string) => Promise<unknown>,
  readProposal: (key: string, value: unknown) => Proposal | undefined,
): Promise<VotingRecord> {
  const value = await read(recordKey);
  if (value === undefined) return { height: 0 };
  const [height, vote, dummy, finalize, proposal] = array(recordKey, value, 5);
  if (!isHeight(height)) throw damaged(recordKey);
  const block = readProposal(recordKey, proposal);
  return {
    height,
    ...(vote !== null && { vote: bytesAt(recordKey, vote) }),
    ...(dummy === true && { dummy: true }),
    ...(finalize !== null && { finalize: bytesAt(recordKey, finalize) }),
    ...(block && { proposal: block }),
  };
}

function damaged(key: string): CodedError {
  return new CodedError('consensus-store-damaged', `the consensus store is damaged at ${key}`);
}

function taken<T>(key: string, outcome: Outcome<T>): T {
  if (!outcome.ok) throw damaged(key);
  return outcome.value;
}

function array(key: string, value: unknown, length?: number): readonly unknown[] {
  if (!Array.isArray(value) || (length !== undefined && value.length !== length)) throw damaged(key);
  return value;
}

function bytesAt(key: string, value: unknown): Uint8Array {
  if (!(value instanceof Uint8Array)) throw damaged(key);
  return value;
}
