/** The HTTP face without a server: requests in, responses out, in virtual time. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { sampleLedgerStatus as ledger, samplePaymentStatus as payments } from '../../test/ledger-status.ts';
import type { EventSink, NodeEvent } from '../peer/events.ts';
import { createApi } from './app.ts';
import { readersMax } from './event-stream.ts';
import { keepStatus } from './status.ts';

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

const token = 'correct-horse-battery-staple';

const facts = {
  pid: 42,
  version: '0.1.0',
  nodeId: 'ab'.repeat(32),
  network: { name: 'a "quoted" \\ name', id: 'cd'.repeat(32) },
  parameters: 1_310_848,
  stage: { index: 0, count: 1, firstLayer: 0, endLayer: 4, roles: ['driver', 'validator'] as const },
  aggregator: { name: 'default', toleratedHostile: 1 },
  engine: { id: 'native-cpu', provider: 'cpu' },
  startedAtMs: 1_000,
};

const step: NodeEvent = {
  type: 'step',
  round: 2,
  step: 7,
  innerSteps: 20,
  loss: 5.5,
  gradientNorm: 1,
  microbatches: 1,
  tokens: 1024,
  tokensPerSecond: 2000,
};

const round: NodeEvent = {
  type: 'round',
  round: 2,
  trainingLoss: 5.6,
  heldOutLoss: 5.4,
  contributions: ['a', 'b', 'c'],
  rejected: [
    { node: 'd', code: 'norm-too-large' },
    { node: 'e', code: 'norm-too-large' },
  ],
  stateHash: 'ef'.repeat(32),
  bytesSent: 1000,
  bytesReceived: 2000,
  tokens: 20_480,
  wallMs: 9000,
};

function setUp() {
  const sinks = new Set<EventSink>();
  const timers: (() => void)[] = [];
  const keeper = keepStatus(facts);
  let stops = 0;
  const app = createApi({
    status: () => keeper.status(61_000, pipeline, ledger, payments),
    subscribe: (sink) => {
      sinks.add(sink);
      return () => void sinks.delete(sink);
    },
    stop: () => void (stops += 1),
    token,
    clock: {
      nowMs: () => 61_000,
      setTimer: (_delayMs, callback) => {
        timers.push(callback);
        return () => undefined;
      },
    },
  });
  const emit = (event: NodeEvent) => {
    for (const sink of sinks) sink(event);
  };
  return { app, keeper, sinks, emit, timers, stops: () => stops };
}

test('the status is folded from events', async () => {
  const { app, keeper } = setUp();
  keeper.apply(step);
  keeper.apply({ type: 'peers', connected: 3, members: 4, membersConnected: 4 });
  const before = await (await app.request('/api/status')).json();
  assert.deepEqual([before.round, before.step, before.loss, before.stateHash], [2, 7, 5.5, null]);
  assert.deepEqual(before.members, { total: 4, connected: 4, toleratedFailures: 1 });
  assert.deepEqual(before.ledger, ledger);
  assert.deepEqual(before.payments, payments);
  keeper.apply(round);
  const response = await app.request('/api/status');
  assert.equal(response.status, 200);
  assert.equal(response.headers.get('cache-control'), 'no-store');
  const after = await response.json();
  assert.deepEqual([after.round, after.step, after.heldOutLoss, after.uptimeMs], [3, 0, 5.4, 60_000]);
  assert.deepEqual(after.totals, {
    steps: 1,
    tokens: 1024,
    rounds: 1,
    bytesSent: 1000,
    bytesReceived: 2000,
    contributionsAccepted: 3,
    resyncs: 0,
    checkpoints: 0,
    warnings: 0,
    contributionsRejected: { 'norm-too-large': 2 },
  });
});

test('a map that peers can make grow stays bounded', () => {
  const { keeper } = setUp();
  for (let code = 0; code < 1000; code++)
    keeper.apply({ ...round, rejected: [{ node: 'x', code: `code-${code}` }] });
  const rejected = keeper.status(0, pipeline, ledger, payments).totals.contributionsRejected;
  assert.ok(Object.keys(rejected).length <= 65);
  assert.equal(rejected.other, 1000 - 64);
});

test('metrics are Prometheus text, and what is not known is left out', async () => {
  const { app, keeper } = setUp();
  const before = await app.request('/metrics');
  assert.equal(before.headers.get('content-type'), 'text/plain; version=0.0.4; charset=utf-8');
  assert.doesNotMatch(await before.text(), /neuroshard_loss/);
  keeper.apply(step);
  keeper.apply(round);
  const text = await (await app.request('/metrics')).text();
  assert.match(text, /^# HELP neuroshard_loss .+\n# TYPE neuroshard_loss gauge\nneuroshard_loss 5\.5$/m);
  assert.match(text, /^neuroshard_contributions_rejected_total\{code="norm-too-large"\} 2$/m);
  assert.match(text, /network="a \\"quoted\\" \\\\ name"/);
  const { queue, ...counted } = pipeline;
  assert.match(text, /^neuroshard_stage_info\{stage="0",stages="1",roles="driver validator"\} 1$/m);
  assert.match(text, /^neuroshard_tolerated_failures 1$/m);
  assert.match(text, /^neuroshard_ledger_block 12$/m);
  assert.match(text, /^neuroshard_account_micro_neuro\{part="pending"\} 250000$/m);
  assert.match(text, /^neuroshard_stage_replicas\{stage="0"\} 3$/m);
  for (const [name, depth] of Object.entries(queue))
    assert.ok(text.includes(`\nneuroshard_queue_depth{class="${name}"} ${depth}\n`), name);
  assert.ok(text.includes(`\nneuroshard_utilisation_ratio ${counted.utilisation}\n`));
  assert.ok(text.includes(`\nneuroshard_failovers_total ${counted.failovers}\n`));
  assert.ok(text.includes(`\nneuroshard_microbatches_lost_total ${counted.lostMicrobatches}\n`));
  assert.ok(text.includes('\nneuroshard_pipeline_starving 0\n'));
  assert.ok(text.includes('\nneuroshard_convicted_drivers 0\n'));
  for (const line of text.trimEnd().split('\n')) {
    assert.match(line, /^(# (HELP|TYPE) neuroshard_\w+ .+|neuroshard_\w+(\{.+\})? -?[\d.e+-]+)$/);
  }
});

test('stopping needs the token', async () => {
  const { app, stops } = setUp();
  for (const authorization of [undefined, 'Bearer wrong', `Basic ${token}`, `Bearer ${token}x`, 'Bearer ']) {
    const headers = authorization === undefined ? {} : { Authorization: authorization };
    const response = await app.request('/api/stop', { method: 'POST', headers });
    assert.equal(response.status, 401);
    assert.equal((await response.json()).error.code, 'unauthorized');
  }
  assert.equal(stops(), 0);
  const response = await app.request('/api/stop', {
    method: 'POST',
    headers: { Authorization: `Bearer ${token}` },
  });
  assert.equal(response.status, 202);
  assert.equal(stops(), 1);
});

test('unknown routes, large bodies and failures of ours are JSON errors', async () => {
  const { app } = setUp();
  for (const [path, method] of [
    ['/api/nothing', 'GET'],
    ['/api/stop', 'GET'],
    ['/api/status', 'DELETE'],
  ] as const) {
    const response = await app.request(path, { method });
    assert.equal(response.status, 404);
    assert.deepEqual(await response.json(), {
      error: { code: 'not-found', message: `no ${method} ${path} here` },
    });
  }
  const large = await app.request('/api/stop', { method: 'POST', body: new Uint8Array(65 * 1024) });
  assert.equal(large.status, 413);
  const broken = createApi({
    status: () => {
      throw new Error('broken');
    },
    subscribe: () => () => undefined,
    stop: () => undefined,
    token,
    clock: { nowMs: () => 0, setTimer: () => () => undefined },
  });
  assert.deepEqual(await (await broken.request('/api/status')).json(), {
    error: { code: 'bug', message: 'broken' },
  });
});

async function openEvents(app: ReturnType<typeof createApi>) {
  const response = await app.request('/api/events');
  assert.equal(response.headers.get('content-type'), 'text/event-stream');
  const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
  assert.deepEqual(await reader.read(), { done: false, value: ': connected\n\n' });
  return reader;
}

test('events arrive as they happen, with a heartbeat when it is quiet, until the reader leaves', async () => {
  const { app, emit, timers, sinks } = setUp();
  const reader = await openEvents(app);
  emit(step);
  emit(round);
  assert.deepEqual(await reader.read(), {
    done: false,
    value: `event: step\ndata: ${JSON.stringify(step)}\n\n`,
  });
  assert.deepEqual(await reader.read(), {
    done: false,
    value: `event: round\ndata: ${JSON.stringify(round)}\n\n`,
  });
  while (timers.length < 2) await new Promise(setImmediate);
  timers.at(-1)!();
  assert.deepEqual(await reader.read(), { done: false, value: ': still here\n\n' });
  await reader.cancel();
  while (sinks.size > 0) await new Promise(setImmediate);
});

test('a reader that does not keep up is dropped; the node never waits', async () => {
  const { app, emit, sinks } = setUp();
  await openEvents(app);
  for (let index = 0; index < 100; index++) emit(step);
  while (sinks.size > 0) {
    await new Promise(setImmediate);
    emit(step);
  }
  const reader = await openEvents(app);
  emit(step);
  assert.equal((await reader.read()).done, false);
});

test('readers are counted, refused beyond the bound, and let in again when one leaves', async () => {
  const { app } = setUp();
  const readers = [];
  for (let index = 0; index < readersMax; index++) readers.push(await openEvents(app));
  assert.equal((await app.request('/api/events')).status, 503);
  await readers[0]!.cancel();
  let status = 503;
  while (status === 503) {
    await new Promise(setImmediate);
    status = (await app.request('/api/events')).status;
  }
  assert.equal(status, 200);
});
