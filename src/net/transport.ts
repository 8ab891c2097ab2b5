/**
 * The network as protocol code sees it: authenticated peers, small signed announcements by topic, and bounded
 * request-response. Implementations: libp2p (`platform/nodejs`) and in-memory (`net/memory-transport.ts`, for
 * tests and the simulator), behind one contract suite.
 */
import type { Outcome } from '../std/outcome.ts';
import type { Protocol } from './protocol.ts';

/** Node id: SHA-256 of the compressed public key, as lower-case hex. Authenticated by the transport. */
export type NodeId = string;

/**
 * Takes one announcement. `from` is the authenticated peer that handed it to us: in a small network its author, in
 * a large one perhaps a forwarder, so authorship is for the payload's own signature to prove. Returning false says
 * that the message breaks the rules: it is not passed on and `from` is scored, which is fair, because an honest
 * forwarder would have refused it too. Calling `penalize` before returning does the same. Returning 'keep' says that it
 * is not passed on as it is and nobody is scored: what takes long to judge is published anew by whoever has judged it.
 */
// biome-ignore lint/suspicious/noConfusingVoidType: most handlers return nothing at all.
export type TopicHandler = (from: NodeId, message: Uint8Array) => boolean | 'keep' | void;
/**
 * Sends the caller a small frame while the answer is worked on: a sign of life, and whatever it says. Best effort: it
 * never throws, and does nothing when the frame is over the protocol's `frameBytesMax`, when the answer has been given
 * or the caller is gone, when frames come too often (`progressFramesMax`), or when earlier bytes have not left yet
 * because the caller reads slowly. Frames arrive in order and before the answer.
 */
export type Progress = (frame: Uint8Array) => void;
/**
 * Answers one request. A rejection's code travels back to the caller as is. `signal` aborts as soon as the caller has
 * given up or is gone; the handler must end soon after, since until then the request counts against its peer's bounds.
 */
export type RequestHandler = (
  from: NodeId,
  request: Uint8Array,
  signal: AbortSignal,
  progress: Progress,
) => Promise<Outcome<Uint8Array>>;

export interface Traffic {
  readonly bytesSent: number;
  readonly bytesReceived: number;
}

export interface Transport {
  readonly self: NodeId;
  /**
   * Sends to every subscriber, best effort; delivered at most once to each handler, never to oneself. Publishing
   * the same bytes again is a new announcement (a retransmission reaches those who missed the first). Throws
   * RangeError over `topicMessageBytesMax`.
   */
  publish(topic: string, message: Uint8Array): Promise<void>;
  /** Messages over `bytesMax` are dropped and their sender scored. The result unsubscribes. */
  subscribe(topic: string, bytesMax: number, handler: TopicHandler): () => void;
  /**
   * One request, one response. Never throws for what a peer or the network does: rejections are `unreachable`,
   * `unknown-protocol`, `timeout` (the whole exchange), `stalled` (nothing arrived for the protocol's idle time,
   * the handler's thinking included; a progress frame is something), `too-large`, `malformed`, `refused` (rate),
   * `busy` (the peer holds as much for us as it will), `failed` (the handler threw), `aborted` (the signal, or this
   * transport closed), or the handler's own code. `onFrame` gets the handler's progress frames and must not throw.
   */
  request(
    peer: NodeId,
    protocol: Protocol,
    request: Uint8Array,
    signal?: AbortSignal,
    onFrame?: (frame: Uint8Array) => void,
  ): Promise<Outcome<Uint8Array>>;
  /** One handler for a protocol; requests over the protocol's limits are refused before the handler sees them. */
  handle(protocol: Protocol, handler: RequestHandler): () => void;
  /** Connected peers that speak our protocols. */
  peers(): readonly NodeId[];
  /** Called with every peer that connects or leaves from now on. */
  onPeerChange(listener: (peer: NodeId, connected: boolean) => void): () => void;
  /**
   * Tells the network's directory (libp2p: the DHT) that this node is to be asked about the key, which is public. Best
   * effort: it resolves in either case. The record is kept for `providedMs`; who still means it says it again before.
   */
  provide(key: string): Promise<void>;
  /**
   * Looks up who provides the key and connects to them. Those that are peers in the end, sorted, at most `providersMax`,
   * never this node; none where the directory knows of none or cannot be asked. Best effort, ends after
   * `findProvidersMs` or with the signal. Anyone may provide any key: what they are, they must show when asked.
   */
  findProviders(key: string, signal?: AbortSignal): Promise<readonly NodeId[]>;
  /**
   * The least round trip to a connected peer that was measured lately, in milliseconds; undefined where none was yet. The
   * peer may have delayed it, or this machine may have been busy: it can be too long, never too short.
   */
  roundTripMs(peer: NodeId): number | undefined;
  /** Reports misbehaviour; a peer whose score falls too far is disconnected and refused for a while. */
  penalize(peer: NodeId, code: string): void;
  /** All bytes on the wire since the start, protocol overheads included. */
  traffic(): Traffic;
  close(): Promise<void>;
}
