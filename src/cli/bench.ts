/**
 * `bench`: lists the programs of `bench/`, runs one, and keeps what it printed beside the machine and commit it ran on.
 * Measures nothing itself.
 */
import { execFileSync, spawn } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { basename, dirname, extname, join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Command } from 'commander';
import { createFolder, writeFileAtomic } from '../platform/nodejs/files.ts';
import { packageFile, programFile } from '../platform/nodejs/installation.ts';
import { describeMachine } from '../platform/nodejs/machine.ts';
import { utf8 } from '../std/bytes.ts';
import { CodedError } from '../std/outcome.ts';
import { action, type CommandResult, type CommandRun, defineCommand, toJson } from './command.ts';
import { oneOf } from './parse.ts';

interface Benchmark {
  readonly name: string;
  readonly file: string;
  /** The first sentence of the program's opening comment. */
  readonly summary: string;
}

interface BenchOptions {
  readonly out: string;
}

export function register(program: Command): void {
  defineCommand(program, {
    name: 'bench',
    summary: 'measure this machine, one hot path at a time',
    description: `Runs one benchmark, shows what it prints, and keeps it as JSON with the machine and the commit.
Without a name: lists the benchmarks. Options that are not listed here go to the benchmark itself; after -- all do.`,
    examples: [
      ['bench', 'which benchmarks there are'],
      ['bench kernels', 'AdamW, compression and the other host kernels'],
    ],
  })
    .argument('[name]', 'which benchmark')
    .argument('[options...]', 'its own options')
    .option('--out <folder>', 'where results are kept', join('runs', 'bench'))
    .allowUnknownOption()
    .action(
      action<BenchOptions>(async (options, run, name, ...args) => {
        const benchmarks = findBenchmarks(dirname(programFile('bench/any')));
        return name === undefined ? list(benchmarks) : runBenchmark(benchmarks, name, args, options, run);
      }),
    );
}

export function findBenchmarks(folder: string): Benchmark[] {
  const extension = extname(programFile('bench/any'));
  const names = readdirSync(folder).filter((name) => name.endsWith(extension) && !name.includes('.test.'));
  return names.sort().map((name) => {
    const file = join(folder, name);
    return { name: basename(name, extension), file, summary: summaryOf(readFileSync(file, 'utf8')) };
  });
}

function summaryOf(source: string): string {
  const comment = /^\/\*\*([\s\S]*?)\*\//.exec(source)?.[1] ?? '';
  const text = comment
    .replace(/^\s*\*?\s?/gm, '')
    .replace(/\s+/g, ' ')
    .trim();
  return /^.*?[.:](?= |$)/.exec(text)?.[0].replace(/:$/, '.') ?? text;
}

function list(benchmarks: readonly Benchmark[]): CommandResult {
  const width = Math.max(...benchmarks.map(({ name }) => name.length));
  return {
    json: { benchmarks: benchmarks.map(({ name, summary }) => ({ name, summary })) },
    text: benchmarks.map(({ name, summary }) => `${name.padEnd(width)}  ${summary}`).join('\n'),
  };
}

async function runBenchmark(
  benchmarks: readonly Benchmark[],
  name: string,
  args: readonly string[],
  { out }: BenchOptions,
  run: CommandRun,
): Promise<CommandResult> {
  const known = benchmarks.map((each) => each.name);
  const chosen = oneOf('benchmark', known)(name);
  const { file } = benchmarks.find((each) => each.name === chosen)!;
  const startedAt = new Date();
  const started = performance.now();
  const output = await runProgram(file, args, run);
  const record = {
    benchmark: name,
    options: args,
    startedAt: startedAt.toISOString(),
    wallSeconds: (performance.now() - started) / 1000,
    commit: currentCommit(),
    machine: await describeMachine(process.cwd()),
    output,
  };
  await createFolder(out);
  const path = join(out, `${name}-${startedAt.toISOString().replace(/[:.]/g, '-')}.json`);
  await writeFileAtomic(path, utf8(`${toJson(record)}\n`));
  return { json: { ...record, file: path }, text: `kept in ${path}` };
}

/** Shows the lines as they come; the result is all that went to stdout. */
async function runProgram(file: string, args: readonly string[], run: CommandRun): Promise<string[]> {
  const child = spawn(process.execPath, [file, ...args], { stdio: ['ignore', 'pipe', 'inherit'] });
  const lines: string[] = [];
  createInterface({ input: child.stdout }).on('line', (line) => {
    lines.push(line);
    run.screen.write(`${line}\n`);
  });
  const stop = () => child.kill('SIGTERM');
  run.signal.addEventListener('abort', stop, { once: true });
  const code = await new Promise<number | null>((resolve, reject) => {
    child.on('error', reject);
    child.on('close', resolve);
  });
  run.signal.removeEventListener('abort', stop);
  run.signal.throwIfAborted();
  if (code !== 0) throw new CodedError('benchmark-failed', `${basename(file)} ended with exit code ${code}`);
  return lines;
}

/** The commit of a checkout, with `+` when files differ from it; null where there is no git or no repository. */
function currentCommit(): string | null {
  const git = (...args: string[]) =>
    execFileSync('git', args, {
      cwd: packageFile(),
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
    }).trim();
  try {
    return git('rev-parse', '--short', 'HEAD') + (git('status', '--porcelain', '-uno') === '' ? '' : '+');
  } catch {
    return null;
  }
}
