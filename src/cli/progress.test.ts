import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createProgress, formatBytes, formatCount, formatDuration } from './progress.ts';

function recorder(terminal: { columns: number } | undefined) {
  const written: string[] = [];
  return {
    written,
    write: (text: string) => written.push(text),
    isTTY: terminal !== undefined,
    columns: terminal?.columns,
  };
}

test('on a terminal a bar redraws itself in place, at most ten times a second, and never wraps', () => {
  let nowMs = 0;
  const stream = recorder({ columns: 60 });
  const progress = createProgress(stream, { label: 'hashing', total: 1000, unit: 'MB', nowMs: () => nowMs });
  for (let done = 0; done <= 1000; done += 10) {
    progress.update(done);
    nowMs += 20;
  }
  progress.end();
  progress.end();
  assert.equal(stream.written.length, 22);
  for (const text of stream.written) {
    assert.ok(text.startsWith('\r'));
    assert.ok(text.trim().replace('\x1b[K', '').length < 60);
  }
  assert.ok(
    stream.written[10]?.includes('hashing [############------------] 50% (500/1000 MB'),
    stream.written[10],
  );
  assert.ok(stream.written.at(-1)?.endsWith('\n'));
});

test('elsewhere there are plain lines, seldom, and always the last', () => {
  let nowMs = 0;
  const stream = recorder(undefined);
  const progress = createProgress(stream, { label: 'hashing', total: 100, nowMs: () => nowMs });
  for (let done = 0; done < 100; done += 1) {
    progress.update(done);
    nowMs += 100;
  }
  progress.update(100);
  progress.end('written');
  assert.deepEqual(stream.written, [
    'hashing 0% (0/100)\n',
    'hashing 50% (50/100, 5.0 s left)\n',
    'hashing 100% (100/100)\n',
    'hashing 100% (100/100, 10 s) written\n',
  ]);
});

test('numbers are short and say their unit', () => {
  assert.deepEqual([0, 999, 9999, 12_345, 1_310_848, 7.8e9].map(formatCount), [
    '0',
    '999',
    '9999',
    '12.3k',
    '1.31M',
    '7.80G',
  ]);
  assert.deepEqual([400, 12_000, 185_000, 7_620_000].map(formatDuration), [
    '0.4 s',
    '12 s',
    '3 min 05 s',
    '2 h 07 min',
  ]);
  assert.deepEqual([512, 1400, 1.5e6, 250e6, 4e12].map(formatBytes), [
    '512 B',
    '1.4 kB',
    '1.5 MB',
    '250 MB',
    '4.0 TB',
  ]);
});
