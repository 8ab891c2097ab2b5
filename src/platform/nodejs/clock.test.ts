import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import { sleep } from '../../std/clock.ts';
import { systemClock } from './clock.ts';

test('a timer fires once, and a cancelled one never does', async () => {
  const clock = systemClock();
  const fired: string[] = [];
  // The clock's own timers do not keep the process alive, so the test does.
  const keepAlive = setInterval(() => undefined, 1000);
  const cancel = clock.setTimer(1, () => fired.push('cancelled'));
  cancel();
  clock.setTimer(1, () => fired.push('first'));
  await sleep(clock, 30);
  clearInterval(keepAlive);
  assert.deepEqual(fired, ['first']);
});

test('a pending timer, however long, does not keep the process alive and does not fire early', () => {
  const clockUrl = new URL('./clock.ts', import.meta.url).href;
  const program = `
    const { systemClock } = await import(${JSON.stringify(clockUrl)});
    systemClock().setTimer(1e12, () => console.log('fired'));
    setTimeout(() => console.log('end'), 20);`;
  const { status, stdout } = spawnSync(process.execPath, ['--input-type=module', '-e', program], {
    encoding: 'utf8',
  });
  assert.equal(status, 0);
  assert.equal(stdout, 'end\n');
});
