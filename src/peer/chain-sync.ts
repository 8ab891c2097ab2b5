/**
 * Carries consensus messages over the transport, serves decided blocks, and fetches them when this node fell behind.
 * It judges nothing: signatures and certificates are the replica's to check.
 */
import { decodeDecided, encodeDecided } from '../consensus/block.ts';
import { defaultLimits } from '../consensus/limits.ts';
import { isMisbehaviour } from '../consensus/receive.ts';
import type { ConsensusReplica } from '../consensus/types.ts';
import { blocksProtocol } from '../net/protocol.ts';
import type { Transport } from '../net/transport.ts';
import { decodeCanonical, encodeCanonical } from '../std/codec.ts';
import { accept, reject } from '../std/outcome.ts';

const topic = 'consensus';

export interface ChainOptions {
  readonly transport: Transport;
  readonly networkId: Uint8Array;
}

export interface ChainSync {
  broadcast(message: Uint8Array): void;
  /** Feeds gossip to the replica and answers requests for blocks; the result ends both. */
  serve(replica: ConsensusReplica): () => void;
  /** Asks peers one after another for what is decided above our height; one attempt at a time. */
  catchUp(replica: ConsensusReplica, height: number): void;
}

export function connectChain({ transport, networkId }: ChainOptions): ChainSync {
  let catching = false;

  const fetchFrom = async (peer: string, replica: ConsensusReplica): Promise<boolean> => {
    const request = encodeCanonical(replica.status().decidedHeight);
    const answer = await transport.request(peer, blocksProtocol, request);
    if (!answer.ok) return false;
    const blocks = decodeDecided(answer.value, networkId, defaultLimits);
    if (!blocks.ok) {
      transport.penalize(peer, blocks.code);
      return false;
    }
    if (blocks.value.length === 0) return false;
    let adopted = replica.adopt(blocks.value);
    // A peer that has pruned what we miss sends later blocks; the state they lead to is then fetched as a whole.
    if (!adopted.ok && adopted.code === 'unlinked') adopted = replica.adopt(blocks.value, { jump: true });
    if (!adopted.ok && adopted.code === 'bad-certificate') transport.penalize(peer, adopted.code);
    return adopted.ok;
  };

  const catchUp = async (replica: ConsensusReplica, height: number) => {
    if (catching) return;
    catching = true;
    try {
      for (const peer of transport.peers()) {
        while (replica.status().decidedHeight < height && (await fetchFrom(peer, replica)));
        if (replica.status().decidedHeight >= height) return;
      }
    } finally {
      catching = false;
    }
  };

  return {
    // Best effort: what did not get out, because the transport has just closed, is said again or no longer matters.
    broadcast: (message) => void transport.publish(topic, message).catch(() => {}),
    serve: (replica) => {
      const unsubscribe = transport.subscribe(topic, defaultLimits.messageBytesMax, (from, message) => {
        const received = replica.receive(from, message);
        if (!received.ok && isMisbehaviour(received.code)) transport.penalize(from, received.code);
      });
      const unhandle = transport.handle(blocksProtocol, async (_from, request) => {
        const decoded = decodeCanonical(request, blocksProtocol.requestBytesMax);
        const height = decoded.ok ? decoded.value : undefined;
        if (typeof height !== 'number' || !Number.isSafeInteger(height) || height < 0)
          return reject('malformed');
        return accept(encodeDecided(replica.decidedSince(height)));
      });
      return () => {
        unsubscribe();
        unhandle();
      };
    },
    catchUp: (replica, height) => void catchUp(replica, height),
  };
}
