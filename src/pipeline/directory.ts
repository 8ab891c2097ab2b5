/**
 * Who holds which stage: announces this node's own, signed, when it changes and every few seconds, and keeps the latest
 * of everybody else's, within bounds. It chooses no route.
 */
import type { KeyPair } from '../identity/keys.ts';
import { createRateLimiter } from '../net/rate-limit.ts';
import type { NodeId, Transport } from '../net/transport.ts';
import type { Clock } from '../std/clock.ts';
import { type Random, uniform } from '../std/random.ts';
import {
  decodeStageAnnouncement,
  encodeStageAnnouncement,
  isSignedByAuthor,
  type StageAnnouncement,
  type StageState,
  stageAnnouncementBytesMax,
  stageTopic,
} from './stage-announcement.ts';

export interface StageDirectoryOptions {
  readonly networkId: Uint8Array;
  readonly key: KeyPair;
  readonly transport: Transport;
  readonly clock: Clock;
  readonly random: Random;
}

export interface StageDirectory {
  /** Nodes that announced the stage lately, take work and are connected, sorted; never this node. */
  candidates(stage: number): readonly NodeId[];
  /** What a node said last; of this node, what it says of itself. Undefined when it has been silent for long. */
  of(node: NodeId): StageAnnouncement | undefined;
  /** All that `of` would give, this node's included, sorted by node. */
  all(): readonly StageAnnouncement[];
  /** Called whenever `candidates` may give another answer. The result unsubscribes. */
  onChange(listener: () => void): () => void;
  /** The last announcement of this node's own, as it was sent; undefined while there is none. */
  said(): Uint8Array | undefined;
  /** Takes what a node has answered when it was asked for its own announcement: checked as one from the topic. */
  take(from: NodeId, message: Uint8Array): void;
  /** Changes what this node says of itself; nothing is said before a stage was given. */
  announceSelf(change: Partial<StageState>): void;
  /** Says, as well as it can, that this node takes no more work, and stops. */
  close(): void;
}

const announceMs = 5_000;
/** Between two announcements of one's own, however much changes. */
const pauseMs = 1_000;
/** Three or four announcements missed. */
export const staleMs = 20_000;
const nodesMax = 4_096;
/** Honest nodes send at most one a second. */
const perAuthorPerMinuteMax = 90;

interface Entry {
  readonly announcement: StageAnnouncement;
  readonly heardMs: number;
}

interface DirectoryState {
  readonly options: StageDirectoryOptions;
  readonly withinRate: (author: NodeId) => boolean;
  /** The one heard of longest ago comes first. */
  readonly entries: Map<NodeId, Entry>;
  /** Those that were disconnected since they last announced. */
  readonly left: Set<NodeId>;
  readonly listeners: Set<() => void>;
  own: StageState | undefined;
  said: Uint8Array | undefined;
  seq: number;
  saidMs: number;
  /** When the timer below fires. */
  nextMs: number;
  cancelNext: () => void;
  closed: boolean;
}

export function createStageDirectory(options: StageDirectoryOptions): StageDirectory {
  const { transport, clock } = options;
  const rates = createRateLimiter(clock);
  const d: DirectoryState = {
    options,
    withinRate: (author) => rates.take(author, perAuthorPerMinuteMax),
    entries: new Map(),
    left: new Set(),
    listeners: new Set(),
    own: undefined,
    said: undefined,
    seq: 0,
    saidMs: Number.NEGATIVE_INFINITY,
    nextMs: Number.POSITIVE_INFINITY,
    cancelNext: () => {},
    closed: false,
  };
  const stops = [
    transport.subscribe(stageTopic, stageAnnouncementBytesMax, (from, message) => hear(d, from, message)),
    transport.onPeerChange((peer, connected) => peerChanged(d, peer, connected)),
  ];
  return {
    candidates: (stage) => candidates(d, stage),
    of: (node) => announcementOf(d, node),
    all: () => {
      const own = ownAnnouncement(d);
      const all = own ? [...freshEntries(d), own] : freshEntries(d);
      return all.sort((a, b) => (a.nodeId < b.nodeId ? -1 : 1));
    },
    onChange: (listener) => {
      d.listeners.add(listener);
      return () => void d.listeners.delete(listener);
    },
    said: () => d.said,
    take: (from, message) => take(d, from, message),
    announceSelf: (change) => announceSelf(d, change),
    close: () => {
      if (d.closed) return;
      sayFarewell(d);
      d.closed = true;
      for (const stop of stops) stop();
      d.listeners.clear();
    },
  };
}

function peerChanged(d: DirectoryState, peer: NodeId, connected: boolean): void {
  // Who has just come knows nothing of us; who has left may come back as a process that serves nothing yet.
  if (connected) announceIn(d, pauseMs * uniform(d.options.random));
  else if (d.entries.has(peer)) d.left.add(peer);
  notify(d);
}

function candidates(d: DirectoryState, stage: number): NodeId[] {
  const connected = new Set(d.options.transport.peers());
  return freshEntries(d)
    .filter(({ accepting, stage: held }) => accepting && held === stage)
    .filter(({ nodeId }) => connected.has(nodeId) && !d.left.has(nodeId))
    .map(({ nodeId }) => nodeId)
    .sort();
}

function announcementOf(d: DirectoryState, node: NodeId): StageAnnouncement | undefined {
  if (node === d.options.key.nodeId) return ownAnnouncement(d);
  const entry = d.entries.get(node);
  return entry && isFresh(d, entry) ? entry.announcement : undefined;
}

function ownAnnouncement({ options, own, seq }: DirectoryState): StageAnnouncement | undefined {
  return own && { nodeId: options.key.nodeId, seq, ...own };
}

function take(d: DirectoryState, from: NodeId, message: Uint8Array): void {
  const { transport } = d.options;
  const decoded = decodeStageAnnouncement(message);
  const isOwn = !decoded.ok || decoded.value.announcement.nodeId === from;
  if (!isOwn) transport.penalize(from, 'wrong-author');
  else if (hear(d, from, message) === false) transport.penalize(from, 'invalid');
}

function announceSelf(d: DirectoryState, change: Partial<StageState>): void {
  if (d.closed) return;
  const before = d.own;
  if (!before && change.stage === undefined) return;
  d.own = { ...silentState, ...before, ...change };
  // A speed that is measured anew again and again can wait for the next announcement.
  if (!before || isUrgent(before, d.own)) announceIn(d, 0);
}

/** That this node takes no more work. */
function sayFarewell(d: DirectoryState): void {
  d.cancelNext();
  if (!d.own) return;
  d.own = { ...d.own, accepting: false };
  say(d);
}

const silentState = { stage: 0, memoryBytes: 0, tokensPerSecond: 0, round: 0, accepting: false };

function isUrgent(before: StageState, now: StageState): boolean {
  return (
    before.stage !== now.stage ||
    before.accepting !== now.accepting ||
    before.round !== now.round ||
    before.memoryBytes !== now.memoryBytes
  );
}

function isFresh(d: DirectoryState, entry: Entry): boolean {
  return d.options.clock.nowMs() - entry.heardMs < staleMs;
}

function freshEntries(d: DirectoryState): StageAnnouncement[] {
  const fresh: StageAnnouncement[] = [];
  for (const entry of d.entries.values()) if (isFresh(d, entry)) fresh.push(entry.announcement);
  return fresh;
}

function notify(d: DirectoryState): void {
  for (const listener of [...d.listeners]) listener();
}

/** Announces after `delayMs`, or sooner where that was planned, and never twice within the pause. */
function announceIn(d: DirectoryState, delayMs: number): void {
  if (d.closed || !d.own) return;
  const { clock, random } = d.options;
  const nowMs = clock.nowMs();
  const atMs = Math.max(nowMs + delayMs, d.saidMs + pauseMs);
  if (atMs >= d.nextMs) return;
  d.cancelNext();
  d.nextMs = atMs;
  d.cancelNext = clock.setTimer(atMs - nowMs, () => {
    d.nextMs = Number.POSITIVE_INFINITY;
    dropStale(d);
    say(d);
    announceIn(d, announceMs * (0.75 + 0.5 * uniform(random)));
  });
}

function say(d: DirectoryState): void {
  const { networkId, key, transport, clock } = d.options;
  if (!d.own) return;
  d.saidMs = clock.nowMs();
  d.seq = Math.max(d.seq + 1, Math.floor(d.saidMs));
  const message = encodeStageAnnouncement(networkId, { ...d.own, seq: d.seq }, key);
  d.said = message;
  transport.publish(stageTopic, message).catch(() => {});
}

/** The order of the map is that of hearing, so the stale ones come first. */
function dropStale(d: DirectoryState): void {
  let dropped = false;
  for (const [node, entry] of d.entries) {
    if (isFresh(d, entry)) break;
    d.entries.delete(node);
    d.left.delete(node);
    dropped = true;
  }
  if (dropped) notify(d);
}

/** Takes an announcement from the topic: untrusted bytes. False when its sender is its author and says too much. */
function hear(d: DirectoryState, from: NodeId, message: Uint8Array): boolean | undefined {
  const { networkId, key, transport, clock } = d.options;
  const decoded = decodeStageAnnouncement(message);
  if (!decoded.ok) {
    transport.penalize(from, decoded.code);
    return;
  }
  const { announcement } = decoded.value;
  const author = announcement.nodeId;
  if (author === key.nodeId) return;
  const known = d.entries.get(author);
  // Gossip brings the same one over several ways: most need no signature checked.
  if (known && isFresh(d, known) && announcement.seq <= known.announcement.seq) return;
  if (!isSignedByAuthor(networkId, decoded.value)) {
    transport.penalize(from, 'bad-signature');
    return;
  }
  // A forwarder cannot know what else we heard of the author, so only the author itself is blamed.
  if (!d.withinRate(author)) return from === author ? false : undefined;
  if (!known && !makeRoom(d)) return;
  const hasReturned = d.left.delete(author);
  d.entries.delete(author);
  d.entries.set(author, { announcement, heardMs: clock.nowMs() });
  const before = known?.announcement;
  const isNews =
    hasReturned ||
    !before ||
    !isFresh(d, known) ||
    before.stage !== announcement.stage ||
    before.accepting !== announcement.accepting;
  if (isNews) notify(d);
  return undefined;
}

/** A full directory forgets a node that is not connected; where all are, it takes no more. */
function makeRoom(d: DirectoryState): boolean {
  if (d.entries.size < nodesMax) return true;
  const connected = new Set(d.options.transport.peers());
  for (const [node, entry] of d.entries) {
    if (isFresh(d, entry) && connected.has(node)) continue;
    d.entries.delete(node);
    d.left.delete(node);
    return true;
  }
  return false;
}
