/**
 * The work of one stage in bounded queues by class: what serves a waiting person first, then what frees memory, then
 * what fills it, and a guaranteed tenth of the contended time for the background (audit, sync). It does not know what
 * the tasks do.
 */
import type { Clock } from '../std/clock.ts';
import { accept, type Outcome, reject } from '../std/outcome.ts';

/** In order of priority. */
export const workClasses = ['decode', 'backward', 'forward', 'background'] as const;
export type WorkClass = (typeof workClasses)[number];

export interface WorkQueueOptions {
  readonly clock: Clock;
  /** Tasks of each class that may wait; one that starts at once does not wait. */
  readonly depthMax: Readonly<Record<WorkClass, number>>;
  /** Tasks at work at once; 1 unless given. */
  readonly concurrency?: number;
}

export interface WorkQueueStats {
  /** Tasks waiting now. */
  readonly depth: Readonly<Record<WorkClass, number>>;
  /** Tasks at work now. */
  readonly running: number;
  /** Tasks that ended, by their own failure included. */
  readonly served: Readonly<Record<WorkClass, number>>;
  /** Tasks refused as `busy`. */
  readonly refused: number;
  /** Time in which at least one task was at work. */
  readonly busyMs: number;
  /** Time in which a task waited though another could have been at work: busyMs ÷ (busyMs + this) is the utilisation when work exists. */
  readonly idleWithWorkMs: number;
}

export interface WorkQueue {
  /**
   * The task's result, in its turn: first come, first served within a class. Rejects with `busy` when the class is full,
   * and with `aborted` when the signal aborts before the task has started; what it throws is thrown here.
   */
  run<T>(workClass: WorkClass, task: () => Promise<T>, signal?: AbortSignal): Promise<Outcome<T>>;
  stats(): WorkQueueStats;
}

/** Of the time that others were served while background work waited. */
const backgroundShare = 1 / 9;
/** Charged for a task at least: clocks tick in milliseconds, and short turns are turns, too. */
const chargeMsMin = 0.5;
/** Weight of the newest background task in what the next is expected to take. */
const smoothing = 0.25;

interface Waiting {
  readonly start: () => Promise<void>;
}

interface QueueState {
  readonly options: WorkQueueOptions;
  /** Sets keep the order of insertion, and let an aborted one leave from the middle. */
  readonly waiting: Record<WorkClass, Set<Waiting>>;
  readonly served: Record<WorkClass, number>;
  running: number;
  refused: number;
  busyMs: number;
  idleWithWorkMs: number;
  /** When the times above were last brought up to date. */
  accountedMs: number;
  /** What the background is owed for waiting. */
  creditMs: number;
  backgroundTaskMs: number;
}

const zeros = () => ({ decode: 0, backward: 0, forward: 0, background: 0 });

export function createWorkQueue(options: WorkQueueOptions): WorkQueue {
  const q: QueueState = {
    options,
    waiting: { decode: new Set(), backward: new Set(), forward: new Set(), background: new Set() },
    served: zeros(),
    running: 0,
    refused: 0,
    busyMs: 0,
    idleWithWorkMs: 0,
    accountedMs: options.clock.nowMs(),
    creditMs: 0,
    backgroundTaskMs: 0,
  };
  return {
    run: (workClass, task, signal) => enqueue(q, workClass, task, signal),
    stats: () => {
      account(q);
      const depth = zeros();
      for (const one of workClasses) depth[one] = q.waiting[one].size;
      const { running, refused, busyMs, idleWithWorkMs } = q;
      return { depth, running, served: { ...q.served }, refused, busyMs, idleWithWorkMs };
    },
  };
}

function enqueue<T>(
  q: QueueState,
  workClass: WorkClass,
  task: () => Promise<T>,
  signal: AbortSignal | undefined,
): Promise<Outcome<T>> {
  if (signal?.aborted) return Promise.resolve(reject('aborted'));
  const queue = q.waiting[workClass];
  const startsAtOnce = !canStartNone(q) && workClasses.every((one) => q.waiting[one].size === 0);
  if (!startsAtOnce && queue.size >= q.options.depthMax[workClass]) {
    q.refused += 1;
    return Promise.resolve(reject('busy', `${queue.size} tasks of class ${workClass} wait`));
  }
  return new Promise((resolve, fail) => {
    const onAbort = () => {
      account(q);
      queue.delete(waiting);
      resolve(reject('aborted'));
    };
    const waiting: Waiting = {
      start: async () => {
        signal?.removeEventListener('abort', onAbort);
        try {
          resolve(accept(await task()));
        } catch (error) {
          fail(error);
        }
      },
    };
    signal?.addEventListener('abort', onAbort, { once: true });
    account(q);
    queue.add(waiting);
    dispatch(q);
  });
}

function canStartNone(q: QueueState): boolean {
  return q.running >= (q.options.concurrency ?? 1);
}

function dispatch(q: QueueState): void {
  while (!canStartNone(q)) {
    const workClass = nextClass(q);
    if (!workClass) return;
    const [next] = q.waiting[workClass];
    q.waiting[workClass].delete(next!);
    void serve(q, workClass, next!);
  }
}

/** The first class that has work, unless the background has saved up enough for one of its tasks. */
function nextClass(q: QueueState): WorkClass | undefined {
  if (q.waiting.background.size === 0) q.creditMs = Math.min(q.creditMs, 0);
  else if (q.creditMs > 0 && q.creditMs >= q.backgroundTaskMs) return 'background';
  return workClasses.find((one) => q.waiting[one].size > 0);
}

async function serve(q: QueueState, workClass: WorkClass, next: Waiting): Promise<void> {
  account(q);
  q.running += 1;
  const isContended = workClasses.some((one) => one !== 'background' && q.waiting[one].size > 0);
  const startedMs = q.options.clock.nowMs();
  await next.start();
  account(q);
  q.running -= 1;
  q.served[workClass] += 1;
  const chargedMs = Math.max(chargeMsMin, q.options.clock.nowMs() - startedMs);
  if (workClass === 'background') {
    const isFirst = q.served.background === 1;
    q.backgroundTaskMs += (chargedMs - q.backgroundTaskMs) * (isFirst ? 1 : smoothing);
    if (isContended) q.creditMs -= chargedMs;
  } else if (q.waiting.background.size > 0) {
    q.creditMs += chargedMs * backgroundShare;
  }
  dispatch(q);
}

/** Adds the time since the last change to what it was. */
function account(q: QueueState): void {
  const nowMs = q.options.clock.nowMs();
  const elapsedMs = Math.max(0, nowMs - q.accountedMs);
  q.accountedMs = nowMs;
  if (q.running > 0) q.busyMs += elapsedMs;
  const isWaiting = workClasses.some((one) => q.waiting[one].size > 0);
  if (isWaiting && !canStartNone(q)) q.idleWithWorkMs += elapsedMs;
}
