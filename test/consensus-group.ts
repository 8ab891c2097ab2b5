/**
 * A group of consensus replicas joined by a perfect wire in virtual time, with everything they said on record. For the
 * unit tests of consensus; faults of the network belong to `sim/`.
 */
import { idealSignatures } from '../sim/ideal-signatures.ts';
import { createVirtualClock, type VirtualClock } from '../sim/virtual-clock.ts';
import { defaultLimits } from '../src/consensus/limits.ts';
import { decodeMessage, type Message } from '../src/consensus/messages.ts';
import { createConsensusReplica } from '../src/consensus/replica.ts';
import type {
  Application,
  ConsensusOptions,
  ConsensusReplica,
  DecidedBlock,
  Member,
} from '../src/consensus/types.ts';
import { type KeyPair, keyPairFrom } from '../src/identity/keys.ts';
import { utf8 } from '../src/std/bytes.ts';
import { sha256 } from '../src/std/hash.ts';
import { memoryStore, type Store } from '../src/std/store.ts';

export interface Said {
  readonly member: number;
  readonly bytes: Uint8Array;
  readonly message: Message;
  readonly attempt: number;
}

export interface GroupNode {
  replica: ConsensusReplica;
  /** Payloads as text, in the order delivered, over all lives of the node. */
  readonly delivered: string[];
  readonly blocks: DecidedBlock[];
  /** Reasons why the replica ended, if it did. */
  readonly failures: unknown[];
  readonly behind: number[];
}

export type NodeOptions = Partial<Omit<ConsensusOptions, 'application'>> & {
  application?: Partial<Application>;
};

export interface Group {
  readonly clock: VirtualClock;
  readonly keys: readonly KeyPair[];
  readonly members: readonly Member[];
  readonly networkId: Uint8Array;
  readonly nodes: Map<number, GroupNode>;
  readonly said: Said[];
  /** Whether a message of `from` reaches `to`; everything does until a test says otherwise. */
  reaches: (from: number, to: number, message: Message) => boolean;
  /** Starts (or restarts) a node; indices from the member count on are observers. */
  open(index: number, options?: NodeOptions): Promise<GroupNode>;
  /** Stops hearing and being heard at once; its store stays. */
  kill(index: number): Promise<void>;
  wakeAll(): void;
  run(ms: number): Promise<void>;
}

export const testNetwork = sha256(utf8('a network for tests'));

export function testKeys(count: number): KeyPair[] {
  return Array.from({ length: count }, (_, i) => keyPairFrom(sha256(utf8(`member ${i}`))));
}

export function membersOf(keys: readonly KeyPair[], weights?: readonly number[]): Member[] {
  return keys.map(({ nodeId, publicKey }, i) => ({ nodeId, publicKey, weight: weights?.[i] ?? 1 }));
}

interface Grouped {
  readonly group: Group;
  readonly signatures: Pick<ConsensusOptions, 'signatures'>;
  /** By node: what it keeps over its lives, and how many it has had. */
  readonly stores: Map<number, Store>;
  readonly lives: Map<number, number>;
}

/** Signatures are ideal, and fast, unless a test is about the real ones. */
export function createGroup(count: number, observers = 0, scheme: 'ideal' | 'secp256k1' = 'ideal'): Group {
  const clock = createVirtualClock();
  const keys = testKeys(count + observers);
  const group: Group = {
    clock,
    keys,
    members: membersOf(keys.slice(0, count)),
    networkId: testNetwork,
    nodes: new Map(),
    said: [],
    reaches: () => true,
    open: (index, options) => openNode(grouped, index, options),
    kill: (index) => killNode(grouped, index),
    wakeAll: () => {
      for (const { replica } of group.nodes.values()) replica.wake();
    },
    run: (ms) => clock.run(clock.nowMs() + ms),
  };
  const signatures = scheme === 'ideal' ? { signatures: idealSignatures(keys) } : {};
  const grouped: Grouped = { group, signatures, stores: new Map(), lives: new Map() };
  return group;
}

async function openNode(
  { group, signatures, stores, lives }: Grouped,
  index: number,
  { application, ...options }: NodeOptions = {},
): Promise<GroupNode> {
  const life = (lives.get(index) ?? 0) + 1;
  lives.set(index, life);
  const store = stores.get(index) ?? memoryStore();
  stores.set(index, store);
  const node: GroupNode = { replica: undefined!, delivered: [], blocks: [], failures: [], behind: [] };
  node.replica = await createConsensusReplica({
    networkId: testNetwork,
    members: group.members,
    key: group.keys[index]!,
    clock: group.clock,
    store,
    ...signatures,
    broadcast: (bytes) => {
      if (lives.get(index) === life) deliver(group, index, bytes);
    },
    application: { ...recordingApplication(node, index), ...application },
    ...options,
  });
  group.nodes.set(index, node);
  return node;
}

async function killNode({ group, lives }: Grouped, index: number): Promise<void> {
  lives.set(index, (lives.get(index) ?? 0) + 1);
  const node = group.nodes.get(index);
  group.nodes.delete(index);
  await node?.replica.stop();
}

function deliver(group: Group, from: number, bytes: Uint8Array): void {
  const decoded = decodeMessage(bytes, testNetwork, defaultLimits);
  if (!decoded.ok) throw new Error(`a replica sent what cannot be read: ${decoded.code}`);
  group.said.push({ member: from, bytes, ...decoded.value });
  for (const [to] of group.nodes) {
    if (to === from || !group.reaches(from, to, decoded.value.message)) continue;
    group.clock.setTimer(1, () => group.nodes.get(to)?.replica.receive(`${from}`, bytes));
  }
}

/** Proposes one payload for each height, and takes every other. */
function recordingApplication(node: GroupNode, index: number): Application {
  return {
    propose: async ({ height, undecided }) =>
      undecided.length > 0 ? undefined : utf8(`height ${height} by ${index}`),
    validate: async () => true,
    decided(decided) {
      node.blocks.push(decided);
      node.delivered.push(new TextDecoder().decode(decided.block.payload));
    },
    failed: (error) => node.failures.push(error),
    behind: (height) => node.behind.push(height),
  };
}
