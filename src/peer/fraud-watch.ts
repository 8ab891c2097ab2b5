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
  type FraudBook,
  fraudTopic,
  isInPlan,
} from '../pipeline/claim.ts';
import type { TrainRequest } from '../pipeline/messages.ts';
import { type Clock, sleep } from '../std/clock.ts';
import { sha256Hex } from '../std/hash.ts';
import { accept, type Outcome, reject } from '../std/outcome.ts';
import { type Random, uniform } from '../std/random.ts';
import type { Store } from '../std/store.ts';
import type { EventSink } from './events.ts';
import { createEvidenceShelf, type EvidenceShelf } from './fraud-evidence.ts';
import type { NetworkManifest } from './network.ts';

export interface FraudWatchOptions {
  readonly network: NetworkManifest;
  /** This node, which may be accused itself. */
  readonly self: NodeId;
  readonly dataset: Dataset;
  readonly transport: Transport;
  readonly clock: Clock;
  readonly random: Random;
  /** Keeps the evidence. */
  readonly store: Store;
  /** Share of claims that is recomputed: 1 at the last stage, which has the labels. */
  readonly share: number;
  /** The round that this node is in. */
  readonly round: () => number;
  readonly events: EventSink;
  /** Called once for each Driver, other than this node; with its claim where this node was the one to find out. */
  readonly onConvicted: (node: NodeId, found: Claim | undefined) => void;
}

export interface FraudWatch {
  /** What was kept before the start counts again. */
  readonly ready: Promise<void>;
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
  /** Evidence in a block of the ledger: its voters have judged it. */
  decided(evidence: Uint8Array): void;
  convicted(): number;
  /** Writes of evidence end by themselves. */
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
/** Between two kept claims that are judged again: each may mean to read a shard. */
const judgeAgainMs = 1_000;

interface Watch {
  readonly options: FraudWatchOptions;
  readonly ground: ClaimGround;
  readonly book: FraudBook;
  readonly evidence: EvidenceShelf;
  readonly rates: ReturnType<typeof createRateLimiter>;
  /** Who sent each accusation that is being judged, by its hash. */
  readonly judging: Map<string, Set<NodeId>>;
  /** Hashes of accusations that were wrong, the oldest first. */
  readonly innocent: Set<string>;
  warnedOfSelf: boolean;
}

export function watchFraud(options: FraudWatchOptions): FraudWatch {
  const { network, dataset, transport, random, share } = options;
  const closing = new AbortController();
  const evidence = createEvidenceShelf(options);
  const watch: Watch = {
    options,
    ground: { dataset, plan: network.training },
    book: createFraudBook(undefined, (node) => evidence.forget(node)),
    evidence,
    rates: createRateLimiter(options.clock),
    judging: new Map(),
    innocent: new Set(),
    warnedOfSelf: false,
  };
  const { book } = watch;
  const ready = remember(watch);
  void ready.then(() => judgeAgain(watch, closing.signal));
  const unsubscribe = transport.subscribe(fraudTopic, claimBytesMax, (from, message) => {
    hear(watch, from, message);
    return 'keep';
  });
  return {
    ready,
    check: async ({ round, step, index, claim: encoded, labels }) => {
      const decoded = decodeClaim(network.networkId, encoded);
      if (!decoded.ok) return reject('bad-claim', decoded.code);
      const claim = decoded.value;
      if (claim.round !== round || claim.step !== step || claim.index !== index) return reject('bad-claim');
      await ready;
      if (book.has(claim.nodeId)) return reject('convicted');
      // A step that no round has must not be taken: it would be part of what this node claims.
      const isSampled = share === 1 || uniform(random) < share || !isInPlan(claim, watch.ground.plan);
      if (!isSampled) return accept(claim.nodeId);
      const checked = await checkClaim(claim, watch.ground, labels);
      if (checked.ok) return accept(claim.nodeId);
      if (checked.code === 'wrong-batch') convict(watch, claim, true);
      // The last stage checks every claim: where others cannot, that is nobody's fault and harms nobody.
      return checked.code === 'unchecked' && share < 1 ? accept(claim.nodeId) : checked;
    },
    refused: (code) => {
      if (code !== 'convicted' && code !== 'wrong-batch') return false;
      warnOfSelf(watch);
      return true;
    },
    decided: (evidence) => {
      const claim = decodeClaim(options.network.networkId, evidence);
      if (claim.ok) convict(watch, claim.value, false);
    },
    isConvicted: (node) => book.has(node),
    convicted: () => book.size(),
    close: () => {
      closing.abort();
      unsubscribe();
    },
  };
}

/** Convictions of before this start. Each was judged before it was kept, so it counts from now on. */
async function remember({ options, book, evidence }: Watch): Promise<void> {
  for (const claim of await evidence.read()) book.add(claim);
  if (book.size() === 0) return;
  const detail = `${book.size()} Drivers convicted before this start are not served`;
  options.events({ type: 'warning', code: 'convictions-kept', detail });
}

/** What the disk says is judged once more, one by one and without haste; what convicts nobody is forgotten. */
async function judgeAgain(watch: Watch, signal: AbortSignal): Promise<void> {
  const { options, book, evidence, ground } = watch;
  const { clock, network, events } = options;
  for (const node of book.nodes()) {
    await sleep(clock, judgeAgainMs, signal).catch(() => {});
    const claim = book.evidence(node);
    if (signal.aborted) return;
    if (!claim) continue;
    const judged = await checkAccusation(network.networkId, claim, ground).catch(() => reject('unchecked'));
    if (judged.ok || judged.code === 'unchecked' || signal.aborted) continue;
    book.remove(node);
    evidence.forget(node);
    const detail = `the evidence kept against Driver ${node.slice(0, 8)} proves nothing (${judged.code})`;
    events({ type: 'warning', code: 'conviction-void', detail });
  }
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
    if (fraud.ok) convict(watch, fraud.value, false);
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
function convict(watch: Watch, claim: Claim, isOwnFinding: boolean): void {
  const { transport, events, onConvicted, self } = watch.options;
  if (!watch.book.add(claim)) return;
  watch.evidence.keep(claim);
  transport.publish(fraudTopic, encodeClaim(claim)).catch(() => {});
  if (claim.nodeId === self) {
    warnOfSelf(watch);
    return;
  }
  const by = isOwnFinding ? 'found here' : 'reported';
  const detail = `Driver ${claim.nodeId.slice(0, 8)} signed a batch that is not its own (${by})`;
  events({ type: 'warning', code: 'driver-fraud', detail });
  onConvicted(claim.nodeId, isOwnFinding ? claim : undefined);
}

function warnOfSelf(watch: Watch): void {
  if (watch.warnedOfSelf) return;
  watch.warnedOfSelf = true;
  const detail = 'others hold batches that this node signed for fraud, and work for it no more';
  watch.options.events({ type: 'warning', code: 'self-convicted', detail });
}
