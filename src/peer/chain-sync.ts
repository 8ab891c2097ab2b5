/**
 * Carries consensus messages over the transport, serves decided blocks, and fetches them when this node fell behind.
 * It judges nothing: signatures and certificates are the replica's to check.
 */

import type { EpochsReplica, Position } from '../consensus/epoch-types.ts';
import { decodePosition, decodeRun, encodePosition, encodeRun } from '../consensus/epoch-wire.ts';
import { defaultLimits } from '../consensus/limits.ts';
import { isMisbehaviour } from '../consensus/receive.ts';
import { blocksProtocol } from '../net/protocol.ts';
import type { Transport } from '../net/transport.ts';
import { accept } from '../std/outcome.ts';

const topic = 'consensus';

export interface ChainOptions {
  readonly transport: Transport;
  readonly networkId: Uint8Array;
}

export interface ChainSync {
  broadcast(message: Uint8Array): void;
  /** Feeds gossip to the replica and answers requests for blocks; the result ends both. */
  serve(replica: EpochsReplica): () => void;
  /** Asks peers one after another for what is decided up to there; one attempt at a time. */
  catchUp(replica: EpochsReplica, wanted: Position): void;
}

export function connectChain({ transport, networkId }: ChainOptions): ChainSync {
  let catching = false;

  const fetchFrom = async (peer: string, replica: EpochsReplica): Promise<boolean> => {
    const answer = await transport.request(peer, blocksProtocol, encodePosition(positionOf(replica)));
    if (!answer.ok) return false;
    const run = decodeRun(answer.value, networkId, defaultLimits);
    if (!run.ok) {
      transport.penalize(peer, run.code);
      return false;
    }
    if (run.value.blocks.length === 0) return false;
    const adopted = replica.adopt(run.value);
    if (!adopted.ok && adopted.code === 'bad-certificate') transport.penalize(peer, adopted.code);
    return adopted.ok;
  };

  const catchUp = async (replica: EpochsReplica, wanted: Position) => {
    if (catching) return;
    catching = true;
    try {
      for (const peer of transport.peers()) {
        while (isBefore(positionOf(replica), wanted) && (await fetchFrom(peer, replica)));
        if (!isBefore(positionOf(replica), wanted)) return;
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
        const position = decodePosition(request);
        return position.ok ? accept(encodeRun(replica.decidedSince(position.value))) : position;
      });
      return () => {
        unsubscribe();
        unhandle();
      };
    },
    catchUp: (replica, wanted) => void catchUp(replica, wanted),
  };
}

function positionOf(replica: EpochsReplica): Position {
  const { epoch, decidedHeight } = replica.status();
  return { epoch, height: decidedHeight };
}

function isBefore(one: Position, other: Position): boolean {
  return one.epoch < other.epoch || (one.epoch === other.epoch && one.height < other.height);
}
