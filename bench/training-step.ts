/**
 * CPU time of one training step (forward, backward, clip, AdamW) on one thread, ours against PyTorch eager in the same
 * run: two processes that take turns step by step, so that both meet the same machine. Without a Python that has torch
 * only ours is measured.
 *
 *   node bench/training-step.ts [--steps 9] [--only d256x8] [--json FILE]      NEUROSHARD_PYTHON=/path/to/python
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { createInterface } from 'node:readline';
import { parseArgs } from 'node:util';
import { presets } from '../src/model/config.ts';
import { packageFile, programFile } from '../src/platform/nodejs/installation.ts';
import type { StepCase } from './training-step/native.ts';

const cases: readonly StepCase[] = [
  { name: 'd256x8', model: presets.small, batch: 8, sequence: 256 },
  { name: 'd512x8', model: presets.medium, batch: 4, sequence: 512 },
];

interface Measured {
  readonly cpuMsMedian: number;
  readonly wallMsMedian: number;
  readonly graphMsMedian: number;
  readonly peakRssMb: number;
  readonly idleRssMb: number;
  readonly cpuMs: readonly number[];
  readonly lastLoss: number;
}

interface Line {
  readonly wallMs: number;
  readonly cpuMs: number;
  readonly graphMs: number;
  readonly loss: number;
  readonly peakRssKb: number;
}

/** A process that answers each line on its stdin with one JSON line. */
class Side {
  readonly #child: ChildProcess;
  readonly #lines: AsyncIterator<string>;
  readonly steps: Line[] = [];
  idleRssKb = 0;

  constructor(command: string, args: readonly string[]) {
    this.#child = spawn(command, args, {
      stdio: ['pipe', 'pipe', 'inherit'],
      env: { ...process.env, OMP_NUM_THREADS: '1' },
    });
    this.#lines = createInterface({ input: this.#child.stdout! })[Symbol.asyncIterator]();
  }

  async #next(): Promise<Line> {
    const { value, done } = await this.#lines.next();
    if (done) throw new Error('a side of the benchmark ended early');
    return JSON.parse(value);
  }

  async ready(): Promise<void> {
    this.idleRssKb = (await this.#next()).peakRssKb;
  }

  async step(): Promise<void> {
    this.#child.stdin!.write('step\n');
    this.steps.push(await this.#next());
  }

  close(): void {
    this.#child.stdin!.end();
  }
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

/** The first step of each side warms its caches and allocators and is not counted. */
function measured(side: Side): Measured {
  const counted = side.steps.slice(1);
  const cpuMs = counted.map((line) => Math.round(line.cpuMs * 10) / 10);
  return {
    cpuMsMedian: median(cpuMs),
    wallMsMedian: median(counted.map((line) => line.wallMs)),
    graphMsMedian: median(counted.map((line) => line.graphMs)),
    peakRssMb: Math.round(side.steps.at(-1)!.peakRssKb / 1024),
    idleRssMb: Math.round(side.idleRssKb / 1024),
    cpuMs,
    lastLoss: side.steps.at(-1)!.loss,
  };
}

function pythonWithTorch(): string | undefined {
  const candidates = [process.env.NEUROSHARD_PYTHON, 'python3'].filter((path) => path !== undefined);
  return candidates.find((path) => spawnSync(path, ['-c', 'import torch']).status === 0);
}

async function runCase(stepCase: StepCase, steps: number, python: string | undefined) {
  const argument = JSON.stringify(stepCase);
  const ours = new Side(process.execPath, [programFile('bench/training-step/native'), argument]);
  const theirs = python
    ? new Side(python, [packageFile('bench', 'training-step', 'torch_step.py'), argument])
    : undefined;
  await ours.ready();
  await theirs?.ready();
  for (let step = 0; step <= steps; step++) {
    await ours.step();
    await theirs?.step();
  }
  ours.close();
  theirs?.close();
  return { case: stepCase.name, neuroshard: measured(ours), torch: theirs ? measured(theirs) : undefined };
}

const { values: options } = parseArgs({
  options: { steps: { type: 'string', default: '9' }, only: { type: 'string' }, json: { type: 'string' } },
});
const python = pythonWithTorch();
if (!python) console.error('no Python with torch (NEUROSHARD_PYTHON): measuring only ours');
const results = [];
for (const stepCase of cases.filter(({ name }) => !options.only || name === options.only)) {
  const result = await runCase(stepCase, Number(options.steps), python);
  const { neuroshard, torch } = result;
  results.push({
    ...result,
    speedOfTorch: torch && torch.cpuMsMedian / neuroshard.cpuMsMedian,
    memoryOfTorch: torch && neuroshard.peakRssMb / torch.peakRssMb,
  });
}
console.table(
  results.map(({ case: name, neuroshard, torch, speedOfTorch, memoryOfTorch }) => ({
    case: name,
    'ours CPU ms': Math.round(neuroshard.cpuMsMedian),
    'graph wall ms': Math.round(neuroshard.graphMsMedian),
    'torch CPU ms': torch && Math.round(torch.cpuMsMedian),
    'torch graph wall ms': torch && Math.round(torch.graphMsMedian),
    speed: speedOfTorch?.toFixed(3),
    'ours MB': neuroshard.peakRssMb,
    'torch MB': torch?.peakRssMb,
    memory: memoryOfTorch?.toFixed(2),
  })),
);
if (options.json) {
  const machine = { cpu: cpus()[0]?.model, cores: cpus().length, node: process.version };
  writeFileSync(
    options.json,
    `${JSON.stringify({ machine, date: new Date().toISOString(), results }, null, 1)}\n`,
  );
}
