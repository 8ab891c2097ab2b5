/**
 * How long transfers take to be final, from handing one to a node until that node, and until every node, has applied and
 * kept its block: among validators in virtual time, and among processes on loopback.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { memoryLedgerStore } from '../../src/ledger/memory-store.ts';
import { must } from '../../src/std/assert.ts';
import { seededRandom } from '../../src/std/random.ts';
import { memoryStore } from '../../src/std/store.ts';
import { startValidator, validatorNetwork } from './validator.ts';
import type { FromValidator, ToValidator } from './validator-process.ts';
import { createVirtualNetwork } from './virtual-network.ts';

export interface Finality {
  readonly validators: number;
  readonly transactions: number;
  /** At the node that was given the transaction. */
  readonly own: Spread;
  /** At the last of all nodes. */
  readonly all: Spread;
}

interface Spread {
  readonly p50Ms: number;
  readonly p95Ms: number;
  readonly maxMs: number;
}

/** When each node, by index, had the transaction final. */
type Times = Map<string, Map<number, number>>;

function spreadOf(numbers: readonly number[]): Spread {
  const sorted = numbers.toSorted((a, b) => a - b);
  const quantile = (q: number) => sorted[Math.max(0, Math.ceil(q * sorted.length) - 1)]!;
  return { p50Ms: quantile(0.5), p95Ms: quantile(0.95), maxMs: quantile(1) };
}

interface Sent {
  readonly by: number;
  readonly atMs: number;
  readonly id: string;
}

function finalityOf(validators: number, sent: readonly Sent[], times: Times): Finality {
  const timesOf = ({ id }: Sent) => must(times.get(id), 'a transfer is final nowhere');
  const own = sent.map((one) => must(timesOf(one).get(one.by), 'not final where it was sent') - one.atMs);
  const all = sent.map((one) => Math.max(...timesOf(one).values()) - one.atMs);
  return { validators, transactions: sent.length, own: spreadOf(own), all: spreadOf(all) };
}

function noting(times: Times, index: number, nowMs: () => number) {
  return (id: string) => {
    const known = times.get(id) ?? new Map<number, number>();
    known.set(index, nowMs());
    times.set(id, known);
  };
}

/** Gaps between two transfers; short ones meet a block that is on its way. */
function gaps(seed: number, meanMs: number): () => number {
  const random = seededRandom(new Uint8Array(16).fill(seed));
  return () => -meanMs * Math.log((random.uint32() + 1) / 2 ** 32);
}

export interface VirtualFinalityOptions {
  readonly validators: number;
  readonly transactions: number;
  readonly rttMs: number;
  readonly meanGapMs: number;
}

/** Everybody is connected to everybody; a message takes half a round trip, and computing nothing. */
export async function virtualFinality(options: VirtualFinalityOptions): Promise<Finality> {
  const { validators, transactions, rttMs, meanGapMs } = options;
  const { network, keys } = validatorNetwork(validators);
  const net = createVirtualNetwork({ delayMs: rttMs / 2 });
  const transports = keys.map(({ nodeId }) => net.join(nodeId));
  const times: Times = new Map();
  const nodes = await net.settle(
    Promise.all(
      keys.map((_, index) =>
        startValidator({
          network,
          keys,
          index,
          transport: transports[index]!,
          clock: net.clock,
          store: memoryStore(),
          ledger: memoryLedgerStore(),
          onFinal: noting(times, index, () => net.clock.nowMs()),
        }),
      ),
    ),
  );
  await net.run(5_000);
  const gap = gaps(validators, meanGapMs);
  const sent: Sent[] = [];
  while (sent.length < transactions) {
    await net.run(gap());
    const by = sent.length % validators;
    sent.push({ by, atMs: net.clock.nowMs(), id: nodes[by]!.pay() });
  }
  await net.run(10_000);
  return finalityOf(validators, sent, times);
}

/** Real processes: libp2p, SQLite, votes on disk. */
export async function realFinality(
  options: Omit<VirtualFinalityOptions, 'rttMs'>,
): Promise<Finality & { readonly cpuMsEach: number }> {
  const { validators, transactions, meanGapMs } = options;
  const folder = await mkdtemp(join(tmpdir(), 'finality-'));
  const children: ChildProcess[] = [];
  try {
    const times: Times = new Map();
    const addresses: string[] = [];
    const sending: PromiseWithResolvers<Sent>[] = [];
    const cpu: PromiseWithResolvers<number>[] = [];
    for (let index = 0; index < validators; index++) {
      const order = { validators, index, folder: join(folder, `${index}`), bootstrap: addresses };
      const file = join(import.meta.dirname, 'validator-process.ts');
      const child = fork(file, [JSON.stringify(order)], { stdio: ['ignore', 2, 2, 'ipc'] });
      children.push(child);
      const [started] = (await once(child, 'message')) as [FromValidator];
      if (started.type !== 'started') throw new Error(`validator ${index} did not start`);
      addresses.push(started.address);
      child.on('message', (message: FromValidator) => {
        if (message.type === 'sent') sending.shift()!.resolve({ by: index, ...message });
        if (message.type === 'cpu') cpu[index]!.resolve(message.cpuMs);
        if (message.type !== 'final') return;
        noting(times, index, () => message.atMs)(message.id);
      });
    }
    const tell = (index: number, message: ToValidator) => children[index]!.send(message);
    const cpuMs = async () => {
      cpu.splice(0, cpu.length, ...children.map(() => Promise.withResolvers<number>()));
      for (const index of children.keys()) tell(index, { type: 'cpu' });
      return (await Promise.all(cpu.map(({ promise }) => promise))).reduce((sum, one) => sum + one, 0);
    };
    const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));
    const pay = async (index: number) => {
      const answer = Promise.withResolvers<Sent>();
      sending.push(answer);
      tell(index, { type: 'pay' });
      return answer.promise;
    };
    // The first blocks compile the code.
    await sleep(3_000);
    for (let warm = 0; warm < 2 * validators; warm++) {
      await pay(warm % validators);
      await sleep(400);
    }
    const before = await cpuMs();
    const gap = gaps(validators, meanGapMs);
    const sent: Sent[] = [];
    while (sent.length < transactions) {
      await sleep(gap());
      sent.push(await pay(sent.length % validators));
    }
    await sleep(3_000);
    const cpuMsEach = ((await cpuMs()) - before) / transactions;
    return { ...finalityOf(validators, sent, times), cpuMsEach };
  } finally {
    const closed = children.map((child) => child.exitCode === null && once(child, 'close'));
    for (const child of children) child.kill('SIGKILL');
    await Promise.all(closed);
    await rm(folder, { recursive: true, force: true });
  }
}
