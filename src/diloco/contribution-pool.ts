/**
 * The contributions of the current round as this node knows them: announced, fetched, screened. It decides what is
 * taken in and why something is not; it knows nothing of consensus, of aggregation or of when a round should end.
 */
import type { NodeId, Transport } from '../net/transport.ts';
import type { Clock } from '../std/clock.ts';
import type { HashHex } from '../std/hash.ts';
import { accept, type Outcome, reject } from '../std/outcome.ts';
import type { Announcement } from './announcement.ts';
import { type BlobShelf, fetchBlob } from './blob-exchange.ts';
import type { StageReplica } from './replica.ts';

export interface PoolOptions {
  readonly transport: Transport;
  readonly clock: Clock;
  readonly replica: StageReplica;
  readonly shelf: BlobShelf;
  /** Exact size of a blob in this network. */
  readonly blobBytes: number;
  /** Batches a node can have trained in one round. */
  readonly batchesMax: number;
  /** Whose announcements always find room. */
  readonly memberIds: readonly NodeId[];
  readonly onChange: () => void;
  readonly onRejected: (round: number, node: NodeId, code: string) => void;
}

export interface PoolEntry {
  readonly announcement: Announcement;
  /** Milliseconds of the clock when its blob was here and valid. */
  readonly validAtMs: number;
}

export interface ContributionPool {
  begin(round: number, base: HashHex): void;
  /** Takes an announcement from anyone; fetching starts by itself. */
  offer(announcement: Announcement, from: NodeId): Outcome<void>;
  /** Whether the blob is here and valid, fetching it if need be. */
  obtain(announcement: Announcement): Promise<Outcome<Uint8Array>>;
  valid(): readonly PoolEntry[];
  /** Nodes whose contribution to this round is settled, valid or not. */
  settled(): ReadonlySet<NodeId>;
  /** Ends the fetches under way. */
  close(): void;
}

/** Nodes besides the members whose announcements are kept for one round: keys cost nothing, so there may be any number. */
const strangersMax = 64;
const roundsAheadMax = 2;
/** Times that one node's announcement, said again, makes this node try to fetch its blob again. */
const retriesMax = 8;
/** Peers asked for one blob besides its announcer. */
const fallbackPeersMax = 16;

export function createContributionPool(options: PoolOptions): ContributionPool {
  const members = new Set(options.memberIds);
  let round = -1;
  let base: HashHex = '';
  /** The first announcement of each node for this round; a second, different one never replaces it. */
  let announced = new Map<NodeId, Announcement>();
  let valid = new Map<NodeId, PoolEntry>();
  let settled = new Set<NodeId>();
  /** Fetches under way or done, by node and blob: two nodes may name one blob. */
  let pending = new Map<string, Promise<Outcome<Uint8Array>>>();
  let retries = new Map<NodeId, number>();
  const early = new Map<NodeId, Announcement>();
  let generation = new AbortController();

  /** Whether `known` has room for one more entry of this node. */
  const hasRoom = (known: ReadonlyMap<NodeId, unknown> | ReadonlySet<NodeId>, node: NodeId) => {
    if (members.has(node) || known.has(node)) return true;
    let strangers = 0;
    for (const other of known.keys()) if (!members.has(other)) strangers++;
    return strangers < strangersMax;
  };

  const begin = (nextRound: number, nextBase: HashHex) => {
    generation.abort();
    generation = new AbortController();
    round = nextRound;
    base = nextBase;
    announced = new Map();
    valid = new Map();
    settled = new Set();
    pending = new Map();
    retries = new Map();
    options.shelf.beginRound(round);
    for (const [node, one] of early) {
      if (one.round > round) continue;
      early.delete(node);
      if (one.round === round) offer(one, node);
    }
  };

  const check = (one: Announcement): Outcome<void> => {
    if (one.round !== round) return reject('wrong-round', `${one.round}, now ${round}`);
    if (one.base !== base) return reject('wrong-base');
    if (one.blobBytes !== options.blobBytes) return reject('wrong-shape', `${one.blobBytes} bytes`);
    if (one.batches < 1 || one.batches > options.batchesMax) return reject('too-many-batches');
    return accept(undefined);
  };

  const offer = (one: Announcement, from: NodeId): Outcome<void> => {
    if (one.round > round && one.round <= round + roundsAheadMax) {
      if (hasRoom(early, one.nodeId)) early.set(one.nodeId, one);
      return accept(undefined);
    }
    const checked = check(one);
    if (!checked.ok) {
      if (one.round === round) settle(one.nodeId, checked.code);
      return checked;
    }
    const known = announced.get(one.nodeId);
    if (known) {
      if (known.blobHash !== one.blobHash) return reject('equivocation');
      retry(known, from);
      return accept(undefined);
    }
    if (!hasRoom(announced, one.nodeId)) return reject('too-many-contributors');
    announced.set(one.nodeId, one);
    void obtain(one, from);
    return accept(undefined);
  };

  /** Said again: what could not be fetched then may be had now. */
  const retry = (one: Announcement, from: NodeId) => {
    const tried = retries.get(one.nodeId) ?? 0;
    if (valid.has(one.nodeId) || pending.has(keyOf(one)) || tried >= retriesMax) return;
    retries.set(one.nodeId, tried + 1);
    void obtain(one, from);
  };

  const settle = (node: NodeId, code: string) => {
    if (settled.has(node) || !hasRoom(settled, node)) return;
    settled.add(node);
    options.onRejected(round, node, code);
    options.onChange();
  };

  const obtain = (one: Announcement, hint?: NodeId): Promise<Outcome<Uint8Array>> => {
    const checked = check(one);
    if (!checked.ok) return Promise.resolve(checked);
    const key = keyOf(one);
    const known = pending.get(key);
    if (known) return known;
    const { signal } = generation;
    // The store or the compute thread may fail, at the latest when they are closed: no blob then, and no crash.
    const attempt = fetchAndScreen(one, hint, signal).catch((error: unknown) =>
      reject('failed', String(error)),
    );
    pending.set(key, attempt);
    void attempt.then((outcome) => {
      // Another round, or the same one begun again on another base.
      if (signal.aborted) return;
      if (outcome.ok) {
        if (!valid.has(one.nodeId)) {
          valid.set(one.nodeId, { announcement: one, validAtMs: options.clock.nowMs() });
          settled.add(one.nodeId);
          options.onChange();
        }
        return;
      }
      // What nobody could deliver may still come from elsewhere: a later call tries again.
      if (transient.has(outcome.code)) pending.delete(key);
      settle(one.nodeId, outcome.code);
    });
    return attempt;
  };

  const fetchAndScreen = async (one: Announcement, hint: NodeId | undefined, signal: AbortSignal) => {
    const held = await options.shelf.find(one.blobHash);
    if (held) return screenAndKeep(one, held);
    let last: Outcome<Uint8Array> = reject('blob-unavailable');
    for (const peer of candidates(one.nodeId, hint)) {
      const fetched = await fetchBlob({
        transport: options.transport,
        hash: one.blobHash,
        bytes: one.blobBytes,
        from: peer,
        signal,
      });
      if (signal.aborted) return reject('aborted');
      if (!fetched.ok) continue;
      last = await screenAndKeep(one, fetched.value);
      if (last.ok || last.code !== 'hash-mismatch') return last;
      options.transport.penalize(peer, 'hash-mismatch');
    }
    return last.ok || last.code === 'hash-mismatch' ? last : reject('blob-unavailable');
  };

  const candidates = (announcer: NodeId, hint: NodeId | undefined): NodeId[] => {
    const { self } = options.transport;
    const others = options.transport.peers().filter((peer) => peer !== announcer && peer !== hint);
    const order = new Set([announcer, hint, ...others.slice(0, fallbackPeersMax)]);
    return [...order].filter((peer): peer is NodeId => peer !== undefined && peer !== self);
  };

  const screenAndKeep = async (one: Announcement, blob: Uint8Array): Promise<Outcome<Uint8Array>> => {
    const screened = await options.replica.screen(blob, one.blobHash);
    if (!screened.ok) return screened;
    options.shelf.put(one.round, one.blobHash, blob);
    return accept(blob);
  };

  return {
    begin,
    offer,
    obtain,
    valid: () => [...valid.values()],
    settled: () => settled,
    close: () => generation.abort(),
  };
}

function keyOf({ nodeId, blobHash }: Announcement): string {
  return `${nodeId}/${blobHash}`;
}

/** Failures of delivery, or of this node, not of the contribution itself. */
const transient = new Set(['blob-unavailable', 'aborted', 'hash-mismatch', 'failed']);
