/**
 * A validator without training: consensus, ledger, mempool and the wire between nodes, as in a node; every member begins
 * with money to send. Says when a transaction of its own is final here: decided, applied and kept.
 */
import { clusterKey, clusterNetwork } from '../../src/cli/cluster.ts';
import type { Dataset } from '../../src/genesis/dataset.ts';
import type { KeyPair } from '../../src/identity/keys.ts';
import type { Change } from '../../src/ledger/draft.ts';
import { isVoter } from '../../src/ledger/members.ts';
import { credit, mint } from '../../src/ledger/money.ts';
import { commit, createDraft } from '../../src/ledger/state.ts';
import type { LedgerStore } from '../../src/ledger/store.ts';
import { tableNames } from '../../src/ledger/tables.ts';
import { transactionId } from '../../src/ledger/transaction.ts';
import { transfer } from '../../src/ledger/transactions/transfer.ts';
import { presets } from '../../src/model/config.ts';
import type { Transport } from '../../src/net/transport.ts';
import { createLedgerNode, type LedgerNode } from '../../src/peer/ledger-node.ts';
import { type NetworkManifest, requireNetwork } from '../../src/peer/network.ts';
import { defaultOuter, defaultTraining } from '../../src/peer/policy.ts';
import { toHex } from '../../src/std/bytes.ts';
import type { Clock } from '../../src/std/clock.ts';
import type { Store } from '../../src/std/store.ts';

const endowment = 10n ** 12n;

export interface ValidatorOptions {
  readonly network: NetworkManifest;
  readonly keys: readonly KeyPair[];
  readonly index: number;
  readonly transport: Transport;
  readonly clock: Clock;
  readonly store: Store;
  readonly ledger: LedgerStore;
  /** Every transaction that is final here, by id. */
  readonly onFinal?: (id: string) => void;
}

export interface Validator {
  readonly node: LedgerNode;
  /** Sends a transfer, to the next member unless said, and says its id. */
  pay(to?: string): string;
}

export function validatorNetwork(count: number): { network: NetworkManifest; keys: readonly KeyPair[] } {
  const keys = Array.from({ length: count }, (_, index) => clusterKey(1, index));
  const document = clusterNetwork({
    seed: 1,
    model: presets.tiny,
    datasetHash: '0'.repeat(64),
    training: defaultTraining(presets.tiny),
    outer: defaultOuter('int8', 'default'),
    keys,
  });
  return { network: requireNetwork(document, 'validators'), keys };
}

/** Money out of nothing, counted as minted, in memory and in the store: before the first block. */
async function endow(node: LedgerNode, ids: readonly string[]): Promise<void> {
  const state = node.state();
  const draft = createDraft(state);
  for (const id of ids) credit(draft, id, mint(draft, endowment));
  commit(state, draft.changes());
  const rows = tableNames.flatMap((table) =>
    state.keys(table).map((key): Change => ({ table, key, row: state.get(table, key) })),
  );
  await node.store.install({ ...node.head(), stateRoot: state.root() }, rows);
}

export async function startValidator(options: ValidatorOptions): Promise<Validator> {
  const { network, keys, index, transport, clock, store, ledger, onFinal } = options;
  const key = keys[index]!;
  const node = await createLedgerNode({
    network,
    key,
    dataset: {} as Dataset,
    transport,
    clock,
    store,
    ledger,
    // No round is ever ready: blocks hold what was sent, and nothing else.
    rounds: {
      propose: async () => undefined,
      validate: async () => false,
      decided: () => {},
      remind: () => {},
    },
    isFraud: () => false,
    events: (event) => {
      if (event.type === 'warning') console.error(`validator ${index}: ${event.code} ${event.detail}`);
    },
  });
  if (!isVoter(node.state(), key.nodeId)) throw new Error('no validator');
  await endow(
    node,
    keys.map(({ nodeId }) => nodeId),
  );
  node.onBlock(({ block }) => {
    for (const one of block.transactions) onFinal?.(toHex(transactionId(network.networkId, one)));
  });
  return {
    node,
    pay: (to = keys[(index + 1) % keys.length]!.nodeId) => {
      const sent = node.send(transfer, { to, amount: 1n });
      if (!sent.ok) throw new Error(`${sent.code} ${sent.detail}`);
      return toHex(sent.value.id);
    },
  };
}
