/**
 * Checks the claims of Drivers against the dataset, tells the network of those that are fraud, and listens to what
 * others have found. An accusation is judged again here before it counts, and only then published anew: so whoever sends
 * a wrong one has not judged it, and is to blame. It stops no work itself.
 */
import type { Dataset } from '../genesis/dataset.ts';
import { createRateLimiter } from '../net/rate-limit.ts';
import type { NodeId, Transport } from '../net/transport.ts';
import {
  type Claim,
  type ClaimGround,
  checkAccusation,
  checkClaim,
  claimBytesMax,
  createFraudBook,
  decodeClaim,
  encodeClaim,
  fraudTopic,
} from '../pipeline/claim.ts';
import type { TrainRequest } from '../pipeline/messages.ts';
import type { Clock } from '../std/clock.ts';
import { sha256Hex } from '../std/hash.ts';
import { accept, type Outcome, reject } from '../std/outcome.ts';
import { type Random, uniform } from '../std/random.ts';
import type { EventSink } from './events.ts';
import type { NetworkManifest } from './network.ts';

export interface FraudWatchOptions {
  readonly network: NetworkManifest;
  /** This node, which may be accused itself. */
  readonly self: NodeId;
  readonly dataset: Dataset;
  readonly transport: Transport;
  readonly clock: Clock;
  readonly random: Random;
  /** Share of claims that is recomputed: 1 at the last stage, which has the labels. */
  readonly share: number;
  /** The round that this node is in. */
  readonly round: () => number;
  readonly events: EventSink;
  /** Called once for each Driver, other than this node. */
  readonly onConvicted: (node: NodeId) => void;
}

export interface FraudWatch {
  /**
   * The Driver whose claim came with a microbatch: `bad-claim`, `wrong-batch`, `wrong-labels`, `convicted`, or
   * `unchecked` while the dataset cannot be had and every claim must be checked here.
   */
  check(
    request: Pick<TrainRequest, 'round' | 'step' | 'index' | 'claim' | 'labels'>,
  ): Promise<Outcome<NodeId>>;
  /** This node's own microbatch was refused: whether as fraud, which is warned of once. */
  refused(code: string): boolean;
  isConvicted(node: NodeId): boolean;
  convicted(): number;
  close(): void;
}

/** Accusations being judged at a time; more are left, and come again from others who have judged them. */
const checksMax = 4;
/** From one sender; honest nodes publish each conviction once. */
const accusationsPerMinuteMax = 30;
/** Of claims of rounds long past nobody is reminded, and of none to come: judging them may mean to fetch a shard. */
const roundsBack = 64;
const roundsAhead = 1;
const innocentMax = 1024;

interface Watch {
  readonly options: FraudWatchOptions;
  readonly ground: ClaimGround;
  readonly book: ReturnType<typeof createFraudBook>;
  readonly rates: ReturnType<typeof createRateLimiter>;
  /** Who sent each accusation that is being judged, by its hash. */
  readonly judging: Map<string, Set<NodeId>>;
  /** Hashes of accusations that were wrong, the oldest first. */
  readonly innocent: Set<string>;
  warnedOfSelf: boolean;
}

export function watchFraud(options: FraudWatchOptions): FraudWatch {
  const { network, dataset, transport, random, share } = options;
  const watch: Watch = {
    options,
    ground: { dataset, plan: network.training },
    book: createFraudBook(),
    rates: createRateLimiter(options.clock),
    judging: new Map(),
    innocent: new Set(),
    warnedOfSelf: false,
  };
  const { book } = watch;
  const unsubscribe = transport.subscribe(fraudTopic, claimBytesMax, (from, message) => {
    hear(watch, from, message);
    return 'keep';
  });
  return {
    check: async ({ round, step, index, claim: encoded, labels }) => {
      const decoded = decodeClaim(network.networkId, encoded);
      if (!decoded.ok) return reject('bad-claim', decoded.code);
      const claim = decoded.value;
      if (claim.round !== round || claim.step !== step || claim.index !== index) return reject('bad-claim');
      if (book.has(claim.nodeId)) return reject('convicted');
      if (share < 1 && uniform(random) >= share) return accept(claim.nodeId);
      const checked = await checkClaim(claim, watch.ground, labels);
      if (checked.ok) return accept(claim.nodeId);
      if (checked.code === 'wrong-batch') convict(watch, claim, 'found here');
      // The last stage checks every claim: where others cannot, that is nobody's fault and harms nobody.
      return checked.code === 'unchecked' && share < 1 ? accept(claim.nodeId) : checked;
    },
    refused: (code) => {
      if (code !== 'convicted' && code !== 'wrong-batch') return false;
      warnOfSelf(watch);
      return true;
    },
    isConvicted: (node) => book.has(node),
    convicted: () => book.size(),
    close: unsubscribe,
  };
}

/** Untrusted bytes. What costs least is asked first, and nothing is fetched for what cannot matter here. */
function hear(watch: Watch, from: NodeId, message: Uint8Array): void {
  const { options, book, rates, judging, innocent } = watch;
  const { network, transport, round } = options;
  if (!rates.take(from, accusationsPerMinuteMax)) return;
  const hash = sha256Hex(message);
  const decoded = innocent.has(hash) ? reject('not-fraud') : decodeClaim(network.networkId, message);
  if (!decoded.ok) {
    transport.penalize(from, decoded.code);
    return;
  }
  const claim = decoded.value;
  if (book.has(claim.nodeId)) return;
  if (claim.round > round() + roundsAhead || claim.round < round() - roundsBack) return;
  const senders = judging.get(hash);
  if (senders) senders.add(from);
  else if (judging.size < checksMax) void judge(watch, message, hash, from);
}

async function judge(watch: Watch, message: Uint8Array, hash: string, from: NodeId): Promise<void> {
  const { options, ground, judging, innocent } = watch;
  const senders = new Set([from]);
  judging.set(hash, senders);
  try {
    const fraud = await checkAccusation(options.network.networkId, message, ground);
    if (fraud.ok) convict(watch, fraud.value, 'reported');
    // Without the dataset nobody can tell, and nobody is to blame.
    if (fraud.ok || fraud.code !== 'not-fraud') return;
    innocent.add(hash);
    if (innocent.size > innocentMax) innocent.delete(innocent.values().next().value!);
    for (const sender of senders) options.transport.penalize(sender, 'not-fraud');
  } catch (error) {
    options.events({ type: 'warning', code: 'fraud-unjudged', detail: String(error) });
  } finally {
    judging.delete(hash);
  }
}

/** Records what was judged here, and tells everyone with the claim itself. */
function convict(watch: Watch, claim: Claim, by: string): void {
  const { transport, events, onConvicted, self } = watch.options;
  if (!watch.book.add(claim)) return;
  transport.publish(fraudTopic, encodeClaim(claim)).catch(() => {});
  if (claim.nodeId === self) {
    warnOfSelf(watch);
    return;
  }
  const detail = `Driver ${claim.nodeId.slice(0, 8)} signed a batch that is not its own (${by})`;
  events({ type: 'warning', code: 'driver-fraud', detail });
  onConvicted(claim.nodeId);
}

function warnOfSelf(watch: Watch): void {
  if (watch.warnedOfSelf) return;
  watch.warnedOfSelf = true;
  const detail = 'others hold batches that this node signed for fraud, and work for it no more';
  watch.options.events({ type: 'warning', code: 'self-convicted', detail });
}
