/** `node status` against a real API on loopback, and against what is no node. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { runCommand } from '../../test/cli-run.ts';
import { sampleLedgerStatus as ledger, samplePaymentStatus as payments } from '../../test/ledger-status.ts';
import { createApi } from '../api/app.ts';
import { keepStatus } from '../api/status.ts';
import { systemClock } from '../platform/nodejs/clock.ts';
import { startHttpServer } from '../platform/nodejs/http-server.ts';
import { register } from './node-status.ts';

const pipeline = {
  replicas: [3],
  queue: { decode: 0, backward: 1, forward: 2, background: 0 },
  queueRefused: 4,
  utilisation: 0.97,
  starving: false,
  failovers: 5,
  lostMicrobatches: 6,
  convictedDrivers: 0,
};

function execute(...argv: string[]) {
  return runCommand(register, ['node', 'status', ...argv]);
}

test('the status of a running node is shown, and as one document with --json', async (t) => {
  const keeper = keepStatus({
    pid: 42,
    version: '0.1.0',
    nodeId: 'ab'.repeat(32),
    network: { name: 'test', id: 'cd'.repeat(32) },
    parameters: 1_310_848,
    stage: { index: 0, count: 1, firstLayer: 0, endLayer: 4, roles: ['driver', 'validator'] },
    aggregator: { name: 'default', toleratedHostile: 1 },
    engine: { id: 'native-cpu', provider: 'cpu' },
    startedAtMs: 0,
  });
  const api = createApi({
    status: () => keeper.status(61_000, pipeline, ledger, payments),
    subscribe: () => () => undefined,
    stop: () => undefined,
    token: 'sixteen-characters',
    clock: systemClock(),
  });
  const server = await startHttpServer({ fetch: (request) => api.fetch(request), port: 0 });
  t.after(() => server.close());
  const text = await execute('--port', String(server.port));
  assert.equal(text.code, 0);
  assert.match(text.stdout, /^node {10}abababababababab \(process 42, up 1 min 01 s\)$/m);
  assert.match(text.stdout, /^members {7}0 of 4 connected, 1 may fail$/m);
  assert.match(
    text.stdout,
    /^ledger {8}block 12, epoch 1, state root 5f5f5f5f5f5f5f5f; 2 waiting; this node votes$/m,
  );
  assert.match(
    text.stdout,
    /^balance {7}1\.5 NEURO, 30 staked, 0\.25 pending, 2 challenges answered; supply 7$/m,
  );
  assert.match(
    text.stdout,
    /^inference {5}0\.002 NEURO for 1,000 tokens; 4 earned and 1 unclaimed, 0\.6 paid and 0\.05 due since the start$/m,
  );
  const json = await execute('--port', String(server.port), '--json');
  assert.deepEqual(
    JSON.parse(json.stdout),
    JSON.parse(JSON.stringify(keeper.status(61_000, pipeline, ledger, payments))),
  );
});

test('nobody there, or somebody else, is one clear error', async (t) => {
  const other = await startHttpServer({ fetch: () => new Response('hello'), port: 0 });
  const { port } = other;
  const wrong = await execute('--port', String(port), '--json');
  assert.equal(wrong.code, 1);
  assert.equal(JSON.parse(wrong.stdout).error.code, 'not-a-node');
  await other.close();
  const none = await execute('--port', String(port), '--json');
  assert.equal(none.code, 1);
  assert.equal(JSON.parse(none.stdout).error.code, 'no-node');
  t.assert.equal(none.stderr.split('\n').length, 2);
});
