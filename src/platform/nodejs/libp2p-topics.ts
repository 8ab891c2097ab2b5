/**
 * Topics over gossipsub. In a network where everybody is connected to everybody a message goes straight from its
 * author to each subscriber and is never passed on; else gossipsub's mesh forwards it. Gossipsub's own signatures are
 * off, because every payload carries its author's: what is authenticated here is the peer that handed a message over.
 */
import { createHash } from 'node:crypto';
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { GossipSub } from '@libp2p/gossipsub';
import { type GossipsubOpts, type Message, StrictNoSign, TopicValidatorResult } from '@libp2p/gossipsub';
import type { Connection, PeerId } from '@libp2p/interface';
import { topicMessageBytesMax, topicMessagesPerMinuteMax } from '../../net/limits.ts';
import type { RateLimiter } from '../../net/rate-limit.ts';
import type { NodeId, TopicHandler } from '../../net/transport.ts';

/** A number before each payload, so that publishing the same bytes again is a new message. */
const nonceBytes = 4;
const messageIdBytes = 16;
const rpcBytesMax = 2 * topicMessageBytesMax;

export function gossipOptions(localSwarm: boolean): Partial<GossipsubOpts> {
  return {
    globalSignaturePolicy: StrictNoSign,
    msgIdFn: (message: Message) => messageId(message),
    floodPublish: true,
    allowPublishToZeroTopicPeers: true,
    fallbackToFloodsub: false,
    emitSelf: false,
    doPX: false,
    maxInboundDataLength: rpcBytesMax,
    maxOutboundBufferSize: 4 * 1024 * 1024,
    // For messages of a few hundred bytes, saying that one has them costs as much as getting them twice.
    idontwantMinDataSize: 16 * 1024,
    ...(localSwarm ? { scoreParams: { IPColocationFactorWeight: 0 } } : {}),
  };
}

function messageId(message: Message): Uint8Array {
  const digest = createHash('sha256').update(message.topic).update('\n').update(message.data).digest();
  return new Uint8Array(digest.subarray(0, messageIdBytes));
}

export interface TopicsOptions {
  readonly gossip: GossipSub;
  /** Goes before every topic: networks never mix. */
  readonly prefix: string;
  readonly rates: RateLimiter;
  /** Null for who has not greeted us: not of our network. */
  readonly nodeOf: (peer: PeerId) => NodeId | null;
  /** Whether every node is connected to every other, so that nothing needs passing on. */
  readonly isFullMesh: () => boolean;
  readonly penalize: (peer: NodeId, code: string) => void;
  /** How often anybody has been penalised so far. */
  readonly offences: () => number;
}

export interface Topics {
  publish(topic: string, message: Uint8Array): Promise<void>;
  subscribe(topic: string, bytesMax: number, handler: TopicHandler): () => void;
  /** Whether there is a gossip stream to the peer. */
  canSend(peer: NodeId): boolean;
  /** Opens the gossip stream on this connection, if there is none. */
  openStream(connection: Connection): void;
}

interface Subscription {
  readonly bytesMax: number;
  readonly handler: TopicHandler;
}

interface TopicsState {
  readonly options: TopicsOptions;
  readonly subscriptions: Map<string, Set<Subscription>>;
  nonce: number;
  /** Resolves when all that came so far is delivered. */
  delivered: Promise<unknown>;
}

/** What the class has beneath its interface, by peer id. */
interface GossipInternals {
  readonly peers: ReadonlyMap<string, PeerId>;
  readonly streamsOutbound: ReadonlyMap<string, unknown>;
  onPeerConnected(peer: PeerId, connection: Connection): void;
}

export function createTopics(options: TopicsOptions): Topics {
  const inner = options.gossip as unknown as GossipInternals;
  const topics: TopicsState = {
    options,
    subscriptions: new Map(),
    nonce: firstNonce(),
    delivered: Promise.resolve(),
  };
  return {
    canSend: (node) =>
      [...inner.peers].some(([id, peer]) => inner.streamsOutbound.has(id) && options.nodeOf(peer) === node),
    openStream: (connection) => inner.onPeerConnected(connection.remotePeer, connection),
    publish: (topic, message) => publish(topics, topic, message),
    subscribe: (topic, bytesMax, handler) => subscribe(topics, topic, { bytesMax, handler }),
  };
}

/** Another at every start, so that what was said before is not taken for what is said now. */
function firstNonce(): number {
  const source = `${process.pid} ${process.hrtime.bigint()}`;
  return createHash('sha256').update(source).digest().readUInt32BE();
}

async function publish(topics: TopicsState, topic: string, message: Uint8Array): Promise<void> {
  const { gossip, prefix } = topics.options;
  if (message.length > topicMessageBytesMax) throw new RangeError(`announcement of ${message.length} bytes`);
  const data = new Uint8Array(nonceBytes + message.length);
  new DataView(data.buffer).setUint32(0, topics.nonce);
  topics.nonce = (topics.nonce + 1) >>> 0;
  data.set(message, nonceBytes);
  await gossip.publish(prefix + topic, data);
}

function subscribe(topics: TopicsState, topic: string, subscription: Subscription): () => void {
  const { subscriptions } = topics;
  const { gossip, prefix } = topics.options;
  const existing = subscriptions.get(topic);
  if (existing) existing.add(subscription);
  else {
    subscriptions.set(topic, new Set([subscription]));
    gossip.topicValidators.set(prefix + topic, (peer, message) => receive(topics, topic, peer, message.data));
    gossip.subscribe(prefix + topic);
  }
  return () => {
    const entries = subscriptions.get(topic);
    if (!entries?.delete(subscription) || entries.size > 0) return;
    subscriptions.delete(topic);
    gossip.topicValidators.delete(prefix + topic);
    gossip.unsubscribe(prefix + topic);
  };
}

/**
 * Gossipsub asks before it passes a message on: here it is delivered, too. One in each turn of the event loop, in
 * the order they came: at the end of a round many arrive at once, and each costs a signature or several. What waits
 * is bounded by the rate.
 */
function receive(
  topics: TopicsState,
  topic: string,
  peer: PeerId,
  data: Uint8Array,
): Promise<TopicValidatorResult> {
  const { nodeOf, rates, penalize } = topics.options;
  const from = nodeOf(peer);
  if (from === null) return Promise.resolve(TopicValidatorResult.Ignore);
  if (!rates.take(`${from} topics`, topicMessagesPerMinuteMax)) {
    penalize(from, 'refused');
    return Promise.resolve(TopicValidatorResult.Ignore);
  }
  const result = topics.delivered.then(() => nextTurn()).then(() => deliverToAll(topics, topic, from, data));
  topics.delivered = result.catch(() => undefined);
  return result;
}

function deliverToAll(
  { options, subscriptions }: TopicsState,
  topic: string,
  from: NodeId,
  data: Uint8Array,
): TopicValidatorResult {
  const { penalize, offences, isFullMesh } = options;
  const offencesBefore = offences();
  const message = data.subarray(nonceBytes);
  let kept = false;
  if (data.length < nonceBytes) penalize(from, 'malformed');
  else
    for (const subscription of [...(subscriptions.get(topic) ?? [])])
      if (deliver(subscription, from, message, penalize) === 'keep') kept = true;
  // A handler may penalise by itself: what it did not like is not passed on either.
  if (offences() !== offencesBefore) return TopicValidatorResult.Reject;
  return kept || isFullMesh() ? TopicValidatorResult.Ignore : TopicValidatorResult.Accept;
}

function deliver(
  { bytesMax, handler }: Subscription,
  from: NodeId,
  message: Uint8Array,
  penalize: TopicsOptions['penalize'],
) {
  if (message.length > bytesMax) return penalize(from, 'too-large');
  const judged = handler(from, message);
  if (judged === false) penalize(from, 'invalid');
  return judged;
}
