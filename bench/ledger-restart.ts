/**
 * What keeping a ledger costs, and how soon a killed node has it again: a process of its own appends blocks and is killed
 * with SIGKILL in the middle of one; then another process opens the file, loads every row of the state, makes the state
 * tree and compares its root, and reads the newest blocks. Also measured: one block of 256 transactions, its time on the
 * I/O thread (which only hands it over) and until it is on the disk.
 * Run: `node bench/ledger-restart.ts [--blocks 10000] [--transactions 10] [--accounts 5000] [--json]`.
 */
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import type { Change } from '../src/ledger/draft.ts';
import { commit, createState } from '../src/ledger/state.ts';
import { openLedgerDatabase } from '../src/platform/nodejs/ledger-database.ts';
import { installNodeSha256 } from '../src/platform/nodejs/sha256.ts';
import { equalBytes } from '../src/std/bytes.ts';
import { genesisRows, hashNamed, headAt, madeBlock } from './support/ledger-blocks.ts';

const { values } = parseArgs({
  options: {
    blocks: { type: 'string', default: '10000' },
    transactions: { type: 'string', default: '10' },
    accounts: { type: 'string', default: '5000' },
    json: { type: 'boolean', default: false },
    part: { type: 'string' },
    path: { type: 'string' },
  },
});
const settings = {
  blocks: Number(values.blocks),
  transactions: Number(values.transactions),
  accounts: Number(values.accounts),
};
const networkId = hashNamed('network');
const fullBlock = 256;

interface Restart {
  readonly number: number;
  readonly rows: number;
  readonly openMs: number;
  readonly loadMs: number;
  readonly rootMs: number;
  readonly totalMs: number;
  /** CPU of all threads: other load on the machine hardly moves it. */
  readonly cpuMs: number;
}

interface Append {
  readonly callMs: number;
  /** CPU of the I/O thread in the call. */
  readonly callCpuMs: number;
  readonly durableMs: number;
}

installNodeSha256();
if (values.part === 'write') await write(values.path!);
else if (values.part === 'restart') await restart(values.path!);
else await measure();

/** Appends until it is killed. */
async function write(path: string): Promise<void> {
  const store = await openLedgerDatabase({ path, networkId });
  const rows = genesisRows(settings.accounts);
  const state = createState(rows);
  await store.install({ ...headAt(0), stateRoot: state.root() }, rows);
  const full: Append[] = [];
  for (let number = 1; ; number++) {
    const count = number % 500 === 0 ? fullBlock : settings.transactions;
    const { block, changes } = madeBlock(number, count, settings.accounts);
    commit(state, changes);
    const stateRoot = state.root();
    const startMs = performance.now();
    const cpuMs = threadCpuMs();
    const appended = store.append({ ...block, stateRoot }, changes);
    const [callMs, callCpuMs] = [performance.now() - startMs, threadCpuMs() - cpuMs];
    // Full blocks are measured alone; of the others some may be on their way, for it is their number that counts here.
    if (count === fullBlock || number % 64 === 0) await appended;
    if (count === fullBlock) full.push({ callMs, callCpuMs, durableMs: performance.now() - startMs });
    if (number >= settings.blocks) process.send!(full);
  }
}

function threadCpuMs(): number {
  const { user, system } = process.threadCpuUsage();
  return (user + system) / 1000;
}

async function restart(path: string): Promise<void> {
  const startMs = performance.now();
  const store = await openLedgerDatabase({ path, networkId });
  const head = (await store.head())!;
  const openedMs = performance.now();
  const rows: Change[] = [];
  for await (const page of store.rows()) rows.push(...page);
  const loadedMs = performance.now();
  if (!equalBytes(createState(rows).root(), head.stateRoot))
    throw new Error('the rows are not those of the last block');
  const rootedMs = performance.now();
  await store.blocks({ limit: 100 });
  await store.blocksFrom(head.number - 15, { blocks: 16, bytes: 1e6 });
  process.send!({
    number: head.number,
    rows: rows.length,
    openMs: openedMs - startMs,
    loadMs: loadedMs - openedMs,
    rootMs: rootedMs - loadedMs,
    // From the start of the process.
    totalMs: performance.now(),
    cpuMs: (process.cpuUsage().user + process.cpuUsage().system) / 1000,
  } satisfies Restart);
  await store.close();
}

async function measure(): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), 'ledger-restart-'));
  try {
    const path = join(folder, 'ledger.sqlite');
    const part = (name: string) =>
      fork(fileURLToPath(import.meta.url), [
        ...['--part', name, '--path', path, '--blocks', String(settings.blocks)],
        ...['--transactions', String(settings.transactions), '--accounts', String(settings.accounts)],
      ]);
    const writer = part('write');
    const [full] = (await once(writer, 'message')) as [Append[]];
    writer.kill('SIGKILL');
    await once(writer, 'close');
    const { size } = await stat(path);
    const restarts: Restart[] = [];
    for (let run = 0; run < 3; run++) {
      const child = part('restart');
      const closed = once(child, 'close');
      restarts.push(((await once(child, 'message')) as [Restart])[0]);
      await closed;
    }
    report(full, size, restarts);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

function report(full: readonly Append[], bytes: number, restarts: readonly Restart[]): void {
  const median = (numbers: readonly number[]) => [...numbers].sort((a, b) => a - b)[numbers.length >> 1]!;
  const max = (numbers: readonly number[]) => Math.max(...numbers);
  const spread = (numbers: readonly number[]) => ({ median: median(numbers), max: max(numbers) });
  const call = spread(full.map(({ callMs }) => callMs));
  const callCpu = spread(full.map(({ callCpuMs }) => callCpuMs));
  const durable = spread(full.map(({ durableMs }) => durableMs));
  const result = {
    settings,
    fileBytes: bytes,
    fullBlock: { transactions: fullBlock, callMs: call, callCpuMs: callCpu, durableMs: durable },
    restarts,
  };
  if (values.json) {
    console.log(JSON.stringify(result, null, 2));
    return;
  }
  const ms = (value: number) => `${value.toFixed(1)} ms`;
  console.log(
    `${restarts[0]!.number} blocks, ${restarts[0]!.rows} rows, file of ${(bytes / 1e6).toFixed(0)} MB`,
  );
  console.log(
    `block of ${fullBlock} transactions: I/O thread ${ms(call.median)} (at most ${ms(call.max)}), ` +
      `CPU ${ms(callCpu.median)} (at most ${ms(callCpu.max)}), ` +
      `on the disk after ${ms(durable.median)} (at most ${ms(durable.max)})`,
  );
  for (const { openMs, loadMs, rootMs, totalMs, cpuMs } of restarts)
    console.log(
      `restart after SIGKILL: ${ms(totalMs)} from process start (open and check ${ms(openMs)}, rows ${ms(loadMs)}, root ${ms(rootMs)}), CPU ${ms(cpuMs)}`,
    );
}
