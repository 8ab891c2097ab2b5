/**
 * Loaded into node processes by `bench/node-overhead.ts` (`NODE_OPTIONS=--import`), never by the product. It counts the
 * CPU time of the node's threads and of tensor work, and the longest turns of the event loop, from the node's first
 * training step to its `finished` event, and writes them to the folder in `NEUROSHARD_METER` when the process ends.
 *
 * How, so that measuring costs next to nothing (a few microseconds for each turn or kernel call):
 * - A turn of the I/O thread's loop is what lies between two runs of an unreferenced `setImmediate`: such an immediate
 *   runs once in each turn and never keeps the loop from sleeping. Its CPU time is the difference of
 *   `process.threadCpuUsage()`, which other processes on the machine do not disturb.
 * - In the compute thread the native `run` and the wasm kernels of the inner step are wrapped; their CPU time goes to counters in shared
 *   memory, which the I/O thread reads at the beginning and at the end. Operations of the engine run on the calling
 *   thread (`--threads 1`, which is what `swarm` gives four nodes on fewer than eight cores).
 */
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { Session } from 'node:inspector';
import { createRequire, syncBuiltinESMExports } from 'node:module';
import { join } from 'node:path';
import { PerformanceObserver, performance } from 'node:perf_hooks';
import { fileURLToPath } from 'node:url';
import { getEnvironmentData, isMainThread, setEnvironmentData } from 'node:worker_threads';

/**
 * Microseconds of CPU in the compute thread: native runs (steps, evaluation), kernels of the inner step (scatter, norm,
 * AdamW), and the thread as a whole.
 */
const counterNames = ['runs', 'stepKernels', 'computeThread'] as const;
type CounterName = (typeof counterNames)[number];
type Counters = Record<CounterName, number>;

export interface Turn {
  readonly cpuMs: number;
  /** Wall time less sleep: more than `cpuMs` when the thread was blocked, or had to wait for a core. */
  readonly activeMs: number;
  /** Milliseconds since metering began. */
  readonly atMs: number;
  /** Events the node told in this turn, and with profiling where the samples were. */
  readonly what: readonly string[];
}

export interface MeterReport {
  readonly pid: number;
  readonly steps: number;
  readonly wallMs: number;
  /** CPU ms of all threads of the process. */
  readonly processMs: number;
  readonly ioThreadMs: number;
  readonly counters: Counters;
  /** CPU ms by the name of the thread, where /proc tells: V8's helpers, libuv's pool. */
  readonly threads: Readonly<Record<string, number>>;
  readonly turns: number;
  readonly longest: readonly Turn[];
}

const folder = process.env.NEUROSHARD_METER;
const profiles = process.env.NEUROSHARD_METER_PROFILE === '1';
const fromStart = process.env.NEUROSHARD_METER_FROM === 'started';
const turnsKept = 30;
const dataKey = 'neuroshard-meter';

if (folder) {
  if (profiles) collectGc(folder);
  if (!isMainThread) meterComputeThread();
  else if (process.send && process.argv.includes('start')) meterNode(folder);
}

function meterNode(directory: string): void {
  const shared = new Float64Array(new SharedArrayBuffer(8 * counterNames.length));
  setEnvironmentData(dataKey, shared);
  preloadIntoWorkers();
  const turns = createTurnMeter();
  const profiler = profiles ? startProfiler() : undefined;
  let begun: ReturnType<typeof readings> | undefined;
  let ended: ReturnType<typeof readings> | undefined;
  let steps = 0;
  const readings = () => ({
    wallMs: performance.now(),
    process: microseconds(process.cpuUsage()),
    thread: threadMicroseconds(),
    counters: [...shared],
    threads: threadsByName(),
  });
  const begin = () => {
    begun ??= readings();
    turns.begin();
  };
  const send = process.send!.bind(process) as (...args: unknown[]) => boolean;
  const metered = (message: { type?: string }, ...rest: unknown[]) => {
    const { type } = message;
    if (type) turns.note(type);
    if (type === 'step' && begun) steps += 1;
    if (type === 'step' || (fromStart && type === 'started')) begin();
    if (type === 'finished') {
      ended ??= readings();
      turns.end();
    }
    return send(message, ...rest);
  };
  Object.assign(process, { send: metered });
  process.on('exit', () => {
    if (!begun) return;
    const last = ended ?? readings();
    const change = (index: number) => (last.counters[index]! - begun!.counters[index]!) / 1000;
    const report: MeterReport = {
      pid: process.pid,
      steps,
      wallMs: last.wallMs - begun.wallMs,
      processMs: (last.process - begun.process) / 1000,
      ioThreadMs: (last.thread - begun.thread) / 1000,
      counters: Object.fromEntries(counterNames.map((name, index) => [name, change(index)])) as Counters,
      threads: Object.fromEntries(
        [...last.threads].map(([name, ms]) => [name, ms - (begun!.threads.get(name) ?? 0)]),
      ),
      turns: turns.count(),
      longest: turns.longest(profiler?.()),
    };
    mkdirSync(directory, { recursive: true });
    writeFileSync(join(directory, `${process.pid}.json`), JSON.stringify(report));
  });
}

/** Garbage collections of this thread by kind: how many, and their milliseconds. */
function collectGc(directory: string): void {
  const kinds: Record<string, { count: number; ms: number }> = {};
  const take = (entries: readonly PerformanceEntry[]) => {
    for (const entry of entries) {
      const { duration, detail } = entry as PerformanceEntry & { detail: { kind: number } };
      const one = (kinds[`kind ${detail.kind}`] ??= { count: 0, ms: 0 });
      one.count += 1;
      one.ms += duration;
    }
  };
  const observer = new PerformanceObserver((list) => take(list.getEntries()));
  observer.observe({ entryTypes: ['gc'] });
  process.once('exit', () => {
    take(observer.takeRecords());
    mkdirSync(directory, { recursive: true });
    writeFileSync(
      join(directory, `${process.pid}-${isMainThread ? 'io' : 'compute'}.gc`),
      JSON.stringify(kinds),
    );
  });
}

function threadsByName(): Map<string, number> {
  const totals = new Map<string, number>();
  try {
    for (const id of readdirSync('/proc/self/task')) {
      const name = readFileSync(`/proc/self/task/${id}/comm`, 'utf8').trim();
      const [ranNs] = readFileSync(`/proc/self/task/${id}/schedstat`, 'utf8').split(' ');
      totals.set(name, (totals.get(name) ?? 0) + Number(ranNs) / 1e6);
    }
  } catch {
    // Not Linux, or a thread has ended meanwhile: the sum of all others is still known.
  }
  return totals;
}

/** Threads do not inherit `NODE_OPTIONS`, and the product starts its own without arguments. */
function preloadIntoWorkers(): void {
  const threads = createRequire(import.meta.url)(
    'node:worker_threads',
  ) as typeof import('node:worker_threads');
  threads.Worker = class extends threads.Worker {
    constructor(file: string | URL, options: import('node:worker_threads').WorkerOptions = {}) {
      super(file, { ...options, execArgv: ['--import', fileURLToPath(import.meta.url)] });
    }
  };
  syncBuiltinESMExports();
}

function createTurnMeter() {
  const longest: (Turn & { fromUs: number; toUs: number })[] = [];
  let running = false;
  let count = 0;
  let origin = 0;
  let notes: string[] = [];
  let cpu = 0;
  let from = 0;
  let loop = performance.eventLoopUtilization();
  const turn = () => {
    const now = threadMicroseconds();
    const used = now - cpu;
    const at = performance.now();
    if (running) {
      count += 1;
      const atLeast = longest.length < turnsKept ? 0 : longest.at(-1)!.cpuMs;
      if (used / 1000 > atLeast) {
        // Reading the utilization is dear, so only the turns that matter pay for it.
        const next = performance.eventLoopUtilization();
        const activeMs = Math.min(at - from, next.active - loop.active);
        loop = next;
        const toUs = Number(process.hrtime.bigint() / 1000n);
        const fromUs = toUs - 1000 * (at - from);
        longest.push({ cpuMs: used / 1000, activeMs, atMs: at - origin, what: notes, fromUs, toUs });
        longest.sort((a, b) => b.cpuMs - a.cpuMs).splice(turnsKept);
      }
    }
    if (notes.length > 0) notes = [];
    from = at;
    cpu = threadMicroseconds();
    setImmediate(turn).unref();
  };
  setImmediate(turn).unref();
  return {
    note: (type: string) => notes.push(type),
    begin: () => {
      if (!running && origin === 0) {
        origin = performance.now();
        running = true;
      }
    },
    end: () => {
      running = false;
    },
    count: () => count,
    longest: (explain?: (fromUs: number, toUs: number) => string[]): Turn[] =>
      longest.map(({ fromUs, toUs, what, ...one }) => ({
        ...one,
        what: [...what, ...(explain?.(fromUs, toUs) ?? [])],
      })),
  };
}

function meterComputeThread(): void {
  const counters = getEnvironmentData(dataKey) as Float64Array | undefined;
  if (!counters) return;
  const add = (name: CounterName, us: number) => {
    counters[counterNames.indexOf(name)]! += us;
  };
  const timed =
    (nameOf: () => CounterName, call: (...args: unknown[]) => unknown) =>
    (...args: unknown[]) => {
      const before = threadMicroseconds();
      try {
        return call(...args);
      } finally {
        const after = threadMicroseconds();
        add(nameOf(), after - before);
        counters[counterNames.indexOf('computeThread')] = after;
      }
    };
  timeRuns(timed);
  timeKernels(timed);
  if (profiles) startProfiler();
}

type Timed = (
  nameOf: () => CounterName,
  call: (...args: unknown[]) => unknown,
) => (...args: unknown[]) => unknown;

/** The native `run` is synchronous: everything it does on this thread lies inside the call. */
function timeRuns(timed: Timed): void {
  const file = new URL('../../node_modules/onnxruntime-node/dist/binding.js', import.meta.url);
  const { binding } = createRequire(import.meta.url)(fileURLToPath(file));
  const Native = binding.InferenceSession as new () => { run(...args: unknown[]): unknown };
  binding.InferenceSession = class extends Native {
    override run(...args: unknown[]): unknown {
      return timed(
        () => 'runs',
        () => super.run(...args),
      )();
    }
  };
}

/**
 * Only the kernels of the inner step are timed: a round calls thousands of others, and reading the clock for each would
 * be a good part of what is measured. From the embedding rows to the first AdamW a norm belongs to the step.
 */
function timeKernels(timed: Timed): void {
  const Original = WebAssembly.Instance;
  let inStep = false;
  const wrap = (name: string, call: (...args: unknown[]) => unknown) => {
    const timedCall = timed(() => 'stepKernels', call);
    if (name === 'dot') return (...args: unknown[]) => (inStep ? timedCall : call)(...args);
    if (name !== 'scatterAddRows' && name !== 'adamw') return call;
    return (...args: unknown[]) => {
      inStep = name === 'scatterAddRows';
      return timedCall(...args);
    };
  };
  WebAssembly.Instance = class extends Original {
    constructor(module: WebAssembly.Module, imports?: WebAssembly.Imports) {
      super(module, imports);
      const exports = Object.fromEntries(
        Object.entries(this.exports).map(([name, value]) => [
          name,
          typeof value === 'function' ? wrap(name, value as (...args: unknown[]) => unknown) : value,
        ]),
      );
      Object.defineProperty(this, 'exports', { value: exports });
    }
  } as typeof WebAssembly.Instance;
}

function threadMicroseconds(): number {
  return microseconds(process.threadCpuUsage());
}

function microseconds({ user, system }: { user: number; system: number }): number {
  return user + system;
}

interface ProfileNode {
  readonly id: number;
  readonly callFrame: { readonly functionName: string; readonly url: string; readonly lineNumber: number };
  readonly children?: readonly number[];
}

interface Profile {
  readonly nodes: readonly ProfileNode[];
  readonly samples: readonly number[];
  readonly timeDeltas: readonly number[];
  readonly startTime: number;
}

/** Samples this thread every millisecond; the result explains a span of time by the frames seen most in it. */
function startProfiler(): () => (fromUs: number, toUs: number) => string[] {
  const session = new Session();
  session.connect();
  session.post('Profiler.enable');
  session.post('Profiler.setSamplingInterval', { interval: 1000 });
  session.post('Profiler.start');
  let profile: Profile | undefined;
  const stop = () => {
    session.post('Profiler.stop', (error, result) => {
      if (!error) profile = result.profile as unknown as Profile;
    });
    if (profile && folder) {
      mkdirSync(folder, { recursive: true });
      const name = `${process.pid}-${isMainThread ? 'io' : 'compute'}.cpuprofile`;
      writeFileSync(join(folder, name), JSON.stringify(profile));
    }
  };
  if (!isMainThread) process.once('exit', stop);
  return () => {
    stop();
    return profile ? explainer(profile) : () => [];
  };
}

const framesShown = 14;

function explainer(profile: Profile): (fromUs: number, toUs: number) => string[] {
  const nodes = new Map(profile.nodes.map((node) => [node.id, node]));
  const parents = new Map(profile.nodes.flatMap((node) => (node.children ?? []).map((id) => [id, node.id])));
  const name = ({ callFrame }: ProfileNode) => {
    const file = callFrame.url.split('/').slice(-2).join('/');
    return `${callFrame.functionName || '(anonymous)'} ${file}:${callFrame.lineNumber + 1}`;
  };
  return (fromUs, toUs) => {
    const totals = new Map<string, number>();
    let at = profile.startTime;
    for (const [index, id] of profile.samples.entries()) {
      at += profile.timeDeltas[index]!;
      if (at < fromUs || at > toUs) continue;
      const seen = new Set<string>();
      for (let one: number | undefined = id; one !== undefined; one = parents.get(one)) {
        seen.add(name(nodes.get(one)!));
      }
      for (const frame of seen) totals.set(frame, (totals.get(frame) ?? 0) + 1);
    }
    return [...totals]
      .filter(([frame]) => !/^\((root|idle|program)\)/.test(frame))
      .sort((a, b) => b[1] - a[1])
      .slice(0, framesShown)
      .map(([frame, samples]) => `${samples}x ${frame}`);
  };
}
