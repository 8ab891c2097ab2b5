/**
 * A cluster of node programs in virtual time: starts them, crashes them with the loss of everything but their disk,
 * starts them again, and cuts the network. A program is any function from its surroundings to something that stops; the
 * cluster does not know what it computes.
 */
import type { KeyPair } from '../src/identity/keys.ts';
import { keyPairFrom } from '../src/identity/keys.ts';
import { memoryLedgerStore } from '../src/ledger/memory-store.ts';
import type { LedgerStore } from '../src/ledger/store.ts';
import type { NodeId, Transport } from '../src/net/transport.ts';
import { utf8 } from '../src/std/bytes.ts';
import type { Clock } from '../src/std/clock.ts';
import { sha256 } from '../src/std/hash.ts';
import type { Random } from '../src/std/random.ts';
import type { Store } from '../src/std/store.ts';
import { createDisk, type Disk, type Life, lifeClock, lifeLedger, lifeStore } from './life.ts';
import { createSimNetwork, type SimNetwork } from './network.ts';
import { stream } from './random.ts';
import { createVirtualClock, type VirtualClock } from './virtual-clock.ts';

export interface NodeEnv {
  readonly index: number;
  readonly key: KeyPair;
  /** 0 for the first start; counts restarts. */
  readonly life: number;
  readonly clock: Clock;
  readonly random: Random;
  readonly store: Store;
  /** Blocks and state of the ledger; outlives a crash, too. */
  readonly ledger: LedgerStore;
  readonly transport: Transport;
  /** For hostile programs: says it to some and not to others. */
  publishTo(recipients: readonly NodeId[], topic: string, message: Uint8Array): void;
  /** Real asynchronous work (an engine): virtual time waits for it. */
  during<T>(work: Promise<T>): Promise<T>;
  /** Ends the run with this error: a broken property, seen where a throw would only hit the code under test. */
  report(error: unknown): void;
}

export interface RunningNode {
  /** An orderly end. A crash does not call it. */
  stop(): Promise<void> | void;
}

export type NodeProgram = (env: NodeEnv) => Promise<RunningNode>;

export interface Cluster {
  readonly seed: number;
  readonly clock: VirtualClock;
  readonly network: SimNetwork;
  readonly keys: readonly KeyPair[];
  /** Starts a node, or starts it again after a crash. */
  start(index: number): Promise<void>;
  crash(index: number): void;
  isUp(index: number): boolean;
  /** Cuts the network into groups of indices; null joins it again. */
  partition(groups: readonly (readonly number[])[] | null): void;
  /** Runs `ms` of virtual time, or until `done`. Throws what a program threw. */
  run(ms: number, done?: () => boolean): Promise<void>;
}

export interface ClusterOptions {
  readonly seed: number;
  readonly nodes: number;
  readonly program: (index: number) => NodeProgram;
  /** How long a durable write takes, in ms. */
  readonly writeMs?: readonly [number, number];
}

/** A program that has not started by then never will. */
const startMsMax = 60_000;

export function simKeys(seed: number, count: number): KeyPair[] {
  return Array.from({ length: count }, (_, i) => keyPairFrom(sha256(utf8(`sim key ${seed} ${i}`))));
}

export function createCluster(options: ClusterOptions): Cluster {
  const { seed, nodes, program, writeMs = [0, 8] } = options;
  const clock = createVirtualClock();
  const errors: unknown[] = [];
  const network = createSimNetwork(clock, stream(seed, 'network'), (_node, error) => errors.push(error));
  const keys = simKeys(seed, nodes);
  const disks: Disk[] = keys.map(() => createDisk());
  const ledgers = keys.map(() => memoryLedgerStore());
  const lives: (Life & { count: number })[] = keys.map(() => ({ alive: false, count: 0 }));

  const start = async (index: number) => {
    const count = lives[index]!.count;
    const life = { alive: true, count: count + 1 };
    lives[index] = life;
    const key = keys[index]!;
    const transport = network.hub.join(key.nodeId);
    const random = stream(seed, 'node', index, count);
    const store = lifeStore(disks[index]!, clock, life, stream(seed, 'disk', index, count), writeMs);
    const starting = program(index)({
      index,
      key,
      life: count,
      clock: lifeClock(clock, life),
      random,
      store,
      ledger: lifeLedger(ledgers[index]!, clock, life, stream(seed, 'ledger', index, count), writeMs),
      transport,
      publishTo: (recipients, topic, message) => {
        if (life.alive) network.publishTo(transport, recipients, topic, message);
      },
      during: (work) => clock.during(work),
      report: (error) => {
        if (life.alive) errors.push(error);
      },
    });
    // It may write to its disk first, which takes time.
    let started = false;
    starting.then(
      () => (started = true),
      () => (started = true),
    );
    await clock.run(clock.nowMs() + startMsMax, () => started);
    await starting;
  };

  return {
    seed,
    clock,
    network,
    keys,
    start,
    crash(index) {
      lives[index]!.alive = false;
      network.hub.crash(keys[index]!.nodeId);
    },
    isUp: (index) => lives[index]!.alive,
    partition: (groups) =>
      network.hub.partition(groups?.map((group) => group.map((index) => keys[index]!.nodeId)) ?? null),
    async run(ms, done) {
      await clock.run(clock.nowMs() + ms, () => errors.length > 0 || (done?.() ?? false));
      if (errors.length > 0) throw errors[0];
    },
  };
}
