/** For tests of commands: a dataset and a model small enough to train in a second, and the program run in memory. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import type { Command } from 'commander';
import { InterruptedError } from '../src/cli/errors.ts';
import { createProgram, runProgram } from '../src/cli/program.ts';
import type { ModelConfig } from '../src/model/config.ts';
import { buildDatasetFolder } from '../src/platform/nodejs/dataset-files.ts';

export const smallModel: ModelConfig = {
  layers: 2,
  width: 32,
  heads: 4,
  kvHeads: 2,
  headWidth: 8,
  ffn: 48,
  vocabulary: 320,
  context: 48,
  ropeTheta: 10_000,
  normEpsilon: 1e-5,
  tiedEmbeddings: false,
};

const sentences = ['the cat sat on the mat. ', 'a dog ran after the cat. ', 'then the bird sang again. '];

/** A temporary folder that goes with the test. */
export function temporaryFolder(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'neuroshard-test-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** A dataset folder of about 20,000 tokens with a vocabulary of at most 300. */
export async function smallDataset(folder: string): Promise<string> {
  const place = join(folder, 'dataset');
  await buildSmallDataset(place);
  return place;
}

export async function buildSmallDataset(place: string): Promise<void> {
  const documents = async function* () {
    for (let i = 0; i < 120; i++) yield { id: String(i), text: sentences[i % 3]!.repeat(5 + (i % 7)) };
  };
  const sources = [{ origin: 'test', licence: 'CC0-1.0', documents }];
  await buildDatasetFolder(place, { name: 'small', sources, vocabularySize: 300, shardTokens: 512 });
}

export interface Execution {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
  /** What each write to stdout was. */
  readonly pieces: readonly string[];
}

/** Runs one command line; `interruptAfter` presses Ctrl-C after so many writes to stdout. */
export async function execute(
  register: (program: Command) => void,
  argv: readonly string[],
  { interruptAfter = Number.POSITIVE_INFINITY } = {},
): Promise<Execution> {
  const pieces: string[] = [];
  let stderr = '';
  const interrupt = new AbortController();
  const surroundings = {
    stdout: {
      write: (text: string) => {
        if (pieces.push(text) >= interruptAfter) interrupt.abort(new InterruptedError('SIGINT', 130));
      },
    },
    stderr: { write: (text: string) => (stderr += text) },
    signal: interrupt.signal,
  };
  const program = createProgram('0.0.0', surroundings, [register]);
  const code = await runProgram(program, argv, surroundings);
  return { code, stdout: pieces.join(''), stderr, pieces };
}
