/** What every `LedgerStore` must do, run against each implementation by its own test. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  accountNamed,
  genesisRows,
  hashNamed,
  headAt,
  madeBlock,
  stateText,
} from '../bench/support/ledger-blocks.ts';
import type { Change } from '../src/ledger/draft.ts';
import { compareRows, readSnapshot } from '../src/ledger/snapshot-chunks.ts';
import type { LedgerStore, TransactionPlace } from '../src/ledger/store.ts';

export async function allRows(store: LedgerStore): Promise<Change[]> {
  const rows: Change[] = [];
  for await (const page of store.rows()) rows.push(...page);
  return rows;
}

/** What the rows are after changes, by a plain map. */
export function applied(rows: readonly Change[], ...changes: readonly (readonly Change[])[]): Change[] {
  const map = new Map<string, Change>();
  for (const change of [...rows, ...changes.flat()]) {
    const name = `${change.table} ${change.key}`;
    if (change.row === undefined) map.delete(name);
    else map.set(name, change);
  }
  return [...map.values()].sort(compareRows);
}

const places = (found: readonly TransactionPlace[]) => found.map(({ number, index }) => [number, index]);

type Open = () => Promise<LedgerStore>;
/** A test with an empty store, which is closed after it. */
type WithStore = (title: string, run: (store: LedgerStore) => Promise<void>) => void;

/** `open` gives an empty store; the suite closes it. */
export function testLedgerStoreContract(name: string, open: Open): void {
  const withStore: WithStore = (title, run) => {
    test(`${name}: ${title}`, async () => {
      const store = await open();
      try {
        await run(store);
      } finally {
        await store.close();
      }
    });
  };
  testBlocks(withStore);
  testTransactions(withStore);
  testSnapshots(withStore);
  testInstalling(withStore);
  testAgainstMap(name, open);
}

async function filled(store: LedgerStore, blocks: number, transactions = 3) {
  await store.install(headAt(0), genesisRows());
  const made = Array.from({ length: blocks }, (_, index) => madeBlock(index + 1, transactions));
  for (const { block, changes } of made) await store.append(block, changes);
  return made;
}

function testBlocks(withStore: WithStore): void {
  withStore('an empty store has nothing, and says so', async (store) => {
    assert.equal(await store.head(), undefined);
    assert.deepEqual(await allRows(store), []);
    assert.equal(await store.block(1), undefined);
    assert.deepEqual(await store.blocks({ limit: 10 }), []);
    assert.deepEqual(await store.blocksFrom(1, { blocks: 10, bytes: 1000 }), []);
    assert.equal(await store.transaction(hashNamed('x')), undefined);
    assert.deepEqual(await store.transactions({}, { limit: 10 }), []);
    assert.deepEqual(await store.snapshots(), []);
    assert.equal(await store.snapshotChunk(0, 0), undefined);
    await assert.rejects(store.takeSnapshot(), { code: 'no-state' });
    await assert.rejects(store.append(madeBlock(1).block, []), { code: 'not-next' });
  });

  withStore('a block comes back as it was put, with the rows after it', async (store) => {
    const made = await filled(store, 5);
    const { transactions, ...block } = made[3]!.block;
    const expected = { ...block, transactions: transactions.length, payloadBytes: block.payload.length };
    assert.deepEqual(await store.block(4), expected);
    const { payload: _payload, certificate: _certificate, ...summary } = expected;
    assert.deepEqual((await store.blocks({ before: 5, limit: 1 }))[0], summary);
    assert.deepEqual(await store.head(), headAt(5));
    const rows = applied(genesisRows(), ...made.map(({ changes }) => changes));
    assert.equal(stateText(await allRows(store)), stateText(rows));
  });

  withStore('only the next block is taken, and a refused one changes nothing', async (store) => {
    await filled(store, 2);
    const before = stateText(await allRows(store));
    for (const number of [0, 1, 2, 4])
      await assert.rejects(store.append(madeBlock(number).block, genesisRows()), { code: 'not-next' });
    assert.deepEqual(await store.head(), headAt(2));
    assert.equal(stateText(await allRows(store)), before);
    assert.equal((await store.blocks({ limit: 10 })).length, 2);
    await store.append(madeBlock(3).block, madeBlock(3).changes);
    assert.deepEqual(await store.head(), headAt(3));
  });

  withStore('what was handed over may change afterwards, and so may what is given', async (store) => {
    await store.install(headAt(0), genesisRows());
    const { block, changes } = madeBlock(1);
    const appended = store.append(block, changes);
    const [id, payload] = [block.transactions[0]!.id.slice(), block.payload.slice()];
    block.payload.fill(0);
    block.transactions[0]!.id.fill(0);
    await appended;
    const got = (await store.block(1))!;
    assert.deepEqual(got.payload, payload);
    got.payload.fill(1);
    (await store.transaction(id))!.id.fill(1);
    assert.deepEqual((await store.block(1))!.payload, payload);
    assert.deepEqual((await store.transaction(id))!.id, id);
  });

  withStore('blocks are paged, newest first, and in runs for those who catch up', async (store) => {
    await filled(store, 12);
    const numbers = (found: readonly { readonly number: number }[]) => found.map(({ number }) => number);
    assert.deepEqual(numbers(await store.blocks({ limit: 5 })), [12, 11, 10, 9, 8]);
    assert.deepEqual(numbers(await store.blocks({ before: 3, limit: 5 })), [2, 1]);
    assert.deepEqual(numbers(await store.blocks({ before: 1, limit: 5 })), []);
    assert.deepEqual(numbers(await store.blocksFrom(4, { blocks: 3, bytes: 1e6 })), [4, 5, 6]);
    const { payloadBytes } = (await store.block(4))!;
    assert.deepEqual(numbers(await store.blocksFrom(4, { blocks: 9, bytes: 2 * payloadBytes })), [4, 5]);
    assert.deepEqual(numbers(await store.blocksFrom(4, { blocks: 9, bytes: 1 })), [4]);
    assert.deepEqual(numbers(await store.blocksFrom(11, { blocks: 9, bytes: 1e6 })), [11, 12]);
    assert.deepEqual(numbers(await store.blocksFrom(13, { blocks: 9, bytes: 1e6 })), []);
    for (const limit of [0, -1, 1.5, 1001]) await assert.rejects(store.blocks({ limit }));
  });
}

function testTransactions(withStore: WithStore): void {
  withStore('transactions are found by id, account and kind, in pages that meet', async (store) => {
    const made = await filled(store, 8, 7);
    const entries = made.flatMap(({ block }) =>
      block.transactions.map((entry, index) => ({ ...entry, number: block.number, index })),
    );
    const one = entries[9]!;
    const { accounts: _accounts, ...place } = one;
    assert.deepEqual(await store.transaction(one.id), place);
    assert.equal(await store.transaction(hashNamed('other')), undefined);
    for (const filter of [
      {},
      { kind: 'stake' },
      { kind: 'nothing' },
      { account: accountNamed(7) },
      { account: accountNamed(7), kind: 'transfer' },
      { account: 'nobody' },
    ]) {
      const expected = entries
        .filter(({ kind }) => filter.kind === undefined || kind === filter.kind)
        .filter(({ accounts }) => filter.account === undefined || accounts.includes(filter.account))
        .reverse();
      const found: TransactionPlace[] = [];
      for (;;) {
        const last = found.at(-1);
        const page = await store.transactions(filter, { limit: 3, ...(last && { before: last }) });
        found.push(...page);
        if (page.length < 3) break;
      }
      assert.deepEqual(places(found), places(expected), JSON.stringify(filter));
    }
  });

  withStore('of two transactions with one name the newest is found', async (store) => {
    const made = await filled(store, 2);
    const again = made[0]!.block.transactions[1]!;
    await store.append({ ...madeBlock(3).block, transactions: [again] }, []);
    assert.equal((await store.transaction(again.id))!.number, 3);
    await store.takeSnapshot();
    await store.prune(3);
    assert.equal((await store.transaction(again.id))!.number, 3);
  });
}

function testSnapshots(withStore: WithStore): void {
  withStore('a snapshot is the state of its moment, in chunks that verify', async (store) => {
    await filled(store, 3);
    const rows = stateText(await allRows(store));
    const info = await store.takeSnapshot();
    assert.deepEqual(info.head, headAt(3));
    assert.deepEqual(await store.takeSnapshot(), info);
    await store.append(madeBlock(4).block, madeBlock(4).changes);
    const reader = readSnapshot(info);
    const taken: Change[] = [];
    for (let index = 0; reader.left() > 0; index++) {
      const added = reader.add((await store.snapshotChunk(3, index))!);
      assert.ok(added.ok);
      taken.push(...added.value);
    }
    assert.equal(stateText(taken), rows);
    assert.equal(await store.snapshotChunk(3, info.chunks.length), undefined);
    await store.takeSnapshot();
    await store.append(madeBlock(5).block, madeBlock(5).changes);
    await store.takeSnapshot();
    assert.deepEqual(
      (await store.snapshots()).map(({ head }) => head.number),
      [5, 4],
    );
    assert.equal(await store.snapshotChunk(3, 0), undefined);
  });

  withStore('pruning forgets old blocks, but only where a snapshot takes their place', async (store) => {
    await filled(store, 24);
    await assert.rejects(store.prune(10), { code: 'no-snapshot' });
    await store.takeSnapshot();
    await assert.rejects(store.prune(26), { code: 'no-snapshot' });
    const before = stateText(await allRows(store));
    const gone = madeBlock(21).block.transactions[0]!.id;
    await store.prune(22);
    assert.deepEqual(
      (await store.blocks({ limit: 10 })).map(({ number }) => number),
      [24, 23, 22],
    );
    assert.equal(await store.block(21), undefined);
    assert.equal(await store.transaction(gone), undefined);
    assert.equal((await store.transactions({}, { limit: 100 })).length, 9);
    assert.ok((await store.transactions({ account: accountNamed(24) }, { limit: 100 })).length > 0);
    assert.deepEqual(await store.blocksFrom(21, { blocks: 5, bytes: 1e6 }), []);
    assert.equal(stateText(await allRows(store)), before);
    await store.append(madeBlock(25).block, madeBlock(25).changes);
    assert.deepEqual(await store.head(), headAt(25));
  });
}

function testInstalling(withStore: WithStore): void {
  withStore('installing replaces everything', async (store) => {
    await filled(store, 4);
    await store.takeSnapshot();
    await store.install(headAt(900), genesisRows(5));
    assert.deepEqual(await store.head(), headAt(900));
    assert.equal(stateText(await allRows(store)), stateText(applied(genesisRows(5))));
    assert.deepEqual(await store.blocks({ limit: 10 }), []);
    assert.deepEqual(await store.transactions({}, { limit: 10 }), []);
    assert.deepEqual(await store.snapshots(), []);
    await store.append(madeBlock(901).block, madeBlock(901).changes);
    assert.deepEqual(await store.head(), headAt(901));
  });

  withStore('an installation whose rows end in a failure changes nothing', async (store) => {
    await filled(store, 2);
    const before = stateText(await allRows(store));
    function* failing() {
      yield* genesisRows(1500);
      throw new Error('no more rows');
    }
    await assert.rejects(store.install(headAt(900), failing()), /no more rows/);
    assert.deepEqual(await store.head(), headAt(2));
    assert.equal(stateText(await allRows(store)), before);
    await store.append(madeBlock(3).block, madeBlock(3).changes);
    assert.equal((await store.blocks({ limit: 10 })).length, 3);
  });

  withStore('more rows than a page are all there, in order', async (store) => {
    await store.install(headAt(0), genesisRows(2345));
    const rows = await allRows(store);
    assert.equal(rows.length, 2346);
    assert.equal(stateText(rows), stateText(applied(genesisRows(2345))));
  });
}

function testAgainstMap(name: string, open: Open): void {
  test(`${name}: rows are what a map says after any blocks`, async () => {
    const change = fc.record({
      key: fc.nat(7),
      balance: fc.option(fc.bigInt({ min: 0n, max: 2n ** 63n }), { nil: undefined }),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(fc.array(change, { maxLength: 6 }), { maxLength: 5 }), async (blocks) => {
        const store = await open();
        await store.install(headAt(0), genesisRows());
        const all = blocks.map((changes) =>
          changes.map(
            ({ key, balance }): Change => ({
              table: 'account',
              key: accountNamed(key),
              row: balance === undefined ? undefined : { balance, stake: balance, unbonding: [], nonce: key },
            }),
          ),
        );
        for (const [index, changes] of all.entries()) await store.append(madeBlock(index + 1).block, changes);
        assert.equal(stateText(await allRows(store)), stateText(applied(genesisRows(), ...all)));
        await store.close();
      }),
      { numRuns: 5 },
    );
  });
}
