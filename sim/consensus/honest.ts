/**
 * An honest node of the consensus scenario: the real replica over epochs under a small application that decides numbered
 * rounds, slowly, as training would: it wakes when its own round is over, checks a payload by something like a fetch,
 * and keeps a durable log, from which it derives who votes next.
 */

import { decodeStart, encodeStart } from '../../src/consensus/epoch-end.ts';
import type { CertifiedStart, EpochsReplica } from '../../src/consensus/epoch-types.ts';
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
import { connectEpochChain } from './epoch-chain.ts';
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

export function honestMember(world: ConsensusWorld): NodeProgram {
  return async (env) => {
    const { schedule, checker } = world;
    const observe = (check: () => void) => {
      try {
        check();
      } catch (violation) {
        env.report(violation);
      }
    };
    const saved = await loadSaved(env);
    let start = saved.start ?? schedule.start;
    let log = saved.log;
    let written = Promise.resolve();
    const keep = async (next: readonly LogEntry[]) => {
      // Durable before the replica may forget it; a crash before this leaves the decision to be delivered again.
      written = env.store.put(stateKey, encodeCanonical([encodeStart(start), next]));
      await written;
      log = next;
      note();
    };
    const note = () => {
      world.logs.set(
        env.index,
        log.map(([, , round]) => round),
      );
      observe(() => checker.log(env.index, world.logs.get(env.index)!));
    };
    note();
    let replica: EpochsReplica | undefined;
    const roundTimer = () => env.clock.setTimer(between(env.random, ...world.roundMs), () => replica?.wake());
    const chain = connectEpochChain({
      ...world,
      transport: env.transport,
      clock: env.clock,
      replica: () => replica,
      snapshot: (epoch) => {
        const first = log.filter(([of]) => of < epoch);
        return replica && replica.status().epoch >= epoch ? encodeCanonical(first) : undefined;
      },
      async takeSnapshot(certified, state) {
        const decoded = decodeCanonical(state, 1 << 24);
        const entries = decoded.ok ? readLog(decoded.value) : undefined;
        if (!entries || !equalBytes(logRoot(entries), certified.stateRoot)) return false;
        if (!replica || replica.status().epoch >= certified.epoch) return false;
        observe(() => checker.began(env.index, certified));
        await replica.stop();
        await written;
        start = certified;
        await keep(entries);
        world.jumps += 1;
        await open();
        return true;
      },
    });
    const open = async () => {
      const [epoch, height] = log.at(-1) ?? [0, 0];
      replica = await createEpochs({
        ...world,
        key: env.key,
        clock: env.clock,
        store: env.store,
        start,
        applied: { epoch, height },
        broadcast(message) {
          observe(() => checker.said(env.index, message));
          chain.broadcast(message);
        },
        application: {
          ...roundApplication(env.random, () => log.length, env),
          async decided(decided, of) {
            const round = roundOf(decided.block.payload);
            if (round === undefined) {
              env.report(new Violation('validity', `height ${decided.block.height} decides no round`));
              return;
            }
            observe(() => checker.decided(env.index, of, decided, round));
            await keep([...log, [of, decided.block.height, round]]);
            roundTimer();
          },
          nextEpoch: (of) => schedule.nextEpoch(log, of),
          began: (begun) => observe(() => checker.began(env.index, begun)),
          evidence: (equivocation) => observe(() => checker.accused(env.index, equivocation)),
          behind: (position) => chain.catchUp(position),
          failed(error) {
            env.report(new Violation('replica-lives', `node ${env.index}: ${error}`));
          },
        },
      });
      world.replicas.set(env.index, replica);
      roundTimer();
    };
    // It writes before it is there, which takes virtual time.
    open().catch(env.report);
    return { stop: () => replica?.stop() };
  };
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
