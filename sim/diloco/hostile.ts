/**
 * Hostile members of the diloco scenario. Most run the product's own peer with one part turned bad: the blob they
 * contribute, what they serve and to whom, what they vote for, what they say they stand on. Twins run it twice under
 * one key; the loud ones come from the consensus scenario and do not train at all.
 */

import { headerBytes } from '../../src/diloco/compression/blob.ts';
import type { Contribution } from '../../src/diloco/replica.ts';
import { makeStatement, statementFields } from '../../src/diloco/statement.ts';
import { announce, contributionTopic, encodeAnnouncement } from '../../src/ledger/announcement.ts';
import { memoryLedgerStore } from '../../src/ledger/memory-store.ts';
import { blobProtocol, type Protocol, stateProtocol, statusProtocol } from '../../src/net/protocol.ts';
import type { NodeId, RequestHandler, Transport } from '../../src/net/transport.ts';
import type { Peer, PeerOptions } from '../../src/peer/peer.ts';
import { toHex, utf8 } from '../../src/std/bytes.ts';
import { sleep } from '../../src/std/clock.ts';
import { encodeCanonical } from '../../src/std/codec.ts';
import { sha256, sha256Hex } from '../../src/std/hash.ts';
import { accept, reject } from '../../src/std/outcome.ts';
import { memoryStore } from '../../src/std/store.ts';
import type { NodeEnv, NodeProgram } from '../cluster.ts';
import { sayEverything, speakGarbage } from '../consensus/hostile.ts';
import { between, chance, pick, sample } from '../random.ts';
import { computing, runTraining, startPeer } from './honest.ts';
import { splitTransport, type TwinChannel } from './twins.ts';
import { type DilocoWorld, freshReplica, stageOf } from './world.ts';

export const hostileKinds = [
  'twins',
  'two-blobs',
  'withhold',
  'bad-blobs',
  'stall',
  'exclude',
  'liar',
  'double',
  'garbage',
  'silent',
] as const;
export type HostileKind = (typeof hostileKinds)[number];

export interface Enemies {
  /** Two halves of all nodes that are not twins. */
  readonly sides: readonly (readonly NodeId[])[];
  readonly channel: TwinChannel;
}

export function hostileNode(world: DilocoWorld, kind: HostileKind, enemies: Enemies): NodeProgram {
  return async (env) => {
    if (kind === 'garbage') speakGarbage(env);
    else if (kind === 'double') {
      const { networkId, members } = world.network;
      const rounds = () => world.checker.closed(0).size;
      sayEverything({ networkId, members, signatures: world.signatures }, rounds, env);
    } else if (kind === 'twins') {
      for (const transport of splitTransport(env, enemies.sides, enemies.channel))
        await runBadPeer(world, env, { transport, store: memoryStore(), ledger: memoryLedgerStore() });
    } else if (kind !== 'silent') await runBadPeer(world, env, badPart(world, env, kind, enemies.sides));
    return { stop() {} };
  };
}

/** A real peer with something in it replaced. That it may end does not matter to anybody. */
async function runBadPeer(
  world: DilocoWorld,
  env: NodeEnv,
  parts: Partial<PeerOptions> & { readonly screen?: PeerOptions['replica']['screen'] },
): Promise<void> {
  const { screen, ...rest } = parts;
  const computed = computing(world, env, await freshReplica(world.network, stageOf(world, env.index)));
  const replica = screen ? { ...computed, screen } : computed;
  const peer = await startPeer(world, env, { replica, events: () => {}, ...rest });
  runTraining(env, peer, () => {});
}

type BadKind = Exclude<HostileKind, 'twins' | 'double' | 'garbage' | 'silent'>;

function badPart(world: DilocoWorld, env: NodeEnv, kind: BadKind, sides: Enemies['sides']) {
  switch (kind) {
    case 'two-blobs':
      return { steps: twoContributions(world, env, sides) };
    case 'withhold':
      return { transport: serving(env.transport, { [blobProtocol.id]: withholding(env) }) };
    case 'bad-blobs':
      return {
        steps: badContributions(env),
        transport: serving(env.transport, { [blobProtocol.id]: truncating(env) }),
      };
    case 'stall': {
      const slow = stalling(env);
      const slowly = { [blobProtocol.id]: slow, [stateProtocol.id]: slow, [statusProtocol.id]: slow };
      return { transport: serving(env.transport, slowly) };
    }
    case 'exclude':
      return { screen: excluding(world, env) };
    case 'liar':
      return { transport: lying(world, env, sides) };
  }
}

/** How an answer is made of the honest one; called before the honest handler. */
type Answer = (honest: RequestHandler) => RequestHandler;

function serving(transport: Transport, answers: Readonly<Record<string, Answer>>): Transport {
  return {
    ...transport,
    handle: (protocol: Protocol, handler) =>
      transport.handle(protocol, answers[protocol.id]?.(handler) ?? handler),
  };
}

/** Another blob for each half of the network, both sound, both signed. */
function twoContributions(
  world: DilocoWorld,
  env: NodeEnv,
  sides: Enemies['sides'],
): NonNullable<PeerOptions['steps']> {
  return (peer) => {
    let before: Contribution | undefined;
    return {
      contribute: async (round) => {
        const first = await peer.options.replica.contribute();
        const second = before ?? first;
        before = first;
        peer.shelf.put(round, second.blobHash, second.blob);
        const { stateHash: base, step: batches } = await peer.options.replica.position();
        const { blob, blobHash } = second;
        const { stage } = await peer.options.replica.info();
        const body = { round, stage: stage.index, base, blobHash, blobBytes: blob.length, batches };
        const announced = encodeAnnouncement(announce(world.network.networkId, body, env.key));
        env.publishTo(pick(env.random, sides), contributionTopic, announced);
        // The other half hears of it first only sometimes.
        await sleep(env.clock, between(env.random, 0, 200));
        return first;
      },
    };
  };
}

/** Announced to all, given to some: a new choice every so often. */
function withholding(env: NodeEnv): Answer {
  const chosen = new Map<string, boolean>();
  return (honest) => async (from, body, signal, progress) => {
    const key = `${from} ${toHex(body)}`;
    if (!chosen.has(key)) chosen.set(key, chance(env.random, 0.5));
    return chosen.get(key) ? honest(from, body, signal, progress) : reject('unknown-blob');
  };
}

function truncating(env: NodeEnv): Answer {
  return (honest) => async (from, body, signal, progress) => {
    const answer = await honest(from, body, signal, progress);
    if (!answer.ok || !chance(env.random, 0.3)) return answer;
    return accept(answer.value.subarray(0, Math.floor(answer.value.length / 2)));
  };
}

/** Silent in the middle of a transfer, for a while or for ever. */
function stalling(env: NodeEnv): Answer {
  return (honest) => async (from, body, signal, progress) => {
    if (chance(env.random, 0.4)) await new Promise(() => {});
    await sleep(env.clock, between(env.random, 100, 20_000));
    return honest(from, body, signal, progress);
  };
}

const badBlobs = [
  (blob: Uint8Array) => blob.fill(255, headerBytes),
  (blob: Uint8Array) => blob.fill(0, headerBytes),
  (blob: Uint8Array) => blob.subarray(0, blob.length - 5),
  (blob: Uint8Array) => blob.fill(7, 0, 4),
  (blob: Uint8Array) => new Uint8Array([...blob, 1]),
  (blob: Uint8Array) => blob.map((byte, i) => (i < headerBytes ? byte : byte ^ 0x40)),
] as const;

/** Wrong shape, NaN, zeros, another header, huge numbers, a hash of nothing, an old blob again. */
function badContributions(env: NodeEnv): NonNullable<PeerOptions['steps']> {
  return (peer) => {
    let old: Contribution | undefined;
    return {
      contribute: async () => {
        const honest = await peer.options.replica.contribute();
        if (chance(env.random, 0.15)) return { ...honest, blobHash: sha256Hex(utf8('another')) };
        if (old && chance(env.random, 0.2)) return old;
        old = honest;
        const blob = pick(env.random, badBlobs)(honest.blob.slice());
        return { blob, blobHash: sha256Hex(blob) };
      },
    };
  };
}

/** Finds fault with the blobs of its victims: never lists them, never votes for a list that has them. */
function excluding(world: DilocoWorld, env: NodeEnv): PeerOptions['replica']['screen'] {
  const others = world.network.members.filter(({ nodeId }) => nodeId !== env.key.nodeId);
  const victims = sample(env.random, others, 1 + (env.random.uint32() % others.length));
  const refused = new Set(victims.map(({ nodeId }) => nodeId));
  return async (_blob, blobHash) => {
    const author = world.checker.authorOf(blobHash);
    return author && refused.has(author) ? reject('not-canonical', 'so it says') : accept(undefined);
  };
}

/** States one thing to one half and another to the other, and serves states that nobody ever stood in. */
function lying(world: DilocoWorld, env: NodeEnv, sides: Enemies['sides']): Transport {
  const { networkId } = world.network;
  let lies = 0;
  const stage = stageOf(world, env.index);
  const lie = (round: number) => {
    const stateHash = toHex(sha256(utf8(`lie ${lies++}`)));
    return statementFields(makeStatement(networkId, { round, stage, stateHash }, env.key));
  };
  const newest = () => Math.max(0, ...[...world.peers.values()].map((peer: Peer) => peer.position.round));
  const served = serving(env.transport, {
    [stateProtocol.id]: (honest) => async (from, body, signal, progress) => {
      const answer = await honest(from, body, signal, progress);
      if (!answer.ok) return answer;
      const bytes = answer.value.slice();
      bytes[env.random.uint32() % bytes.length]! ^= 1;
      return accept(bytes);
    },
    [statusProtocol.id]: (honest) => async (from, body, signal, progress) => {
      if (chance(env.random, 0.2)) return honest(from, body, signal, progress);
      const rounds = [newest(), newest() + 1 + (env.random.uint32() % 5)];
      return accept(encodeCanonical(rounds.map(lie)));
    },
  });
  return {
    ...served,
    async publish(topic, message) {
      if (topic !== 'state') return served.publish(topic, message);
      for (const side of sides) {
        const round = Math.max(0, newest() + pick(env.random, [-1, 0, 0, 1, 2, 3]));
        env.publishTo(side, topic, encodeCanonical(lie(round)));
      }
    },
  };
}
