/**
 * Carries consensus messages over the transport, serves decided blocks, and fetches them when this node fell behind.
 * It judges nothing: signatures and certificates are the replica's to check.
 */
import type { EpochsReplica, Position } from '../consensus/epoch-types.ts';
import { decodePosition, decodeRun, encodePosition, encodeRun } from '../consensus/epoch-wire.ts';
import { defaultLimits } from '../consensus/limits.ts';
import { isMisbehaviour } from '../consensus/receive.ts';
import { blocksProtocol } from '../net/protocol.ts';
import type { NodeId, Transport } from '../net/transport.ts';
import { accept } from '../std/outcome.ts';

export const consensusTopic = 'consensus';

export interface ChainOptions {
  readonly transport: Transport;
  readonly networkId: Uint8Array;
  /**
   * No peer has what comes next here, and some are epochs further: joins them, and gives the replica to go on with.
   * Undefined when nothing can be done about it.
   */
  readonly jump?: () => Promise<EpochsReplica | undefined>;
}

export interface ChainSync {
  broadcast(message: Uint8Array): void;
  /** Feeds gossip to the replica and answers requests for blocks; the result ends both. */
  serve(replica: EpochsReplica): () => void;
  /** Asks peers one after another for what is decided up to there; one attempt at a time. */
  catchUp(replica: EpochsReplica, wanted: Position): void;
}

export function connectChain(options: ChainOptions): ChainSync {
  const { transport } = options;
  let catching = false;
  return {
    // Best effort: what did not get out, because the transport has just closed, is said again or no longer matters.
    broadcast: (message) => void transport.publish(consensusTopic, message).catch(() => {}),
    serve: (replica) => serve(transport, replica),
    catchUp: (replica, wanted) => {
      if (catching) return;
      catching = true;
      void catchUp(options, replica, wanted).finally(() => {
        catching = false;
      });
    },
  };
}

function serve(transport: Transport, replica: EpochsReplica): () => void {
  const { messageBytesMax } = defaultLimits;
  const unsubscribe = transport.subscribe(consensusTopic, messageBytesMax, (from, message) => {
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
}

async function catchUp(options: ChainOptions, from: EpochsReplica, wanted: Position): Promise<void> {
  let result = await catchUpFromAll(options, from, wanted);
  while (result === 'epoch-pruned') {
    const replica = await options.jump?.();
    if (!replica) return;
    // Nobody knows how much there is since then: all that anybody has.
    result = await catchUpFromAll(options, replica, { epoch: Number.MAX_SAFE_INTEGER, height: 0 });
  }
}

/** `reached`, or `epoch-pruned` when nobody has the next block and somebody speaks of a later epoch. */
async function catchUpFromAll(
  options: ChainOptions,
  replica: EpochsReplica,
  wanted: Position,
): Promise<string> {
  let result = 'unavailable';
  for (const peer of options.transport.peers()) {
    for (let code = 'adopted'; code === 'adopted'; ) {
      if (!isBefore(positionOf(replica), wanted)) return 'reached';
      code = await fetchFrom(options, peer, replica);
      if (code === 'epoch-pruned') result = code;
      if (code === 'adopted') result = 'unavailable';
    }
  }
  return result;
}

/** One run of blocks: `adopted`, or why there is none. */
async function fetchFrom(
  { transport, networkId }: ChainOptions,
  peer: NodeId,
  replica: EpochsReplica,
): Promise<string> {
  const answer = await transport.request(peer, blocksProtocol, encodePosition(positionOf(replica)));
  if (!answer.ok) return answer.code;
  const run = decodeRun(answer.value, networkId, defaultLimits);
  if (!run.ok) {
    transport.penalize(peer, run.code);
    return run.code;
  }
  if (run.value.blocks.length === 0) return 'nothing-new';
  const adopted = replica.adopt(run.value);
  if (!adopted.ok && adopted.code === 'bad-certificate') transport.penalize(peer, adopted.code);
  return adopted.ok ? 'adopted' : adopted.code;
}

function positionOf(replica: EpochsReplica): Position {
  const { epoch, decidedHeight } = replica.status();
  return { epoch, height: decidedHeight };
}

function isBefore(one: Position, other: Position): boolean {
  return one.epoch < other.epoch || (one.epoch === other.epoch && one.height < other.height);
}
