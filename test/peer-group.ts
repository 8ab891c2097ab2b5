/**
 * Whole peers in one process: real consensus, rounds and replicas of the smallest model, joined by the in-memory hub in
 * virtual time. A step takes as long as the test says; everything else takes no time but the wire's.
 */
import assert from 'node:assert/strict';
import { createAuditBudget } from '../src/audit/budget.ts';
import { createStageExecutors } from '../src/audit/executors.ts';
import { createReExecutor } from '../src/audit/re-execute.ts';
import type { StageReplica } from '../src/diloco/replica.ts';
import type { Dataset } from '../src/genesis/dataset.ts';
import type { KeyPair } from '../src/identity/keys.ts';
import type { LedgerPolicy } from '../src/ledger/policy.ts';
import type { Transport } from '../src/net/transport.ts';
import type { Auditor } from '../src/peer/auditing.ts';
import type { NodeEvent } from '../src/peer/events.ts';
import { createNetworkDocument, type NetworkManifest, requireNetwork } from '../src/peer/network.ts';
import { createPeer, type Peer, type PeerOptions } from '../src/peer/peer.ts';
import { reExecutorSettings, replicaSettings } from '../src/peer/plan.ts';
import { defaultOuter, type TrainingPolicy } from '../src/peer/policy.ts';
import { train } from '../src/peer/train.ts';
import { createMemoryRows } from '../src/pipeline/row-store.ts';
import { must } from '../src/std/assert.ts';
import { utf8 } from '../src/std/bytes.ts';
import { type Clock, sleep } from '../src/std/clock.ts';
import { seededRandom } from '../src/std/random.ts';
import { memoryStore, type Store } from '../src/std/store.ts';
import { createInterpreter } from '../src/tensor/interpreter.ts';
import { ledgerStoreBeside } from './ledger-stores.ts';
import { tinyBatch, tinyConfig, tinyReplica, tinySettings } from './tiny-replica.ts';
import { createVirtualNetwork, settle, type VirtualNetwork } from './virtual-network.ts';

type RoundEvent = NodeEvent & { type: 'round' };

export interface GroupPeer {
  readonly peer: Peer;
  readonly replica: StageReplica;
  readonly transport: Transport;
  readonly events: NodeEvent[];
  rounds(): RoundEvent[];
  /** Stops it as a signal does; resolves when training has ended and everything is closed. */
  stop(): Promise<void>;
  /** Gone at once: nothing it says or hears matters any more. */
  crash(): Promise<void>;
  /** How training ended, once it has. */
  readonly ended: { error?: unknown } | undefined;
}

interface StartOptions {
  /** What this node sees of its transport. */
  readonly transport?: (honest: Transport) => Transport;
  /** Performs the audits that it is drawn for; the group must have a dataset. */
  readonly audits?: boolean;
  readonly stepMs?: number;
  readonly replica?: StageReplica;
  /** What a cheat makes of its replica. */
  readonly disguise?: (honest: StageReplica) => StageReplica;
  readonly store?: Store;
  readonly roundsMax?: number;
  readonly steps?: PeerOptions['steps'];
}

export interface PeerGroup {
  readonly net: VirtualNetwork;
  readonly ids: readonly string[];
  start(index: number, options?: StartOptions): Promise<GroupPeer>;
  /** Lets time pass until the condition holds; fails with what everybody did last when it does not in time. */
  until(what: string, condition: () => boolean, limitMs?: number): Promise<void>;
  settle<T>(work: Promise<T>, limitMs?: number): Promise<T>;
}

const innerSteps = 3;
const settleMs = 60_000;
/** Rows of three rounds. */
const rowBytesMax = 64 * 1024 * 1024;
/** Of the byte tokenizer that small datasets come with. */
const datasetVocabulary = 260;

interface Grouped {
  readonly net: VirtualNetwork;
  readonly network: NetworkManifest;
  readonly keys: readonly KeyPair[];
  readonly dataset: Dataset | undefined;
  readonly started: Map<number, GroupPeer>;
}

/** `dataset`: where batches come from, as anybody can compute them; without it they are made up. */
export function createPeerGroup(
  nodes: number,
  members = nodes,
  policy: Partial<TrainingPolicy> = {},
  ledger: Partial<LedgerPolicy> = {},
  dataset?: Dataset,
): PeerGroup {
  const net = createVirtualNetwork(0);
  const { keys } = createVirtualNetwork(nodes);
  const document = createNetworkDocument(
    {
      name: 'group',
      seed: tinySettings.seed,
      model: {
        ...tinyConfig,
        ...(dataset && { vocabulary: datasetVocabulary }),
        ...(policy.stages && { layers: policy.stages }),
      },
      dataset: '0'.repeat(64),
      training: { ...groupTraining(), ...policy },
      outer: defaultOuter('int8', 'default'),
      ledger,
      members: keys.slice(0, members).map(({ publicKey }) => ({ publicKey, weight: 1 })),
    },
    keys[0]!,
  );
  const network = requireNetwork(document, 'group');
  const grouped: Grouped = { net, network, keys, dataset, started: new Map() };
  return {
    net,
    ids: keys.map(({ nodeId }) => nodeId),
    settle: (work, limitMs = settleMs) => settle(net, work, limitMs),
    start: (index, options) => startPeer(grouped, index, options),
    async until(what, condition, limitMs = 300_000) {
      await net.clock.run(net.clock.nowMs() + limitMs, condition);
      if (!condition()) assert.fail(`not within ${limitMs} ms: ${what}\n${whatAllDidLast(grouped)}`);
    },
  };
}

function groupTraining() {
  const { batch, sequence, inner } = tinySettings;
  const { beta1, beta2, epsilon, weightDecay, clip } = inner;
  const schedule = { peakLearningRate: 1e-2, warmupSteps: 0, totalSteps: 1000, floorRatio: 1 };
  return { innerSteps, batch, sequence, ...schedule, beta1, beta2, epsilon, weightDecay, clip };
}

function whatAllDidLast({ started }: Grouped): string {
  return [...started]
    .map(([index, { events, peer, ended }]) => {
      const status = { ...peer.ledger.consensus.status(), ended: String(ended?.error ?? '') };
      return `${index} at ${peer.position.round}: ${JSON.stringify(events.slice(-3))} ${JSON.stringify(status)}`;
    })
    .join('\n');
}

async function startPeer(grouped: Grouped, index: number, options: StartOptions = {}): Promise<GroupPeer> {
  const { net, network, keys, dataset } = grouped;
  const key = keys[index]!;
  const joined = net.hub.join(key.nodeId);
  const transport = options.transport?.(joined) ?? joined;
  const auditor = options.audits ? testAuditor(network, net.clock) : undefined;
  const replica = await replicaOf(grouped, index, options);
  const events: NodeEvent[] = [];
  const store = options.store ?? memoryStore();
  const peer = await createPeer({
    network,
    key,
    dataset: dataset ?? ({} as Dataset),
    transport,
    clock: net.clock,
    random: seededRandom(utf8(`peer ${index} of the group`)),
    store,
    ledger: ledgerStoreBeside(store),
    replica,
    ...(dataset && { rows: createMemoryRows(rowBytesMax) }),
    events: (event) => events.push(event),
    heldOutBatches: 0,
    ...(auditor && { auditor }),
    ...(options.roundsMax !== undefined && { roundsMax: options.roundsMax }),
    steps: (made) => ({
      ...(!dataset && {
        batch: async (round, step) => tinyBatch((innerSteps * round + step) % 200, index),
      }),
      ...options.steps?.(made),
    }),
  });
  const training = trainUntilStopped(peer);
  const stop = async () => {
    await settle(net, training.stop(), settleMs);
    await peer.close();
    await transport.close();
    grouped.started.delete(index);
  };
  const one: GroupPeer = {
    peer,
    replica,
    transport,
    events,
    rounds: () => events.filter((event): event is RoundEvent => event.type === 'round'),
    stop,
    crash: async () => {
      net.hub.crash(key.nodeId);
      await stop();
    },
    get ended() {
      return training.ended();
    },
  };
  grouped.started.set(index, one);
  return one;
}

/** A step takes its time, whoever computes it. */
async function replicaOf(
  { net, network, keys, dataset }: Grouped,
  index: number,
  { replica, disguise, stepMs = 1000 }: StartOptions,
): Promise<StageReplica> {
  const stage = network.members.find(({ nodeId }) => nodeId === keys[index]!.nodeId)?.stage ?? 0;
  const { intervalSteps } = network.ledger;
  const recording = dataset && { recording: { intervalSteps } };
  const made = replica ?? (await tinyReplica({ ...replicaSettings(network, stage), ...recording }));
  const real = disguise?.(made) ?? made;
  return {
    ...real,
    trainStep: async (...call) => {
      await sleep(net.clock, stepMs);
      return real.trainStep(...call);
    },
    backward: async (call) => {
      await sleep(net.clock, stepMs);
      return real.backward(call);
    },
  };
}

function trainUntilStopped(peer: Peer) {
  const abort = new AbortController();
  let ended: GroupPeer['ended'];
  const training = train(peer, abort.signal).then(
    () => void (ended = {}),
    (error) => void (ended = { error }),
  );
  return {
    ended: () => ended,
    stop: () => {
      abort.abort(new Error('stopped'));
      return training;
    },
  };
}

/** Re-executes any stage on the interpreter, as fast as it can. */
function testAuditor(network: NetworkManifest, clock: Clock): Auditor {
  const settings = reExecutorSettings(network);
  const executor = createStageExecutors((stage) =>
    createReExecutor({ engine: createInterpreter(), ...must(settings[stage], 'a stage') }),
  );
  return { executor, cpuMs: async () => 0, budget: createAuditBudget({ clock, share: 1 }) };
}

/** Fails when two nodes closed one round with different states. */
export function assertOneHistory(peers: readonly GroupPeer[]): void {
  const hashes = new Map<number, string>();
  for (const peer of peers) {
    for (const { round, stateHash } of peer.rounds()) {
      assert.equal(hashes.get(round) ?? stateHash, stateHash, `after round ${round}`);
      hashes.set(round, stateHash);
    }
  }
}
