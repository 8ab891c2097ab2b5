/**
 * Carries consensus over epochs: gossip, runs of decided blocks for those who were away, and for those who were away
 * too long the ends of epochs, which prove the newest members, with a snapshot of the state they certified.
 */
import { verifyEpochs } from '../../src/consensus/checkpoint.ts';
import type { CertifiedStart, EpochRun, EpochsReplica, Position } from '../../src/consensus/epoch-types.ts';
import { decodePosition, decodeRun, encodePosition, encodeRun } from '../../src/consensus/epoch-wire.ts';
import { defaultLimits } from '../../src/consensus/limits.ts';
import { isMisbehaviour } from '../../src/consensus/receive.ts';
import type { SignatureScheme } from '../../src/consensus/types.ts';
import { blocksProtocol, type Protocol } from '../../src/net/protocol.ts';
import type { Transport } from '../../src/net/transport.ts';
import { type Clock, sleep } from '../../src/std/clock.ts';
import { decodeCanonical, encodeCanonical } from '../../src/std/codec.ts';
import { accept, reject } from '../../src/std/outcome.ts';

const topic = 'consensus';
const endsProtocol: Protocol = { ...blocksProtocol, id: '/neuroshard/simulated-ends/1' };
const snapshotProtocol: Protocol = { ...blocksProtocol, id: '/neuroshard/simulated-snapshot/1' };
const answerBytesMax = blocksProtocol.responseBytesMax;
/** How often a node asks again while it applies what it was given. */
const busyTries = 40;

export interface EpochChainOptions {
  readonly transport: Transport;
  readonly clock: Clock;
  readonly networkId: Uint8Array;
  readonly signatures: SignatureScheme;
  /** The running replica: none yet at the start, another one after a snapshot was taken. */
  readonly replica: () => EpochsReplica | undefined;
  /** The state at the beginning of the epoch, or undefined. */
  readonly snapshot: (epoch: number) => Uint8Array | undefined;
  /** Takes a state, if it has the certified root, and goes on from there. */
  readonly takeSnapshot: (start: CertifiedStart, state: Uint8Array) => Promise<boolean>;
}

export interface EpochChain {
  broadcast(message: Uint8Array): void;
  catchUp(position: Position): void;
}

export function connectEpochChain(options: EpochChainOptions): EpochChain {
  const { transport } = options;
  let catching = false;
  const catchUp = async (position: Position) => {
    if (catching) return;
    catching = true;
    try {
      for (const peer of transport.peers()) await catchUpFrom(options, peer, position);
    } finally {
      catching = false;
    }
  };
  serve(options);
  return {
    broadcast: (message) => void transport.publish(topic, message).catch(() => {}),
    catchUp: (position) => void catchUp(position),
  };
}

function serve({ transport, replica, snapshot }: EpochChainOptions): void {
  transport.subscribe(topic, defaultLimits.messageBytesMax, (from, message) => {
    const received = replica()?.receive(from, message);
    if (received && !received.ok && isMisbehaviour(received.code)) transport.penalize(from, received.code);
  });
  transport.handle(blocksProtocol, async (_from, request) => {
    const position = decodePosition(request);
    const running = replica();
    if (!running) return reject('not-running');
    return position.ok ? accept(encodeRun(running.decidedSince(position.value))) : reject('malformed');
  });
  transport.handle(endsProtocol, async (_from, request) => {
    const position = decodePosition(request);
    const running = replica();
    if (!running) return reject('not-running');
    if (!position.ok) return reject('malformed');
    return accept(encodeCanonical((await running.endsSince(position.value.epoch)).map(encodeRun)));
  });
  transport.handle(snapshotProtocol, async (_from, request) => {
    const position = decodePosition(request);
    const state = position.ok ? snapshot(position.value.epoch) : undefined;
    return state ? accept(state) : reject('unknown');
  });
}

/** Until the position is reached, or the peer has no more to give. */
async function catchUpFrom(options: EpochChainOptions, peer: string, position: Position): Promise<void> {
  let busy = 0;
  while (!isReached(here(options), position)) {
    const code = await fetchRun(options, peer);
    if (code === 'epoch-pruned') {
      if (!(await jump(options, peer))) return;
    } else if (code === 'busy' || code === 'not-running') {
      if (++busy > busyTries) return;
      await sleep(options.clock, 50);
    } else if (code !== 'adopted') return;
  }
}

function here({ replica }: EpochChainOptions): Position {
  const { epoch, decidedHeight } = replica()!.status();
  return { epoch, height: decidedHeight };
}

function isReached({ epoch, height }: Position, wanted: Position): boolean {
  return epoch > wanted.epoch || (epoch === wanted.epoch && height >= wanted.height);
}

/** `adopted`, or why there is nothing to go on with. */
async function fetchRun(options: EpochChainOptions, peer: string): Promise<string> {
  const { transport, networkId, replica } = options;
  const answer = await transport.request(peer, blocksProtocol, encodePosition(here(options)));
  if (!answer.ok) return answer.code;
  const run = decodeRun(answer.value, networkId, defaultLimits);
  if (!run.ok) return run.code;
  const adopted = replica()!.adopt(run.value);
  if (!adopted.ok && isMisbehaviour(adopted.code)) transport.penalize(peer, adopted.code);
  return adopted.ok ? 'adopted' : adopted.code;
}

/** By the ends of epochs to the newest members, and to the state that they certified. */
async function jump(options: EpochChainOptions, peer: string): Promise<boolean> {
  const { transport, networkId, replica, takeSnapshot } = options;
  const ask = (protocol: Protocol, epoch: number) =>
    transport.request(peer, protocol, encodePosition({ epoch, height: 0 }));
  const trusted = replica()!.start();
  const answer = await ask(endsProtocol, trusted.epoch);
  if (!answer.ok) return false;
  const verified = verifyEpochs(trusted, readEnds(answer.value, networkId), options);
  if (!verified.ok || !('stateRoot' in verified.value)) return false;
  const start = verified.value;
  const state = await ask(snapshotProtocol, start.epoch);
  return state.ok && (await takeSnapshot(start, state.value));
}

function readEnds(bytes: Uint8Array, networkId: Uint8Array): EpochRun[] {
  const decoded = decodeCanonical(bytes, answerBytesMax);
  const ends: EpochRun[] = [];
  for (const item of decoded.ok && Array.isArray(decoded.value) ? (decoded.value as unknown[]) : []) {
    const run = item instanceof Uint8Array ? decodeRun(item, networkId, defaultLimits) : undefined;
    if (!run?.ok) break;
    ends.push(run.value);
  }
  return ends;
}
