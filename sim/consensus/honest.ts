/**
 * An honest member of the consensus scenario: the real replica and the real chain wiring under a small application that
 * decides numbered rounds, slowly, as training would: it wakes when its own round is over, checks a payload by
 * something like a fetch, and keeps a durable log.
 */
import type { ConsensusLimits } from '../../src/consensus/limits.ts';
import { createConsensusReplica } from '../../src/consensus/replica.ts';
import type { Application, ConsensusReplica, Member, SignatureScheme } from '../../src/consensus/types.ts';
import { connectChain } from '../../src/peer/chain-sync.ts';
import { utf8 } from '../../src/std/bytes.ts';
import { sleep } from '../../src/std/clock.ts';
import { decodeCanonical, encodeCanonical } from '../../src/std/codec.ts';
import type { Random } from '../../src/std/random.ts';
import type { NodeEnv, NodeProgram } from '../cluster.ts';
import { between, chance } from '../random.ts';
import { Violation } from '../scenario.ts';
import type { ConsensusChecker } from './checkers.ts';

export interface ConsensusWorld {
  readonly networkId: Uint8Array;
  readonly members: readonly Member[];
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
  readonly replicas: Map<number, ConsensusReplica>;
  readonly logs: Map<number, readonly number[]>;
}

const logKey = 'application/log';

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

export function honestMember(world: ConsensusWorld): NodeProgram {
  return async (env) => {
    const observe = (check: () => void) => {
      try {
        check();
      } catch (violation) {
        env.report(violation);
      }
    };
    const saved = await env.store.get(logKey);
    const log: [height: number, round: number][] = [];
    if (saved) {
      const decoded = decodeCanonical(saved, 1 << 24);
      if (decoded.ok) log.push(...(decoded.value as [number, number][]));
    }
    world.logs.set(
      env.index,
      log.map(([, round]) => round),
    );
    const chain = connectChain({ transport: env.transport, networkId: world.networkId });
    const roundTimer = () => env.clock.setTimer(between(env.random, ...world.roundMs), () => replica.wake());

    const application: Application = {
      ...roundApplication(env.random, () => log.length, env),
      async decided(decided) {
        const { height, payload } = decided.block;
        const round = roundOf(payload);
        if (round === undefined) {
          env.report(new Violation('validity', `height ${height} decides no round`));
          return;
        }
        observe(() => world.checker.decided(env.index, decided, round));
        log.push([height, round]);
        // Durable before the replica may forget it; a crash before this leaves the decision to be delivered again.
        await env.store.put(logKey, encodeCanonical(log));
        world.logs.set(
          env.index,
          log.map(([, one]) => one),
        );
        observe(() => world.checker.log(env.index, world.logs.get(env.index)!));
        roundTimer();
      },
      behind: (height) => chain.catchUp(replica, height),
      failed(error) {
        env.report(new Violation('replica-lives', `node ${env.index}: ${error}`));
      },
    };
    const replica = await createConsensusReplica({
      ...world,
      key: env.key,
      clock: env.clock,
      store: env.store,
      application,
      appliedHeight: log.at(-1)?.[0] ?? 0,
      broadcast(message) {
        observe(() => world.checker.said(env.index, message));
        chain.broadcast(message);
      },
    });
    world.replicas.set(env.index, replica);
    const unserve = chain.serve(replica);
    roundTimer();
    return {
      async stop() {
        unserve();
        await replica.stop();
      },
    };
  };
}

/** Proposes the next round and votes for it, when its pieces have been fetched; the fetch fails now and then. */
export function roundApplication(
  random: Random,
  rounds: () => number,
  env: Pick<NodeEnv, 'index' | 'clock'>,
): Pick<Application, 'propose' | 'validate'> {
  return {
    propose: async ({ undecided }) =>
      undecided.length > 0 ? undefined : encodeRound(rounds(), `by ${env.index}, ${random.uint32()}`),
    async validate(payload, { undecided, signal }) {
      if (roundOf(payload) !== rounds() + undecided.length) return false;
      const fetchMs = chance(random, 0.1) ? between(random, 1_000, 20_000) : between(random, 1, 300);
      await sleep(env.clock, fetchMs, signal);
      return true;
    },
  };
}
