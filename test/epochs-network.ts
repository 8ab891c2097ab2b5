/**
 * Replicas over epochs whose members change as the test says, joined by a perfect wire in virtual time, with everything
 * they said on record.
 */
import assert from 'node:assert/strict';
import { idealSignatures } from '../sim/ideal-signatures.ts';
import { createVirtualClock, type VirtualClock } from '../sim/virtual-clock.ts';
import { genesisHash } from '../src/consensus/block.ts';
import { epochDomain } from '../src/consensus/epoch-end.ts';
import type {
  CertifiedStart,
  EpochApplication,
  EpochStart,
  EpochsOptions,
  EpochsReplica,
  NextEpoch,
  Position,
} from '../src/consensus/epoch-types.ts';
import { decodeEnvelope } from '../src/consensus/epoch-wire.ts';
import { createEpochs } from '../src/consensus/epochs.ts';
import { defaultLimits } from '../src/consensus/limits.ts';
import { decodeMessage, type Message } from '../src/consensus/messages.ts';
import type { Member } from '../src/consensus/types.ts';
import { equalBytes, utf8 } from '../src/std/bytes.ts';
import { sha256 } from '../src/std/hash.ts';
import { memoryStore, type Store } from '../src/std/store.ts';
import { membersOf, testKeys, testNetwork } from './consensus-group.ts';

const keys = testKeys(6);
const signatures = idealSignatures(keys);
const all = membersOf(keys);

export interface EpochsNode {
  epochs: EpochsReplica;
  readonly delivered: string[];
  readonly positions: Position[];
  readonly began: CertifiedStart[];
  readonly behind: Position[];
  readonly failures: unknown[];
}

interface Said {
  readonly node: number;
  readonly epoch: number;
  readonly message: Message;
}

export interface EpochsNetwork {
  readonly clock: VirtualClock;
  readonly said: Said[];
  readonly start: EpochStart;
  readonly stores: Map<number, Store>;
  readonly nodes: Map<number, EpochsNode>;
  /** Whether a message of `from` reaches `to`; everything does until a test says otherwise. */
  reaches: (from: number, to: number, epoch: number, message: Message) => boolean;
  membersIn(epoch: number): Member[];
  /** What a node's state says of the end of the epoch; undefined before it. */
  nextOf(index: number, epoch: number): NextEpoch | undefined;
  /** Starts or restarts a node. */
  open(index: number, options?: Partial<EpochsOptions>): Promise<EpochsNode>;
  openAll(indices: readonly number[]): Promise<void>;
  kill(index: number): Promise<void>;
  /** Wakes everybody `count` times. */
  decide(count: number, ms?: number): Promise<void>;
  run(ms: number): Promise<void>;
}

/** What a node's application has decided: the epoch and text of each payload. */
type State = [epoch: number, text: string][];

/** Epoch e is of `lists[e % length]` and ends with its `payloads`-th payload. */
export function createEpochsNetwork(lists: readonly (readonly number[])[], payloads = 2): EpochsNetwork {
  const clock = createVirtualClock();
  const states = new Map<number, State>();
  const membersIn = (epoch: number) => lists[epoch % lists.length]!.map((index) => all[index]!);
  const network: EpochsNetwork = {
    clock,
    said: [],
    start: { epoch: 0, members: membersIn(0), root: genesisHash },
    membersIn,
    stores: new Map(),
    nodes: new Map(),
    reaches: () => true,
    nextOf(index, epoch) {
      const state = (states.get(index) ?? []).filter(([of]) => of <= epoch);
      if (state.filter(([of]) => of === epoch).length < payloads) return undefined;
      const stateRoot = sha256(utf8(state.map(([, text]) => text).join()));
      return { members: membersIn(epoch + 1), stateRoot, timeMs: 1_000 * state.length };
    },
    open(index, options = {}) {
      const state = states.get(index) ?? [];
      states.set(index, state);
      return openNode(network, index, state, options);
    },
    async openAll(indices) {
      for (const index of indices) await network.open(index);
      await network.run(1);
    },
    async kill(index) {
      const own = network.nodes.get(index)!;
      network.nodes.delete(index);
      await own.epochs.stop();
    },
    async decide(count, ms = 200) {
      for (let i = 0; i < count; i++) {
        for (const { epochs } of network.nodes.values()) epochs.wake();
        await network.run(ms);
      }
    },
    run: (ms) => clock.run(clock.nowMs() + ms),
  };
  return network;
}

export function epochsOf(network: EpochsNetwork): number[] {
  return [...network.nodes.values()].map(({ epochs }) => epochs.status().epoch);
}

async function openNode(
  network: EpochsNetwork,
  index: number,
  state: State,
  options: Partial<EpochsOptions>,
): Promise<EpochsNode> {
  const { clock, stores, start } = network;
  const store = stores.get(index) ?? memoryStore();
  stores.set(index, store);
  const own: EpochsNode = {
    epochs: undefined!,
    delivered: [],
    positions: [],
    began: [],
    behind: [],
    failures: [],
  };
  own.epochs = await createEpochs({
    networkId: testNetwork,
    start,
    key: keys[index]!,
    clock,
    store,
    signatures,
    broadcast: (bytes) => {
      if (network.nodes.get(index) === own) deliver(network, index, bytes);
    },
    application: countingApplication(network, index, state, own),
    ...options,
  });
  network.nodes.set(index, own);
  return own;
}

/** Decides how many payloads there were before. */
function countingApplication(
  network: EpochsNetwork,
  index: number,
  state: State,
  own: EpochsNode,
): EpochApplication {
  return {
    propose: async () => utf8(`${state.length}`),
    validate: async (payload) => equalBytes(payload, utf8(`${state.length}`)),
    decided({ block }, epoch) {
      const text = new TextDecoder().decode(block.payload);
      state.push([epoch, text]);
      own.delivered.push(text);
      own.positions.push({ epoch, height: block.height });
    },
    nextEpoch: (epoch) => network.nextOf(index, epoch),
    began: (begun) => own.began.push(begun),
    behind: (position) => own.behind.push(position),
    failed: (error) => own.failures.push(error),
  };
}

function deliver(network: EpochsNetwork, from: number, bytes: Uint8Array): void {
  const envelope = decodeEnvelope(bytes, defaultLimits);
  assert.ok(envelope.ok);
  const { epoch } = envelope.value;
  const decoded = decodeMessage(envelope.value.message, epochDomain(testNetwork, epoch), defaultLimits);
  assert.ok(decoded.ok);
  const { message } = decoded.value;
  network.said.push({ node: from, epoch, message });
  for (const to of network.nodes.keys()) {
    if (to === from || !network.reaches(from, to, epoch, message)) continue;
    network.clock.setTimer(1, () => network.nodes.get(to)?.epochs.receive(`${from}`, bytes));
  }
}
