/**
 * Hostile members of the consensus scenario. Twins (Bano et al., "Twins: BFT Systems Made Robust", 2020) are the
 * strongest: one key runs two honest replicas, each talking to another half of the network, so that together they
 * equivocate in every possible place. The others are loud, mute, forgetful of half their peers, or say everything twice.
 * They go on when they are members no longer.
 */
import { blockHash } from '../../src/consensus/block.ts';
import { statementDigest } from '../../src/consensus/certificate.ts';
import { encodeEpochEnd, epochDomain } from '../../src/consensus/epoch-end.ts';
import type { EpochsReplica } from '../../src/consensus/epoch-types.ts';
import { decodeEnvelope, encodeEnvelope } from '../../src/consensus/epoch-wire.ts';
import { createEpochs } from '../../src/consensus/epochs.ts';
import { defaultLimits } from '../../src/consensus/limits.ts';
import { leaderOf, memberSet } from '../../src/consensus/members.ts';
import { decodeMessage, encodeMessage, type Message, type Vote } from '../../src/consensus/messages.ts';
import type { Block, Member, SignatureScheme, VoteKind } from '../../src/consensus/types.ts';
import type { NodeId } from '../../src/net/transport.ts';
import { memoryStore } from '../../src/std/store.ts';
import type { NodeEnv, NodeProgram } from '../cluster.ts';
import { between, chance, pick, sample } from '../random.ts';
import { type ConsensusWorld, encodeRound, roundApplication, roundOf } from './honest.ts';
import type { LogEntry } from './schedule.ts';

export const hostileKinds = ['silent', 'garbage', 'twins', 'double', 'half'] as const;
export type HostileKind = (typeof hostileKinds)[number];

const topic = 'consensus';

/** `sides`: the halves of the network between which twins and withholders tell their peers apart. */
export function hostileMember(
  world: ConsensusWorld,
  kind: HostileKind,
  sides: readonly (readonly NodeId[])[],
): NodeProgram {
  return async (env) => {
    switch (kind) {
      case 'silent':
        break;
      case 'garbage':
        speakGarbage(env);
        break;
      case 'twins':
        for (const side of sides) await runReplica(world, env, side);
        break;
      case 'half':
        await runReplica(world, env, sides[0]!);
        break;
      case 'double':
        sayEverythingInEpochs(world, env);
        break;
    }
    return { stop() {} };
  };
}

/** A real replica whose words reach one side only; it hears everything. */
async function runReplica(world: ConsensusWorld, env: NodeEnv, side: readonly NodeId[]): Promise<void> {
  const log: LogEntry[] = [];
  const roundTimer = () => env.clock.setTimer(between(env.random, ...world.roundMs), () => replica.wake());
  const replica: EpochsReplica = await createEpochs({
    ...world,
    start: world.schedule.start,
    key: env.key,
    clock: env.clock,
    store: memoryStore(),
    broadcast: (message) => env.publishTo(side, topic, message),
    application: {
      ...roundApplication(env.random, () => log.length, env),
      decided({ block }, epoch) {
        log.push([epoch, block.height, log.length]);
        roundTimer();
      },
      nextEpoch: (epoch) => world.schedule.nextEpoch(log, epoch),
    },
  });
  // A twin hears its own side, and of the other what it can use: that makes the two halves drift apart.
  env.transport.subscribe(topic, defaultLimits.messageBytesMax, (from, message) => {
    replica.receive(from, message);
  });
  roundTimer();
}

/** Random bytes, damaged copies, old messages again, and what was said in one epoch as if it were of another. */
export function speakGarbage(env: NodeEnv): void {
  const heard: Uint8Array[] = [];
  env.transport.subscribe(topic, defaultLimits.messageBytesMax, (_from, message) => {
    heard.push(message);
    if (heard.length > 200) heard.shift();
  });
  const again = () => {
    const bytes = pick(env.random, [0, 1, 2, 3]);
    let message: Uint8Array = new Uint8Array(Math.floor(between(env.random, 0, 300))).map(() =>
      env.random.uint32(),
    );
    if (bytes > 0 && heard.length > 0) {
      message = new Uint8Array(pick(env.random, heard));
      if (bytes === 1) message[env.random.uint32() % message.length]! ^= 1 << (env.random.uint32() % 8);
    }
    const envelope = bytes === 3 ? decodeEnvelope(message, defaultLimits) : undefined;
    if (envelope?.ok) {
      const { epoch } = envelope.value;
      message = encodeEnvelope(epoch + pick(env.random, epoch > 0 ? [-1, 1] : [1]), envelope.value.message);
    }
    void env.transport.publish(topic, message);
    env.clock.setTimer(between(env.random, 50, 2_000), again);
  };
  again();
}

/** What a member that says everything knows of whom it talks to. */
interface Audience {
  /** In the place of the network's id: an epoch's domain. */
  readonly networkId: Uint8Array;
  readonly members: readonly Member[];
  readonly signatures: SignatureScheme;
  readonly rounds: () => number;
  /** A payload that nobody may accept. */
  readonly forged?: Uint8Array;
  readonly say: (message: Uint8Array) => void;
}

/** In a network whose members never change. */
export function sayEverything(
  world: Pick<Audience, 'networkId' | 'members' | 'signatures'>,
  rounds: () => number,
  env: NodeEnv,
): void {
  const say = (message: Uint8Array) => void env.transport.publish(topic, message);
  const hear = doubleTalker({ ...world, rounds, say }, env);
  env.transport.subscribe(topic, defaultLimits.messageBytesMax, (_from, message) => hear(message));
}

/** In every epoch of which it was a member, those that are over included. */
function sayEverythingInEpochs(world: ConsensusWorld, env: NodeEnv): void {
  const talkers = new Map<number, (message: Uint8Array) => void>();
  const talkerIn = (epoch: number) => {
    const members = world.schedule.membersOf(epoch);
    const own = { nodeId: env.key.nodeId, publicKey: env.key.publicKey, weight: 1 };
    const end = { members: [own], stateRoot: new Uint8Array(32), timeMs: 0 };
    return doubleTalker(
      {
        networkId: epochDomain(world.networkId, epoch),
        members,
        signatures: world.signatures,
        rounds: world.checker.rounds,
        forged: encodeEpochEnd(epoch, end, defaultLimits),
        say: (message) => void env.transport.publish(topic, encodeEnvelope(epoch, message)),
      },
      env,
    );
  };
  env.transport.subscribe(topic, defaultLimits.messageBytesMax, (_from, bytes) => {
    const envelope = decodeEnvelope(bytes, defaultLimits);
    if (!envelope.ok || envelope.value.epoch > 1_000) return;
    const { epoch, message } = envelope.value;
    if (!talkers.has(epoch)) talkers.set(epoch, talkerIn(epoch));
    talkers.get(epoch)!(message);
  });
}

/** Votes for every block it hears of, for the dummy too, finalizes all, and proposes twice when it leads. */
function doubleTalker(world: Audience, env: NodeEnv): (bytes: Uint8Array) => void {
  const { rounds } = world;
  const members = memberSet(world.members, defaultLimits.membersMax);
  const me = members.indexOf(env.key.nodeId);
  if (me < 0) return () => {};
  const said = new Set<string>();
  const sign = (kind: VoteKind | 'proposal', height: number, hash: Uint8Array) =>
    world.signatures.sign(statementDigest(world.networkId, kind, height, hash), env.key);
  const say = (message: Message) => world.say(encodeMessage(message));
  const vote = (kind: VoteKind, height: number, hash: Uint8Array) => {
    const name = `${kind} ${height} ${hash}`;
    if (said.has(name)) return;
    said.add(name);
    const statement: Vote = {
      kind,
      height,
      blockHash: hash,
      member: me,
      signature: sign(kind, height, hash),
    };
    say({ type: 'vote', vote: statement });
  };
  const propose = (parent: Block, round: number) => {
    const height = parent.height + 1;
    if (leaderOf(members, height) !== me || said.has(`proposals ${height}`)) return;
    said.add(`proposals ${height}`);
    const parentHash = blockHash(world.networkId, parent);
    const above: Block = {
      height,
      parentHeight: parent.height,
      parentHash,
      payload: encodeRound(round, 'one'),
    };
    // A block that leaves out its predecessor, which may be about to be decided.
    const beside: Block = {
      ...parent,
      height,
      payload: encodeRound(roundOf(parent.payload) ?? round, 'beside'),
    };
    const variants = [above, { ...above, payload: encodeRound(round, 'two') }, beside];
    if (world.forged) variants.push({ ...above, payload: world.forged });
    for (const block of sample(env.random, variants, 2)) {
      const hash = blockHash(world.networkId, block);
      say({ type: 'proposal', proposal: { block, hash, signature: sign('proposal', height, hash) } });
    }
  };
  return (message) => {
    const decoded = decodeMessage(message, world.networkId, defaultLimits);
    if (!decoded.ok) return;
    const heard = decoded.value.message;
    if (heard.type === 'proposal') {
      const { block, hash } = heard.proposal;
      vote('vote', block.height, hash);
      if (chance(env.random, 0.5)) vote('dummy', block.height, new Uint8Array(32));
      vote('finalize', block.height, hash);
      propose(block, rounds() + (chance(env.random, 0.5) ? 0 : 1));
    } else if (heard.type === 'vote' && heard.vote.kind !== 'dummy') {
      vote(heard.vote.kind, heard.vote.height, heard.vote.blockHash);
    }
  };
}
