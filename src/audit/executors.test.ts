/** One re-executor at a time, of the stage that a duty is about. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createStageExecutors } from './executors.ts';
import type { FeedbackRequest, ReExecution, ReExecutor } from './re-execute.ts';

function world() {
  const log: string[] = [];
  let open = 0;
  const executors = createStageExecutors(async (stage) => {
    open += 1;
    log.push(`open ${stage}`);
    if (stage === 9) {
      open -= 1;
      throw new Error('no such stage');
    }
    return {
      execute: async () => {
        assert.equal(open, 1, 'never two at a time');
        await new Promise(setImmediate);
        log.push(`execute ${stage}`);
      },
      nextFeedback: async () => void log.push(`feedback ${stage}`),
      close: async () => {
        open -= 1;
        log.push(`close ${stage}`);
      },
    } as unknown as ReExecutor;
  });
  const execute = (stage: number) => executors.execute({ stage } as ReExecution);
  return { log, executors, execute };
}

test('the executor of a stage is kept for it, and closed for another', async () => {
  const { log, executors, execute } = world();
  assert.deepEqual(log, [], 'none before it is needed');
  await execute(1);
  await executors.nextFeedback({ stage: 1 } as FeedbackRequest);
  await execute(0);
  await executors.close();
  assert.deepEqual(log, ['open 1', 'execute 1', 'feedback 1', 'close 1', 'open 0', 'execute 0', 'close 0']);
});

test('calls at once run one after another', async () => {
  const { log, execute } = world();
  await Promise.all([execute(0), execute(1), execute(0)]);
  assert.deepEqual(
    log.filter((line) => line.startsWith('execute')),
    ['execute 0', 'execute 1', 'execute 0'],
  );
});

test('one that cannot be made fails its call, and no other', async () => {
  const { log, execute } = world();
  await execute(0);
  await assert.rejects(execute(9), /no such stage/);
  await execute(0);
  assert.equal(log.at(-1), 'execute 0');
});
