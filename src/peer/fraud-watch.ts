/**
 * Checks the claims of Drivers against the dataset, tells the network of those that are fraud, and listens to what
 * others have found: every accusation is checked again here before it counts.
 */
import type { Dataset } from '../genesis/dataset.ts';
import type { NodeId, Transport } from '../net/transport.ts';
import {
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
import { accept, type Outcome, reject } from '../std/outcome.ts';
import { type Random, uniform } from '../std/random.ts';
import type { EventSink } from './events.ts';
import type { NetworkManifest } from './network.ts';

export interface FraudWatchOptions {
  readonly network: NetworkManifest;
  readonly dataset: Dataset;
  readonly transport: Transport;
  readonly random: Random;
  /** Share of claims that is recomputed: 1 at the last stage, which has the labels. */
  readonly share: number;
  readonly events: EventSink;
}

export interface FraudWatch {
  /**
   * The Driver whose claim came with a microbatch: `bad-claim`, `wrong-batch`, `wrong-labels`, `convicted`, or
   * `unchecked` while the dataset cannot be had.
   */
  check(
    request: Pick<TrainRequest, 'round' | 'step' | 'index' | 'claim' | 'labels'>,
  ): Promise<Outcome<NodeId>>;
  isConvicted(node: NodeId): boolean;
  convicted(): number;
  close(): void;
}

/** Accusations being recomputed at a time; more are left, and come again from those who made them. */
const checksMax = 4;

export function watchFraud(options: FraudWatchOptions): FraudWatch {
  const { network, dataset, transport, random, share, events } = options;
  const book = createFraudBook();
  const ground: ClaimGround = { dataset, plan: network.training };
  let checks = 0;

  const convict = (claim: Parameters<typeof book.add>[0], by: string) => {
    if (!book.add(claim)) return;
    const detail = `Driver ${claim.nodeId.slice(0, 8)} signed a batch that is not its own (${by})`;
    events({ type: 'warning', code: 'driver-fraud', detail });
  };
  const hear = async (message: Uint8Array) => {
    checks++;
    try {
      const fraud = await checkAccusation(network.networkId, message, ground);
      if (fraud.ok) convict(fraud.value, 'reported');
    } finally {
      checks--;
    }
  };
  const unsubscribe = transport.subscribe(fraudTopic, claimBytesMax, (_from, message) => {
    const decoded = decodeClaim(network.networkId, message);
    if (!decoded.ok) return false;
    if (checks < checksMax && !book.has(decoded.value.nodeId)) void hear(message);
    return true;
  });

  return {
    check: async ({ round, step, index, claim: encoded, labels }) => {
      const decoded = decodeClaim(network.networkId, encoded);
      if (!decoded.ok) return reject('bad-claim', decoded.code);
      const claim = decoded.value;
      if (claim.round !== round || claim.step !== step || claim.index !== index) return reject('bad-claim');
      if (book.has(claim.nodeId)) return reject('convicted');
      if (share < 1 && uniform(random) >= share) return accept(claim.nodeId);
      const checked = await checkClaim(claim, ground, labels);
      if (!checked.ok && checked.code === 'wrong-batch') {
        convict(claim, 'found here');
        transport.publish(fraudTopic, encodeClaim(claim)).catch(() => {});
      }
      return checked.ok ? accept(claim.nodeId) : checked;
    },
    isConvicted: (node) => book.has(node),
    convicted: () => book.size(),
    close: unsubscribe,
  };
}
