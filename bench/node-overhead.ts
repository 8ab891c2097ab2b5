/**
 * Node overhead: CPU that the nodes of a real swarm spend outside tensor work, and the longest turns of their I/O
 * threads, from the first training step to the end. Tensor work is graph runs (steps and evaluation) and the kernels
 * of the inner step (embedding scatter, gradient norm, AdamW); all else is overhead: compression, screening,
 * aggregation, the outer step, hashing, networking, consensus, JavaScript, compilation and garbage collection. Both
 * numbers are CPU times of threads, so other load on the machine hardly moves them; how they are taken is written in
 * `support/node-meter.ts`. With `--late` the last of four nodes is started a few rounds after the others, so that
 * joining and state transfer are metered, too.
 * Run: `node bench/node-overhead.ts [--preset tiny] [--inner-steps 20] [--rounds 8] [--batch N]
 * [--compression int8,f32] [--late] [--explain DIR] [--json]`. `--explain` keeps CPU profiles in a folder and names
 * what the long turns did, at the price of a little distortion.
 */
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import type { CodecName } from '../src/diloco/compression/codec.ts';
import type { presets } from '../src/model/config.ts';
import { runLateJoiner } from './support/late-joiner.ts';
import type { MeterReport } from './support/node-meter.ts';
import { runNeuroshard, table } from './support/run-neuroshard.ts';

const { values } = parseArgs({
  options: {
    preset: { type: 'string', default: 'tiny' },
    'inner-steps': { type: 'string', default: '20' },
    rounds: { type: 'string', default: '8' },
    batch: { type: 'string' },
    compression: { type: 'string', default: 'int8,f32' },
    seed: { type: 'string', default: '1' },
    late: { type: 'boolean', default: false },
    explain: { type: 'string' },
    json: { type: 'boolean', default: false },
  },
});

interface Metered {
  readonly compression: string;
  /** Sums over the nodes. */
  readonly overhead: number;
  readonly nodes: readonly MeterReport[];
}

const results: Metered[] = [];
for (const compression of values.compression.split(',')) results.push(await meter(compression));
if (values.json) console.log(JSON.stringify({ settings: values, results }, null, 2));
else for (const result of results) print(result);

async function meter(compression: string): Promise<Metered> {
  const folder = values.explain
    ? join(values.explain, compression)
    : await mkdtemp(join(tmpdir(), 'node-overhead-'));
  const env = {
    NODE_OPTIONS: `--import=${fileURLToPath(new URL('support/node-meter.ts', import.meta.url))}`,
    NEUROSHARD_METER: folder,
    ...(values.explain && { NEUROSHARD_METER_PROFILE: '1' }),
    ...(values.late && { NEUROSHARD_METER_FROM: 'started' }),
  };
  try {
    if (values.late) {
      Object.assign(process.env, env);
      await runLateJoiner({
        preset: values.preset as keyof typeof presets,
        compression: compression as CodecName,
        rounds: Number(values.rounds),
        innerSteps: Number(values['inner-steps']),
        seed: Number(values.seed),
        ...(values.batch !== undefined && { batch: Number(values.batch) }),
      });
    } else await runNeuroshard(['swarm', ...swarmArguments(compression)], env);
    const names = (await readdir(folder)).filter((name) => name.endsWith('.json'));
    const nodes = await Promise.all(
      names.map(async (name) => JSON.parse(await readFile(join(folder, name), 'utf8')) as MeterReport),
    );
    const sum = (of: (node: MeterReport) => number) => nodes.reduce((total, node) => total + of(node), 0);
    return { compression, overhead: 1 - sum(tensorMs) / sum((node) => node.processMs), nodes };
  } finally {
    if (!values.explain) await rm(folder, { recursive: true, force: true });
  }
}

function swarmArguments(compression: string): string[] {
  const { preset, seed, rounds, batch } = values;
  const args = ['--nodes', '4', '--preset', preset, '--seed', seed, '--rounds', rounds];
  args.push('--inner-steps', values['inner-steps'], '--compression', compression);
  return batch === undefined ? args : [...args, '--batch', batch];
}

function tensorMs({ counters }: MeterReport): number {
  return counters.runs + counters.stepKernels;
}

function print({ compression, overhead, nodes }: Metered): void {
  const percent = (part: number, node: MeterReport) => `${((100 * part) / node.processMs).toFixed(1)}%`;
  console.log(
    `\n${values.preset}, H = ${values['inner-steps']}, ${compression}: overhead ${(100 * overhead).toFixed(1)}%`,
  );
  const header = ['node', 'steps', 'CPU ms', 'tensor', 'other compute', 'I/O thread', 'other threads'];
  const rows = nodes.map((node) => {
    const { counters, processMs, ioThreadMs } = node;
    return [
      String(node.pid),
      String(node.steps),
      processMs.toFixed(0),
      percent(tensorMs(node), node),
      percent(counters.computeThread - tensorMs(node), node),
      percent(ioThreadMs, node),
      percent(processMs - ioThreadMs - counters.computeThread, node),
    ];
  });
  console.log(table(header, rows));
  const names = [...new Set(nodes.flatMap((node) => Object.keys(node.threads)))];
  const total = (name: string) => nodes.reduce((sum, node) => sum + (node.threads[name] ?? 0), 0);
  console.log(`threads: ${names.map((name) => `${name} ${total(name).toFixed(0)} ms`).join(', ')}`);
  const turns = nodes.flatMap((node) => node.longest).sort((a, b) => b.cpuMs - a.cpuMs);
  console.log(`longest turns of ${nodes.reduce((total, node) => total + node.turns, 0)}:`);
  for (const { cpuMs, activeMs, atMs, what } of turns.slice(0, values.explain ? 15 : 8)) {
    console.log(
      `  ${cpuMs.toFixed(1)} ms CPU, ${activeMs.toFixed(0)} ms awake, at ${(atMs / 1000).toFixed(1)} s`,
    );
    for (const line of what) console.log(`      ${line}`);
  }
}
