/**
 * A validator without training: consensus, ledger, mempool and the wire between nodes, as in a node; every member begins
 * with money to send. Says when a transaction of its own is final here: decided, applied and kept.
 */
import type { Dataset } from '../../src/genesis/dataset.ts';
import type { KeyPair } from '../../src/identity/keys.ts';
import { isVoter } from '../../src/ledger/members.ts';
import type { LedgerStore } from '../../src/ledger/store.ts';
import { transactionId } from '../../src/ledger/transaction.ts';
import { transfer } from '../../src/ledger/transactions/transfer.ts';
import type { Transport } from '../../src/net/transport.ts';
import { createLedgerNode, type LedgerNode } from '../../src/peer/ledger-node.ts';
import type { NetworkManifest } from '../../src/peer/network.ts';
import { toHex } from '../../src/std/bytes.ts';
import type { Clock } from '../../src/std/clock.ts';
import type { Store } from '../../src/std/store.ts';
import { testKeys } from '../../test/consensus-group.ts';
import { endow, tinyNetwork } from '../../test/ledger-nodes.ts';

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
  const keys = testKeys(count);
  return { network: tinyNetwork(keys), keys };
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
  for (const { nodeId } of keys) await endow(node, nodeId, endowment);
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
