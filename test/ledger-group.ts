/**
 * Ledger nodes without training in virtual time: real consensus, blocks, stores and the wire between them, and rounds
 * that close as soon as somebody asks for a block. Epochs are short, so that a node is soon far behind.
 */
import assert from 'node:assert/strict';
import { idealSignatures } from '../sim/ideal-signatures.ts';
import type { Checkpoint } from '../src/consensus/checkpoint.ts';
import type { Dataset } from '../src/genesis/dataset.ts';
import type { KeyPair } from '../src/identity/keys.ts';
import type { LedgerPolicy } from '../src/ledger/policy.ts';
import { newestRound } from '../src/ledger/rounds.ts';
import type { Transport } from '../src/net/transport.ts';
import type { NodeEvent } from '../src/peer/events.ts';
import { createLedgerNode, type LedgerNode } from '../src/peer/ledger-node.ts';
import { toHex } from '../src/std/bytes.ts';
import type { Outcome } from '../src/std/outcome.ts';
import { memoryStore, type Store } from '../src/std/store.ts';
import { roundList, tinyNetwork } from './ledger-nodes.ts';
import { ledgerStoreBeside } from './ledger-stores.ts';
import { createVirtualNetwork, settle, type VirtualNetwork } from './virtual-network.ts';

export interface LedgerGroupNode {
  readonly ledger: LedgerNode;
  readonly transport: Transport;
  readonly store: Store;
  readonly events: NodeEvent[];
  /** Who was penalised, and for what: `index code`. */
  readonly penalties: string[];
  /** By protocol: what this node answers in the place of the truth. */
  readonly lies: Map<string, Lie>;
  /** Codes of warnings so far. */
  warnings(): string[];
  /** Off the network at once, then closed; what it stored stays. */
  crash(): Promise<void>;
}

export type Lie = (answer: Uint8Array, request: Uint8Array) => Outcome<Uint8Array>;

const speaksTruly = (honest: Transport) => honest;

interface StartOptions {
  readonly store?: Store;
  readonly checkpoint?: Checkpoint;
  /** What this node says in the place of the honest words. */
  readonly disguise?: (honest: Transport) => Transport;
}

export interface LedgerGroup {
  readonly net: VirtualNetwork;
  readonly network: ReturnType<typeof tinyNetwork>;
  start(index: number, options?: StartOptions): Promise<LedgerGroupNode>;
  /** Until these have so many blocks more, asking for each. */
  decide(nodes: readonly LedgerGroupNode[], blocks: number): Promise<void>;
  until(what: string, condition: () => boolean, limitMs?: number): Promise<void>;
}

export const epochBlocks = 4;

interface Grouped {
  readonly net: VirtualNetwork;
  readonly network: ReturnType<typeof tinyNetwork>;
  readonly keys: readonly KeyPair[];
  readonly signatures: ReturnType<typeof idealSignatures>;
}

/** The first `members` of the nodes vote. */
export function createLedgerGroup(
  nodes: number,
  members = nodes,
  policy: Partial<LedgerPolicy> = {},
  createdMs?: number,
): LedgerGroup {
  const net = createVirtualNetwork(0);
  const { keys } = createVirtualNetwork(nodes);
  const network = tinyNetwork(keys.slice(0, members), { epochBlocks, auditBlocks: 1, ...policy }, createdMs);
  const grouped: Grouped = { net, network, keys, signatures: idealSignatures(keys) };
  const until: LedgerGroup['until'] = async (what, condition, limitMs = 120_000) => {
    await net.clock.run(net.clock.nowMs() + limitMs, condition);
    assert.ok(condition(), `not within ${limitMs} ms: ${what}`);
  };
  return {
    net,
    network,
    start: (index, options) => startNode(grouped, index, options),
    async decide(all, blocks) {
      for (let i = 0; i < blocks; i++) {
        const before = Math.max(...all.map(({ ledger }) => ledger.head().number));
        for (const { ledger } of all) ledger.consensus.wake();
        await until(`block ${before + 1}`, () => all.every(({ ledger }) => ledger.head().number > before));
      }
    },
    until,
  };
}

async function startNode(
  { net, network, keys, signatures }: Grouped,
  index: number,
  { store = memoryStore(), checkpoint, disguise = speaksTruly }: StartOptions = {},
): Promise<LedgerGroupNode> {
  const key = keys[index]!;
  const transport = disguise(net.hub.join(key.nodeId));
  const penalties: string[] = [];
  const lies = new Map<string, Lie>();
  const events: NodeEvent[] = [];
  const starting = createLedgerNode({
    network,
    key,
    dataset: {} as Dataset,
    transport: lying(transport, lies, (peer, code) => {
      penalties.push(`${keys.findIndex(({ nodeId }) => nodeId === peer)} ${code}`);
    }),
    clock: net.clock,
    store,
    ledger: ledgerStoreBeside(store),
    rounds: {
      propose: async () => roundList(network.networkId, (newestRound(ledger.state()) ?? -1) + 1, [key]),
      validate: async () => true,
      decided: () => {},
      remind: () => {},
    },
    isFraud: () => false,
    events: (event) => events.push(event),
    signatures,
    ...(checkpoint && { checkpoint }),
  });
  const ledger: LedgerNode = await settle(net, starting);
  return {
    ledger,
    transport,
    store,
    events,
    penalties,
    lies,
    warnings: () => events.flatMap((event) => (event.type === 'warning' ? [event.code] : [])),
    crash: async () => {
      net.hub.crash(key.nodeId);
      await settle(net, ledger.close());
      await settle(net, transport.close());
    },
  };
}

/** Answers with the lies once there are any, and tells whom it penalises. */
function lying(
  transport: Transport,
  lies: ReadonlyMap<string, Lie>,
  onPenalty: Transport['penalize'],
): Transport {
  return {
    ...transport,
    handle: (protocol, handler) =>
      transport.handle(protocol, async (from, body, ...rest) => {
        const answer = await handler(from, body, ...rest);
        const lie = lies.get(protocol.id);
        return answer.ok && lie ? lie(answer.value, body) : answer;
      }),
    penalize: (peer, code) => {
      onPenalty(peer, code);
      transport.penalize(peer, code);
    },
  };
}

/** Fails unless all stand after the same block in the same state. */
export function assertSameLedger(nodes: readonly LedgerGroupNode[]): void {
  const places = nodes.map(({ ledger }) => `${ledger.head().number} ${toHex(ledger.state().root())}`);
  assert.deepEqual(new Set(places).size, 1, places.join('\n'));
}
