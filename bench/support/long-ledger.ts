/**
 * Fills a node's data folder with a ledger of many blocks, as the network's only member would have made them: real
 * consensus, in virtual time that ends about now, then kept by the node's own stores.
 */
import { join } from 'node:path';
import type { KeyPair } from '../../src/identity/keys.ts';
import type { Change } from '../../src/ledger/draft.ts';
import { memoryLedgerStore } from '../../src/ledger/memory-store.ts';
import type { LedgerHead, LedgerStore, NewBlock } from '../../src/ledger/store.ts';
import type { NetworkManifest } from '../../src/peer/network.ts';
import { openLedgerDatabase } from '../../src/platform/nodejs/ledger-database.ts';
import { folderStore } from '../../src/platform/nodejs/store.ts';
import { memoryStore } from '../../src/std/store.ts';
import { accountNamed } from './ledger-blocks.ts';
import { startValidator } from './validator.ts';
import { createVirtualNetwork } from './virtual-network.ts';

export interface LongLedgerOptions {
  readonly network: NetworkManifest;
  readonly key: KeyPair;
  readonly directory: string;
  readonly blocks: number;
  /** In each block. */
  readonly transfers: number;
  /** That the transfers go to. */
  readonly accounts: number;
}

/** Between two blocks, more than a decision takes. */
const pauseMs = 300;

export async function writeLongLedger(options: LongLedgerOptions): Promise<LedgerHead> {
  const { network, key, directory, blocks, transfers, accounts } = options;
  const net = createVirtualNetwork({ startMs: Date.now() - pauseMs * (blocks + 100), delayMs: 1 });
  const votes = memoryStore();
  const recorded = recordingStore();
  const starting = startValidator({
    network,
    keys: [key],
    index: 0,
    transport: net.join(key.nodeId),
    clock: net.clock,
    store: votes,
    ledger: recorded.store,
  });
  const validator = await net.settle(starting);
  const { node } = validator;
  for (let sent = 0; node.head().number < blocks; ) {
    const before = node.head().number;
    for (let i = 0; i < transfers; i++) validator.pay(accountNamed(sent++ % accounts));
    await net.run(pauseMs);
    if (node.head().number === before) throw new Error(`no block after ${before}`);
  }
  await net.settle(node.close());
  const database = await openLedgerDatabase({
    path: join(directory, 'ledger.sqlite'),
    networkId: network.networkId,
  });
  await recorded.replay(database);
  await database.close();
  const files = await folderStore(join(directory, 'store'));
  const keys = await votes.list('');
  // Each waits for the disk: many at once.
  for (let first = 0; first < keys.length; first += 64)
    await Promise.all(
      keys.slice(first, first + 64).map(async (name) => files.put(name, (await votes.get(name))!)),
    );
  return node.head();
}

/** A store in memory that remembers what was done to it. */
function recordingStore(): { store: LedgerStore; replay(other: LedgerStore): Promise<void> } {
  const inner = memoryLedgerStore();
  let begun: readonly [LedgerHead, readonly Change[]] | undefined;
  const appended: (readonly [NewBlock, readonly Change[]])[] = [];
  return {
    store: {
      ...inner,
      install: async (head, rows) => {
        begun = [head, [...rows]];
        await inner.install(head, begun[1]);
      },
      append: async (block, changes) => {
        appended.push([block, changes]);
        await inner.append(block, changes);
      },
    },
    replay: async (other) => {
      if (begun) await other.install(...begun);
      for (const [index, [block, changes]] of appended.entries()) {
        const kept = other.append(block, changes);
        if (index % 64 === 0) await kept;
      }
      await other.takeSnapshot();
    },
  };
}
