/**
 * An honest node of the consensus scenario: the real replica over epochs under a small application that decides numbered
 * rounds, slowly, as training would: it wakes when its own round is over, checks a payload by something like a fetch,
 * and keeps a durable log, from which it derives who votes next.
 */
import { decodeStart, encodeStart } from '../../src/consensus/epoch-end.ts';
import type {
  CertifiedStart,
  EpochApplication,
  EpochStart,
  EpochsReplica,
} from '../../src/consensus/epoch-types.ts';
import { createEpochs } from '../../src/consensus/epochs.ts';
import { type ConsensusLimits, defaultLimits } from '../../src/consensus/limits.ts';
import type { Application, SignatureScheme } from '../../src/consensus/types.ts';
import { equalBytes, utf8 } from '../../src/std/bytes.ts';
import { sleep } from '../../src/std/clock.ts';
import { decodeCanonical, encodeCanonical } from '../../src/std/codec.ts';
import type { Random } from '../../src/std/random.ts';
import type { NodeEnv, NodeProgram } from '../cluster.ts';
import { between, chance } from '../random.ts';
import { Violation } from '../scenario.ts';
import type { ConsensusChecker } from './checkers.ts';
import { connectEpochChain, type EpochChain } from './epoch-chain.ts';
import { type LogEntry, logRoot, readLog, type Schedule } from './schedule.ts';

export interface ConsensusWorld {
  readonly networkId: Uint8Array;
  readonly schedule: Schedule;
  readonly signatures: SignatureScheme;
  readonly checker: ConsensusChecker;
  readonly timing: {
    readonly deltaMs: number;
    readonly deltaMsMax: number;
    readonly retransmitMsMax: number;
  };
  readonly limits: Partial<ConsensusLimits>;
  /** How long a round lasts for a member, in ms. */
  readonly roundMs: readonly [number, number];
  /** The running replica of each honest node, and what its application has durably applied. */
  readonly replicas: Map<number, EpochsReplica>;
  readonly logs: Map<number, readonly number[]>;
  /** Snapshots taken by nodes that were away too long. */
  jumps: number;
}

const stateKey = 'application/state';

export function encodeRound(round: number, note: string): Uint8Array {
  return encodeCanonical([round, utf8(note)]);
}

/** The round that a payload decides; undefined when it is none. */
export function roundOf(payload: Uint8Array): number | undefined {
  const decoded = decodeCanonical(payload, 4096);
  if (!decoded.ok || !Array.isArray(decoded.value) || decoded.value.length !== 2) return undefined;
  const [round, note] = decoded.value as unknown[];
  return typeof round === 'number' && Number.isInteger(round) && note instanceof Uint8Array
    ? round
    : undefined;
}

/** Where the node's state began, and all that was decided, as one value: a crash leaves both or neither. */
interface Saved {
  readonly start: CertifiedStart | undefined;
  readonly log: readonly LogEntry[];
}

async function loadSaved(env: NodeEnv): Promise<Saved> {
  const bytes = await env.store.get(stateKey);
  const decoded = bytes && decodeCanonical(bytes, 1 << 24);
  if (!decoded?.ok) return { start: undefined, log: [] };
  const [startBytes, log] = decoded.value as [Uint8Array, unknown];
  const start = decodeStart(startBytes, defaultLimits);
  return { start: start.ok ? (start.value as CertifiedStart) : undefined, log: readLog(log) ?? [] };
}

interface Living {
  readonly world: ConsensusWorld;
  readonly env: NodeEnv;
  start: EpochStart;
  log: readonly LogEntry[];
  /** Resolves when all that was to be kept is on disk. */
  written: Promise<void>;
  replica: EpochsReplica | undefined;
}

export function honestMember(world: ConsensusWorld): NodeProgram {
  return async (env) => {
    const { start = world.schedule.start, log } = await loadSaved(env);
    const member: Living = { world, env, start, log, written: Promise.resolve(), replica: undefined };
    noteLog(member);
    const chain: EpochChain = connectEpochChain({
      ...world,
      transport: env.transport,
      clock: env.clock,
      replica: () => member.replica,
      snapshot: (epoch) => snapshotOf(member, epoch),
      takeSnapshot: (certified, state) => takeSnapshot(member, certified, state, () => open(member, chain)),
    });
    // It writes before it is there, which takes virtual time.
    open(member, chain).catch(env.report);
    return { stop: () => member.replica?.stop() };
  };
}

/** What the checker finds is told; the node itself goes on. */
function observe({ env }: Living, check: () => void): void {
  try {
    check();
  } catch (violation) {
    env.report(violation);
  }
}

function noteLog(member: Living): void {
  const { world, env, log } = member;
  const rounds = log.map(([, , round]) => round);
  world.logs.set(env.index, rounds);
  observe(member, () => world.checker.log(env.index, rounds));
}

async function keep(member: Living, log: readonly LogEntry[]): Promise<void> {
  // Durable before the replica may forget it; a crash before this leaves the decision to be delivered again.
  member.written = member.env.store.put(stateKey, encodeCanonical([encodeStart(member.start), log]));
  await member.written;
  member.log = log;
  noteLog(member);
}

/** The state at the beginning of the epoch, which must have been reached. */
function snapshotOf({ log, replica }: Living, epoch: number): Uint8Array | undefined {
  const before = log.filter(([of]) => of < epoch);
  return replica && replica.status().epoch >= epoch ? encodeCanonical(before) : undefined;
}

/** False for a state that is not the certified one, or no newer than what is here. */
async function takeSnapshot(
  member: Living,
  certified: CertifiedStart,
  state: Uint8Array,
  reopen: () => Promise<void>,
): Promise<boolean> {
  const { world, env, replica } = member;
  const decoded = decodeCanonical(state, 1 << 24);
  const entries = decoded.ok ? readLog(decoded.value) : undefined;
  if (!entries || !equalBytes(logRoot(entries), certified.stateRoot)) return false;
  if (!replica || replica.status().epoch >= certified.epoch) return false;
  observe(member, () => world.checker.began(env.index, certified));
  await replica.stop();
  await member.written;
  member.start = certified;
  await keep(member, entries);
  world.jumps += 1;
  await reopen();
  return true;
}

/** Starts the replica where the log ends. */
async function open(member: Living, chain: EpochChain): Promise<void> {
  const { world, env, start, log } = member;
  const [epoch, height] = log.at(-1) ?? [0, 0];
  const replica = await createEpochs({
    ...world,
    key: env.key,
    clock: env.clock,
    store: env.store,
    start,
    applied: { epoch, height },
    broadcast(message) {
      observe(member, () => world.checker.said(env.index, message));
      chain.broadcast(message);
    },
    application: applicationOf(member, chain),
  });
  member.replica = replica;
  world.replicas.set(env.index, replica);
  wakeAfterRound(member);
}

function applicationOf(member: Living, chain: EpochChain): EpochApplication {
  const { world, env } = member;
  const { checker, schedule } = world;
  return {
    ...roundApplication(env.random, () => member.log.length, env),
    async decided(decided, of) {
      const { height, payload } = decided.block;
      const round = roundOf(payload);
      if (round === undefined) {
        env.report(new Violation('validity', `height ${height} decides no round`));
        return;
      }
      observe(member, () => checker.decided(env.index, of, decided, round));
      await keep(member, [...member.log, [of, height, round]]);
      wakeAfterRound(member);
    },
    nextEpoch: (of) => schedule.nextEpoch(member.log, of),
    began: (begun) => observe(member, () => checker.began(env.index, begun)),
    evidence: (equivocation) => observe(member, () => checker.accused(env.index, equivocation)),
    behind: (position) => chain.catchUp(position),
    failed(error) {
      env.report(new Violation('replica-lives', `node ${env.index}: ${error}`));
    },
  };
}

function wakeAfterRound(member: Living): void {
  const { env, world } = member;
  env.clock.setTimer(between(env.random, ...world.roundMs), () => member.replica?.wake());
}

/** Proposes the next round and votes for it, when its pieces have been fetched; the fetch fails now and then. */
export function roundApplication(
  random: Random,
  rounds: () => number,
  env: Pick<NodeEnv, 'index' | 'clock'>,
): Pick<Application, 'propose' | 'validate'> {
  return {
    propose: async () => encodeRound(rounds(), `by ${env.index}, ${random.uint32()}`),
    async validate(payload, { signal }) {
      if (roundOf(payload) !== rounds()) return false;
      const fetchMs = chance(random, 0.1) ? between(random, 1_000, 20_000) : between(random, 1, 300);
      await sleep(env.clock, fetchMs, signal);
      return true;
    },
  };
}
