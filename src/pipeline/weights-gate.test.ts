import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createWeightsGate } from './weights-gate.ts';

const settle = () => new Promise((resolve) => setImmediate(resolve));

test('a step waits for those inside and holds back those who come after it', async () => {
  const gate = createWeightsGate();
  const order: string[] = [];
  const leaveFirst = await gate.enter();
  const leaveSecond = await gate.enter();
  const step = gate.alone(async () => void order.push('step'));
  const late = gate.enter().then((leave) => {
    order.push('late');
    leave();
  });
  await settle();
  assert.deepEqual(order, []);
  leaveFirst();
  leaveFirst();
  await settle();
  assert.deepEqual(order, [], 'letting go twice counts once');
  leaveSecond();
  await Promise.all([step, late]);
  assert.deepEqual(order, ['step', 'late']);
});

test('steps run one after another, and one that fails does not stop the next', async () => {
  const gate = createWeightsGate();
  const order: number[] = [];
  const failing = gate.alone(async () => {
    await settle();
    order.push(1);
    throw new Error('no');
  });
  const next = gate.alone(async () => order.push(2));
  await assert.rejects(failing, /no/);
  await next;
  assert.deepEqual(order, [1, 2]);
  (await gate.enter())();
});
