/** The ledger in SQLite against the contract of every store, against damaged files, and killed while it writes. */
import assert from 'node:assert/strict';
import { fork, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import {
  copyFileSync,
  existsSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import {
  genesisRows,
  hashNamed,
  headAt,
  madeBlock,
  stateText,
} from '../../../bench/support/ledger-blocks.ts';
import { allRows, applied, testLedgerStoreContract } from '../../../test/ledger-store-contract.ts';
import type { StoredBlock } from '../../ledger/store.ts';
import { CodedError } from '../../std/outcome.ts';
import { seededRandom, uniformBelow } from '../../std/random.ts';
import { openLedgerDatabase } from './ledger-database.ts';
import { type LedgerSql, openLedgerSql } from './ledger-sql.ts';

const networkId = hashNamed('network');

/** Appends until it is killed; the parent hears of every block that is kept. */
async function writeForever(path: string): Promise<void> {
  process.on('disconnect', () => process.exit());
  const store = await openLedgerDatabase({ path, networkId });
  if (!(await store.head())) await store.install(headAt(0), genesisRows());
  for (let number = (await store.head())!.number + 1; ; number++) {
    const { block, changes } = madeBlock(number, 40);
    await store.append(block, changes);
    process.send!(number);
  }
}

function runTests(): void {
  const root = mkdtempSync(join(tmpdir(), 'neuroshard-ledger-'));
  after(() => rmSync(root, { recursive: true, force: true }));
  const freshPath = () => join(mkdtempSync(join(root, 'case-')), 'ledger.sqlite');
  const open = (path: string) => openLedgerDatabase({ path, networkId });
  const refuses = (path: string, code: string) =>
    assert.rejects(open(path), (error) => {
      assert.ok(error instanceof CodedError, String(error));
      assert.equal(error.code, code);
      assert.doesNotMatch(error.message, /\n/);
      return true;
    });

  testLedgerStoreContract('ledger database', () => open(freshPath()));

  const filled = async (path: string, blocks: number) => {
    const store = await open(path);
    await store.install(headAt(0), genesisRows());
    for (let number = 1; number <= blocks; number++) {
      const { block, changes } = madeBlock(number, 20);
      await store.append(block, changes);
    }
    await store.takeSnapshot();
    return store;
  };
  const expectedRows = (blocks: number, transactions: number) =>
    stateText(
      applied(
        genesisRows(),
        ...Array.from({ length: blocks }, (_, index) => madeBlock(index + 1, transactions).changes),
      ),
    );

  test('a ledger opened again is as it was left', async () => {
    const path = freshPath();
    await (await filled(path, 7)).close();
    const again = await open(path);
    assert.deepEqual(await again.head(), headAt(7));
    assert.equal(stateText(await allRows(again)), expectedRows(7, 20));
    assert.equal((await again.snapshots()).length, 1);
    await refuses(path, 'ledger-in-use');
    await again.close();
    await again.close();
    await assert.rejects(again.head(), { code: 'ledger-closed' });
  });

  test('opening prints nothing, no warning of an experiment either', () => {
    const script = `const { DatabaseSync } = await import('node:sqlite'); new DatabaseSync(':memory:').close();`;
    const { status, stdout, stderr } = spawnSync(process.execPath, ['--input-type=module', '-e', script]);
    assert.deepEqual([status, String(stdout), String(stderr)], [0, '', '']);
  });

  test('what is no ledger, or another one, is one coded error, and the file stays as it is', async () => {
    const garbage = freshPath();
    writeFileSync(garbage, Buffer.alloc(20_000, 'no database at all '));
    const foreign = freshPath();
    const other = new DatabaseSync(foreign);
    other.exec('CREATE TABLE notes (text TEXT)');
    other.close();
    const elsewhere = freshPath();
    await (await openLedgerDatabase({ path: elsewhere, networkId: hashNamed('other') })).close();
    const newer = freshPath();
    await (await open(newer)).close();
    const changed = new DatabaseSync(newer);
    changed.exec('PRAGMA user_version = 99');
    changed.close();
    for (const [path, code] of [
      [garbage, 'ledger-damaged'],
      [foreign, 'ledger-damaged'],
      [elsewhere, 'other-network'],
      [newer, 'other-version'],
      [join(root, 'missing', 'ledger.sqlite'), 'permission-denied'],
    ] as const) {
      const before = existsSync(path) && readFileSync(path);
      await refuses(path, code);
      if (before) assert.deepEqual(readFileSync(path), before, path);
    }
  });

  /** Uses all of it, in this thread: every answer is right, or one coded error. */
  function usesAll(path: string, blocks: number): 'right' | 'refused' {
    let store: LedgerSql | undefined;
    try {
      store = openLedgerSql({ path, networkId });
      const head = store.head();
      if (!head || head.number === 0) return 'right';
      assert.deepEqual(head, headAt(head.number));
      assert.ok(head.number <= blocks);
      const rows = stateText(store.rowsAfter(null));
      for (let number = 1; number <= head.number; number++) {
        const block: StoredBlock | undefined = store.block(number);
        assert.deepEqual(block?.payload, madeBlock(number, 20).block.payload, `block ${number}`);
      }
      store.transactions({}, { limit: 100 });
      const next = madeBlock(head.number + 1, 20);
      store.append(next.block, next.changes);
      assert.equal(rows, expectedRows(head.number, 20));
      return 'right';
    } catch (error) {
      assert.ok(error instanceof CodedError, String(error));
      assert.equal(error.code, 'ledger-damaged');
      return 'refused';
    } finally {
      try {
        store?.close();
      } catch (error) {
        assert.ok(error instanceof CodedError, String(error));
      }
    }
  }

  test('a file with flipped bytes, or cut short, gives right answers or one coded error', async () => {
    const path = freshPath();
    await (await filled(path, 12)).close();
    const good = readFileSync(path);
    const random = seededRandom(new Uint8Array(16).fill(3));
    const outcomes = { right: 0, refused: 0 };
    for (let round = 0; round < 40; round++) {
      const bytes = Buffer.from(good);
      // The header and the roots of tables are hit often, the rest anywhere.
      const reach = round % 4 === 0 ? 100 : round % 4 === 1 ? 4096 : bytes.length;
      for (let flips = 0; flips <= round % 5; flips++)
        bytes[uniformBelow(random, reach)]! ^= 1 << uniformBelow(random, 8);
      const damaged = freshPath();
      writeFileSync(damaged, bytes);
      outcomes[usesAll(damaged, 12)] += 1;
    }
    assert.ok(outcomes.refused > 10, JSON.stringify(outcomes));
    for (const length of [0, 1, 99, 100, 4095, 4096, 5000, 3 * 4096, good.length - 4096, good.length - 1]) {
      const cut = freshPath();
      writeFileSync(cut, good);
      truncateSync(cut, length);
      const outcome = usesAll(cut, 12);
      // SQLite takes a stump of its header for an empty file, and zeros for what a page lacks.
      if (length >= 512 && length <= good.length - 4096) assert.equal(outcome, 'refused', `${length} bytes`);
    }
  });

  test('a damaged log loses the last blocks, never parts of one', async () => {
    const path = freshPath();
    const store = await filled(path, 12);
    // Copies of a store in use: what a machine that lost its power might find.
    const copies = Array.from({ length: 6 }, () => freshPath());
    for (const copy of copies) for (const part of ['', '-wal']) copyFileSync(path + part, copy + part);
    await store.close();
    const random = seededRandom(new Uint8Array(16).fill(5));
    for (const [index, copy] of copies.entries()) {
      const log = readFileSync(`${copy}-wal`);
      if (index % 2 === 0) log[uniformBelow(random, log.length)]! ^= 64;
      writeFileSync(`${copy}-wal`, index % 2 === 0 ? log : log.subarray(0, uniformBelow(random, log.length)));
      usesAll(copy, 12);
    }
  });

  test('killed while it writes, the rows are those of the last block, and no kept block is lost', async () => {
    const path = freshPath();
    const random = seededRandom(new Uint8Array(16).fill(1));
    let last = 0;
    for (let kill = 0; kill < 4; kill++) {
      const child = fork(fileURLToPath(import.meta.url), ['write-forever', path], { execArgv: [] });
      const killAfter = 1 + uniformBelow(random, 12);
      let heard = 0;
      child.on('message', (number: number) => {
        last = number;
        heard += 1;
        // Some microseconds into the next one.
        if (heard === killAfter) setTimeout(() => child.kill('SIGKILL'), uniformBelow(random, 4));
      });
      await once(child, 'close');
      assert.ok(heard >= killAfter, 'it ended before it was killed');
      const store = await open(path);
      const head = (await store.head())!;
      assert.ok(head.number >= last, `block ${last} was kept, now it ends at ${head.number}`);
      assert.deepEqual(head, headAt(head.number));
      assert.equal(stateText(await allRows(store)), expectedRows(head.number, 40));
      const newest = madeBlock(head.number, 40).block;
      assert.deepEqual((await store.block(head.number))!.payload, newest.payload);
      assert.equal((await store.transactions({}, { limit: 1000 })).length, Math.min(1000, 40 * head.number));
      await store.close();
    }
  });
}

if (process.argv[2] === 'write-forever') await writeForever(process.argv[3]!);
else runTests();
