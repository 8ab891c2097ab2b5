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

export interface PeerDirectory {
  /** A connection to a node that speaks our protocols; the side that dialled greets. */
  connected(peer: NodeId, weDialled: boolean): void;
  disconnected(peer: NodeId): void;
  /** The peer's subscriptions have arrived. */
  subscriptionsKnown(peer: NodeId): void;
  readonly answerHello: (peer: NodeId, hello: Uint8Array) => Promise<Outcome<Uint8Array>>;
  hasGreeted(peer: NodeId): boolean;
  peers(): readonly NodeId[];
  onPeerChange(listener: (peer: NodeId, connected: boolean) => void): () => void;
  /** Whether each peer is connected to exactly whom we are connected to: then everybody is, and nothing is forwarded. */
  isFullMesh(): boolean;
  close(): void;
}

interface Entry {
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

export function createPeerDirectory(options: PeerDirectoryOptions): PeerDirectory {
  const { clock, self } = options;
  const entries = new Map<NodeId, Entry>();
  const listeners = new Set<(peer: NodeId, connected: boolean) => void>();
  let version = 0;
  let isTelling = false;
  let closed = false;

  function entryOf(peer: NodeId): Entry {
    const existing = entries.get(peer);
    if (existing) return existing;
    const entry: Entry = {
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

  const greetedPeers = () => [...entries].filter(([, entry]) => entry.greeted).map(([peer]) => peer);

  async function ownHello(): Promise<Uint8Array> {
    const greeted = greetedPeers();
    const described =
      greeted.length > neighboursListedMax ? null : await Promise.all(greeted.map(options.describe));
    const neighbours = described?.filter((neighbour) => neighbour !== null) ?? null;
    return encodeHello({ networkId: options.networkId, neighbours });
  }

  /** Takes a peer's hello; the first one makes it greeted. */
  function take(peer: NodeId, entry: Entry, bytes: Uint8Array): Outcome<Hello> {
    const decoded = decodeHello(bytes, options.networkId);
    if (!decoded.ok) {
      if (decoded.code !== 'other-network') options.penalize(peer, decoded.code);
      return decoded;
    }
    const { neighbours } = decoded.value;
    const nodes = neighbours?.map((neighbour) => nodeIdOf(neighbour.publicKey)) ?? null;
    entry.neighbours = nodes && new Set(nodes);
    if (!entry.greeted) {
      entry.greeted = true;
      version += 1;
      tellSoon();
    }
    announce(peer, entry);
    neighbours?.forEach((neighbour, index) => {
      const node = nodes![index]!;
      if (node === self || entries.get(node)?.greeted) return;
      if (entry.introduced.size >= introductionsMax && !entry.introduced.has(node)) return;
      entry.introduced.add(node);
      options.onIntroduction(node, neighbour);
    });
    return decoded;
  }

  function announce(peer: NodeId, entry: Entry): void {
    if (entry.announced || !entry.greeted || !entry.subscriptionsKnown) return;
    entry.announced = true;
    for (const listener of [...listeners]) listener(peer, true);
  }

  async function greet(peer: NodeId, entry: Entry): Promise<void> {
    const told = version;
    entry.greetings += 1;
    const answer = await options.exchangeHello(peer, await ownHello());
    if (closed || entries.get(peer) !== entry) return;
    const taken: Outcome<Hello> | Rejection = answer.ok ? take(peer, entry, answer.value) : answer;
    if (taken.ok) {
      entry.toldVersion = Math.max(entry.toldVersion, told);
      entry.greetings = 0;
    } else if (entry.greeted) return;
    else if (taken.code !== 'other-network' && entry.greetings < greetingsMax) {
      clock.setTimer(greetAgainMs, () => {
        if (!closed && entries.get(peer) === entry && !entry.greeted) void greet(peer, entry);
      });
    } else options.hangUp(peer);
  }

  function tellSoon(): void {
    if (isTelling || closed) return;
    isTelling = true;
    clock.setTimer(tellAfterMs, () => {
      isTelling = false;
      if (closed) return;
      for (const [peer, entry] of entries) {
        if (entry.greeted && entry.toldVersion < version) void greet(peer, entry);
      }
    });
  }

  return {
    connected(peer, weDialled) {
      const entry = entryOf(peer);
      if (weDialled) void greet(peer, entry);
    },
    disconnected(peer) {
      const entry = entries.get(peer);
      if (!entry) return;
      entries.delete(peer);
      if (entry.greeted) {
        version += 1;
        tellSoon();
      }
      if (entry.announced) for (const listener of [...listeners]) listener(peer, false);
    },
    subscriptionsKnown(peer) {
      const entry = entryOf(peer);
      entry.subscriptionsKnown = true;
      announce(peer, entry);
    },
    async answerHello(peer, bytes) {
      const entry = entryOf(peer);
      const told = version;
      const hello = await ownHello();
      const taken = take(peer, entry, bytes);
      if (!taken.ok) return taken;
      entry.toldVersion = Math.max(entry.toldVersion, told);
      return accept(hello);
    },
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
    isFullMesh() {
      const mine = greetedPeers();
      if (mine.length > neighboursListedMax) return false;
      return mine.every((peer) => {
        const theirs = entries.get(peer)?.neighbours;
        if (!theirs || theirs.size !== mine.length || !theirs.has(self)) return false;
        return mine.every((other) => other === peer || theirs.has(other));
      });
    },
    close() {
      closed = true;
      entries.clear();
      listeners.clear();
    },
  };
}
