/**
 * Who is a peer: nodes that are connected, have greeted us for the same network, and whose subscriptions we know.
 * Keeps what each says of its own connections, which tells whether the network is a full mesh and whom else to dial.
 * It does not dial, and it reads no sockets.
 */
import { nodeIdOf } from '../../identity/keys.ts';
import type { NodeId } from '../../net/transport.ts';
import type { Clock } from '../../std/clock.ts';
import { accept, type Outcome, type Rejection } from '../../std/outcome.ts';
import { decodeHello, encodeHello, type Hello, type Neighbour, neighboursListedMax } from './libp2p-hello.ts';

export interface PeerDirectoryOptions {
  readonly clock: Clock;
  readonly self: NodeId;
  readonly networkId: string;
  /** Sends our greeting, brings back the peer's. */
  readonly exchangeHello: (peer: NodeId, hello: Uint8Array) => Promise<Outcome<Uint8Array>>;
  /** How others may reach this peer; null when nothing is known of it. */
  readonly describe: (peer: NodeId) => Promise<Neighbour | null>;
  /** Somebody's neighbour, with addresses that nobody vouches for. */
  readonly onIntroduction: (node: NodeId, neighbour: Neighbour) => void;
  readonly hangUp: (peer: NodeId) => void;
  readonly penalize: (peer: NodeId, code: string) => void;
}

type PeerListener = (peer: NodeId, connected: boolean) => void;

export interface PeerDirectory {
  /** A connection to a node that speaks our protocols; the side that dialled greets. */
  connected(peer: NodeId, weDialled: boolean): void;
  disconnected(peer: NodeId): void;
  /** The peer's subscriptions have arrived. */
  subscriptionsKnown(peer: NodeId): void;
  readonly answerHello: (peer: NodeId, hello: Uint8Array) => Promise<Outcome<Uint8Array>>;
  hasGreeted(peer: NodeId): boolean;
  peers(): readonly NodeId[];
  onPeerChange(listener: PeerListener): () => void;
  /** Whether each peer is connected to exactly whom we are connected to: then everybody is, and nothing is forwarded. */
  isFullMesh(): boolean;
  close(): void;
}

interface Entry {
  readonly peer: NodeId;
  greeted: boolean;
  subscriptionsKnown: boolean;
  announced: boolean;
  /** Null until told, or when there are too many. */
  neighbours: ReadonlySet<NodeId> | null;
  /** Version of our own neighbours that this peer has been told. */
  toldVersion: number;
  greetings: number;
  /** Nodes it has told us of, so that nobody makes us dial half the world. */
  readonly introduced: Set<NodeId>;
}

const greetingsMax = 3;
const introductionsMax = 64;
const greetAgainMs = 1_000;
/** Changes that come together are told together. */
const tellAfterMs = 100;

interface Directory {
  readonly options: PeerDirectoryOptions;
  readonly entries: Map<NodeId, Entry>;
  readonly listeners: Set<PeerListener>;
  /** Of our own neighbours: one more with each that greeted us or left. */
  version: number;
  isTelling: boolean;
  closed: boolean;
}

export function createPeerDirectory(options: PeerDirectoryOptions): PeerDirectory {
  const entries = new Map<NodeId, Entry>();
  const listeners = new Set<PeerListener>();
  const d: Directory = { options, entries, listeners, version: 0, isTelling: false, closed: false };
  return {
    connected(peer, weDialled) {
      const entry = entryOf(d, peer);
      if (weDialled) void greet(d, entry);
    },
    disconnected: (peer) => forget(d, peer),
    subscriptionsKnown(peer) {
      const entry = entryOf(d, peer);
      entry.subscriptionsKnown = true;
      announce(d, entry);
    },
    answerHello: (peer, bytes) => answerHello(d, peer, bytes),
    hasGreeted: (peer) => entries.get(peer)?.greeted === true,
    peers: () =>
      [...entries]
        .filter(([, entry]) => entry.announced)
        .map(([peer]) => peer)
        .sort(),
    onPeerChange(listener) {
      listeners.add(listener);
      return () => void listeners.delete(listener);
    },
    isFullMesh: () => isFullMesh(d),
    close() {
      d.closed = true;
      entries.clear();
      listeners.clear();
    },
  };
}

function entryOf({ entries }: Directory, peer: NodeId): Entry {
  const existing = entries.get(peer);
  if (existing) return existing;
  const entry: Entry = {
    peer,
    greeted: false,
    subscriptionsKnown: false,
    announced: false,
    neighbours: null,
    toldVersion: -1,
    greetings: 0,
    introduced: new Set(),
  };
  entries.set(peer, entry);
  return entry;
}

/** Greets the peer with whom we know; again and again until it has answered, else it is no peer of ours. */
async function greet(d: Directory, entry: Entry): Promise<void> {
  const { clock, exchangeHello, hangUp } = d.options;
  const { peer } = entry;
  const isGone = () => d.closed || d.entries.get(peer) !== entry;
  const told = d.version;
  entry.greetings += 1;
  const answer = await exchangeHello(peer, await ownHello(d));
  if (isGone()) return;
  const taken: Outcome<Hello> | Rejection = answer.ok ? take(d, entry, answer.value) : answer;
  if (taken.ok) {
    entry.toldVersion = Math.max(entry.toldVersion, told);
    entry.greetings = 0;
  } else if (entry.greeted) return;
  else if (taken.code !== 'other-network' && entry.greetings < greetingsMax) {
    clock.setTimer(greetAgainMs, () => {
      if (!isGone() && !entry.greeted) void greet(d, entry);
    });
  } else hangUp(peer);
}

async function answerHello(d: Directory, peer: NodeId, bytes: Uint8Array): Promise<Outcome<Uint8Array>> {
  const entry = entryOf(d, peer);
  const told = d.version;
  const hello = await ownHello(d);
  const taken = take(d, entry, bytes);
  if (!taken.ok) return taken;
  entry.toldVersion = Math.max(entry.toldVersion, told);
  return accept(hello);
}

async function ownHello(d: Directory): Promise<Uint8Array> {
  const { networkId, describe } = d.options;
  const greeted = greetedPeers(d);
  const described = greeted.length > neighboursListedMax ? null : await Promise.all(greeted.map(describe));
  const neighbours = described?.filter((neighbour) => neighbour !== null) ?? null;
  return encodeHello({ networkId, neighbours });
}

function greetedPeers({ entries }: Directory): NodeId[] {
  return [...entries].filter(([, entry]) => entry.greeted).map(([peer]) => peer);
}

/** Takes a peer's hello; the first one makes it greeted. */
function take(d: Directory, entry: Entry, bytes: Uint8Array): Outcome<Hello> {
  const { networkId, penalize } = d.options;
  const decoded = decodeHello(bytes, networkId);
  if (!decoded.ok) {
    if (decoded.code !== 'other-network') penalize(entry.peer, decoded.code);
    return decoded;
  }
  const introduced = decoded.value.neighbours?.map(
    (neighbour) => [nodeIdOf(neighbour.publicKey), neighbour] as const,
  );
  entry.neighbours = introduced ? new Set(introduced.map(([node]) => node)) : null;
  if (!entry.greeted) {
    entry.greeted = true;
    d.version += 1;
    tellSoon(d);
  }
  announce(d, entry);
  for (const [node, neighbour] of introduced ?? []) introduce(d, entry, node, neighbour);
  return decoded;
}

function introduce(d: Directory, by: Entry, node: NodeId, neighbour: Neighbour): void {
  if (node === d.options.self || d.entries.get(node)?.greeted) return;
  if (by.introduced.size >= introductionsMax && !by.introduced.has(node)) return;
  by.introduced.add(node);
  d.options.onIntroduction(node, neighbour);
}

function announce(d: Directory, entry: Entry): void {
  if (entry.announced || !entry.greeted || !entry.subscriptionsKnown) return;
  entry.announced = true;
  for (const listener of [...d.listeners]) listener(entry.peer, true);
}

function forget(d: Directory, peer: NodeId): void {
  const entry = d.entries.get(peer);
  if (!entry) return;
  d.entries.delete(peer);
  if (entry.greeted) {
    d.version += 1;
    tellSoon(d);
  }
  if (entry.announced) for (const listener of [...d.listeners]) listener(peer, false);
}

/** Tells all peers of our neighbours, those that know them already excepted. */
function tellSoon(d: Directory): void {
  if (d.isTelling || d.closed) return;
  d.isTelling = true;
  d.options.clock.setTimer(tellAfterMs, () => {
    d.isTelling = false;
    if (d.closed) return;
    for (const entry of d.entries.values()) {
      if (entry.greeted && entry.toldVersion < d.version) void greet(d, entry);
    }
  });
}

function isFullMesh(d: Directory): boolean {
  const mine = greetedPeers(d);
  if (mine.length > neighboursListedMax) return false;
  return mine.every((peer) => {
    const theirs = d.entries.get(peer)?.neighbours;
    if (!theirs || theirs.size !== mine.length || !theirs.has(d.options.self)) return false;
    return mine.every((other) => other === peer || theirs.has(other));
  });
}
