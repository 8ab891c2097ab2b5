import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { programFile } from '../platform/nodejs/installation.ts';
import { findBenchmarks } from './bench.ts';

test('benchmarks are the programs of a folder, with the first sentence of their comment', (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'neuroshard-bench-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  writeFileSync(
    join(folder, 'slow.ts'),
    '/**\n * Times what is slow, twice\n * over. Then more.\n */\nexport {};\n',
  );
  writeFileSync(join(folder, 'fast.ts'), '/** What is fast:\n * run it. */\n');
  writeFileSync(join(folder, 'fast.test.ts'), '');
  writeFileSync(join(folder, 'README.md'), '');
  assert.deepEqual(
    findBenchmarks(folder).map(({ name, summary }) => [name, summary]),
    [
      ['fast', 'What is fast.'],
      ['slow', 'Times what is slow, twice over.'],
    ],
  );
});

test('every benchmark of the repository says what it measures', () => {
  const folder = dirname(programFile('bench/any'));
  const benchmarks = findBenchmarks(folder);
  assert.ok(benchmarks.length > 0);
  for (const { name, file, summary } of benchmarks) {
    assert.ok(readFileSync(file, 'utf8').length > 0);
    assert.ok(summary.length > 10, `${name} has no opening comment`);
  }
});
