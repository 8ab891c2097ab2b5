/**
 * A `LedgerStore` in an SQLite file. The database lives in a thread of its own, so the I/O thread only hands over what
 * is to be kept; this file passes calls on, in order. It knows no SQL.
 */
import { Worker } from 'node:worker_threads';
import type { Change } from '../../ledger/draft.ts';
import type { LedgerHead, LedgerStore } from '../../ledger/store.ts';
import { CodedError } from '../../std/outcome.ts';
import { programFile } from './installation.ts';
import type { LedgerPlace, LedgerSql } from './ledger-sql.ts';
import type { LedgerCall, LedgerMethod, LedgerReply } from './ledger-worker.ts';

/** The whole database passes a cache of 16 MiB; what else the thread holds is one call's parameters and result. */
const heapMegabytesMax = 256;

/** Handed over at once: the I/O thread copies them. */
const rowsInPart = 1000;

interface Waiting {
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: Error) => void;
}

/**
 * Opens the file, or makes it. Throws CodedError `ledger-damaged`, `other-network`, `other-version`, `ledger-in-use`,
 * `permission-denied`, `disk-full` or `ledger-failed`, and leaves the file as it is.
 */
export async function openLedgerDatabase(place: LedgerPlace): Promise<LedgerStore> {
  const worker = new Worker(programFile('src/platform/nodejs/ledger-worker'), {
    workerData: place satisfies LedgerPlace,
    resourceLimits: { maxOldGenerationSizeMb: heapMegabytesMax },
  });
  const waiting = new Map<number, Waiting>();
  let failure: Error | undefined;
  const failAll = (error: Error) => {
    failure ??= error;
    for (const { reject } of waiting.values()) reject(failure);
    waiting.clear();
  };
  worker.on('message', ({ id, value, error }: LedgerReply) => {
    const { resolve, reject } = waiting.get(id)!;
    waiting.delete(id);
    if (waiting.size === 0) worker.unref();
    if (!error) resolve(value);
    else reject(error.code === null ? new Error(error.message) : new CodedError(error.code, error.message));
  });
  worker.on('error', (error) =>
    failAll(new CodedError('ledger-failed', `the ledger's thread ended: ${error}`, { cause: error })),
  );
  worker.on('exit', () => failAll(new CodedError('ledger-closed', 'the ledger is closed')));
  let calls = 0;
  const wait = (post?: (id: number) => void) =>
    new Promise<unknown>((resolve, reject) => {
      if (failure) return reject(failure);
      const id = post ? ++calls : 0;
      waiting.set(id, { resolve, reject });
      // A process may end with its ledger open, but not with something half done.
      worker.ref();
      post?.(id);
    });
  const call = <Method extends LedgerMethod>(method: Method, ...parameters: Parameters<LedgerSql[Method]>) =>
    wait((id) => worker.postMessage({ id, method, parameters } satisfies LedgerCall)) as Promise<
      ReturnType<LedgerSql[Method]>
    >;
  await wait();
  return storeOver(call, worker);
}

type Call = <Method extends LedgerMethod>(
  method: Method,
  ...parameters: Parameters<LedgerSql[Method]>
) => Promise<ReturnType<LedgerSql[Method]>>;

function storeOver(call: Call, worker: Worker): LedgerStore {
  let closing: Promise<void> | undefined;
  return {
    head: () => call('head'),
    install: (head, rows) => install(call, head, rows),
    append: (block, changes) => call('append', block, changes),
    async *rows() {
      let page: readonly Change[] = await call('rowsAfter', null);
      while (page.length > 0) {
        const { table, key } = page.at(-1)!;
        // The next page is read while the caller takes this one.
        const next = call('rowsAfter', [table, key]);
        next.catch(() => undefined);
        yield page;
        page = await next;
      }
    },
    block: (number) => call('block', number),
    blocks: (page) => call('blocks', page),
    blocksFrom: (number, most) => call('blocksFrom', number, most),
    transaction: (id) => call('transaction', id),
    transactions: (filter, page) => call('transactions', filter, page),
    takeSnapshot: () => call('takeSnapshot'),
    snapshots: () => call('snapshots'),
    snapshotChunk: (number, index) => call('snapshotChunk', number, index),
    async prune(belowNumber) {
      while (await call('pruneSome', belowNumber));
    },
    close: () => (closing ??= closed(call, worker)),
  };
}

async function install(call: Call, head: LedgerHead, rows: Iterable<Change>): Promise<void> {
  await call('beginInstall');
  try {
    let part: Change[] = [];
    for (const row of rows) {
      if (part.push(row) < rowsInPart) continue;
      await call('installRows', part);
      part = [];
    }
    await call('installRows', part);
    await call('endInstall', head);
  } catch (error) {
    await call('endInstall', null);
    throw error;
  }
}

async function closed(call: Call, worker: Worker): Promise<void> {
  const exit = new Promise<void>((resolve) => worker.once('exit', () => resolve()));
  await call('close').then(
    () => {
      worker.ref();
      return exit;
    },
    // A thread that failed has nothing left to close.
    () => undefined,
  );
}
