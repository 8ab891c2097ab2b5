import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { NodeEvent } from '../peer/events.ts';
import { createSwarmRecorder } from './swarm-report.ts';

const nodes = [
  { name: 'node-1', nodeId: 'aa', hostile: false, stage: 0 },
  { name: 'node-2', nodeId: 'bb', hostile: false, stage: 0 },
  { name: 'hostile-1', nodeId: 'cc', hostile: true, stage: 0 },
];

function roundEvent(round: number, changes: Partial<NodeEvent & { type: 'round' }> = {}): NodeEvent {
  return {
    type: 'round',
    round,
    trainingLoss: 5,
    heldOutLoss: null,
    contributions: ['aa', 'bb'],
    rejected: [],
    stateHash: `hash-${round}`,
    bytesSent: 300,
    bytesReceived: 300,
    tokens: 1000,
    wallMs: 500,
    ...changes,
  };
}

function recorder() {
  return createSwarmRecorder({ nodes, parameters: () => 1000, innerSteps: 10 });
}

test('a report sums what honest nodes say and names nodes', () => {
  const swarm = recorder();
  swarm.record('node-1', { type: 'heldOut', round: 0, loss: 7 }, 0);
  const step = {
    type: 'step',
    round: 0,
    step: 1,
    innerSteps: 10,
    loss: 6,
    gradientNorm: 1,
    microbatches: 1,
    tokens: 100,
  } as const;
  swarm.record('node-1', { ...step, tokensPerSecond: 9 }, 1000);
  const rejected = [{ node: 'cc', code: 'norm-outlier' }];
  swarm.record('node-1', roundEvent(0, { heldOutLoss: 6, trainingLoss: 6, rejected }), 2000);
  swarm.record('node-2', roundEvent(0, { rejected }), 3000);
  swarm.record('hostile-1', roundEvent(0, { stateHash: 'lie', tokens: 1e9 }), 3000);
  assert.equal(swarm.closedByAll(), 0);
  const report = swarm.report();
  assert.equal(report.initialHeldOutLoss, 7);
  assert.equal(report.finalHeldOutLoss, 6);
  assert.equal(report.tokens, 2000);
  assert.equal(report.tokensPerSecond, 1000);
  assert.deepEqual(report.stateHashes, { 'node-1': 'hash-0', 'node-2': 'hash-0' });
  assert.equal(report.stateHashesAgree, true);
  assert.deepEqual(report.rounds[0]!.contributions, ['node-1', 'node-2']);
  assert.deepEqual(report.rounds[0]!.rejected, [{ node: 'hostile-1', code: 'norm-outlier' }]);
  assert.equal(report.rounds[0]!.trainingLoss, 5.5);
});

test('bytes are compared with fp32 ring all-reduce at every step', () => {
  const swarm = recorder();
  swarm.record('node-1', roundEvent(0), 1);
  swarm.record('node-2', roundEvent(0, { bytesSent: 500 }), 2);
  // Not closed by all: not counted.
  swarm.record('node-1', roundEvent(1, { bytesSent: 1e9 }), 3);
  const report = swarm.report();
  assert.equal(report.bytesPerNodePerInnerStep, 40);
  assert.equal(report.communicationReduction, (8 * 1000 * 2) / 3 / 40);
});

test('a difference between states is said', () => {
  const swarm = recorder();
  swarm.record('node-1', roundEvent(0), 1);
  swarm.record('node-2', roundEvent(0, { stateHash: 'other' }), 2);
  assert.equal(swarm.report().stateHashesAgree, false);
});

function blockEvent(number: number, changes: Partial<NodeEvent & { type: 'block' }> = {}): NodeEvent {
  return {
    type: 'block',
    number,
    transactions: 3,
    stateRoot: `root-${number}`,
    supply: String(100 * number),
    balance: '7',
    stake: '0',
    pending: '3',
    answered: 1,
    slashed: [],
    ...changes,
  };
}

test('the ledger as all honest nodes know it: roots, supply, balances and who was slashed, by name', () => {
  const swarm = recorder();
  assert.equal(swarm.report().stateRootsAgree, false, 'nobody has told of a block');
  for (let number = 1; number <= 3; number++) swarm.record('node-1', blockEvent(number), number);
  const guilty = { node: 'cc', reason: 'false-proof', height: 2, amount: '5', proofs: 4 };
  swarm.record('node-2', blockEvent(1), 4);
  swarm.record('node-2', blockEvent(2, { balance: '9', slashed: [guilty] }), 5);
  swarm.record('hostile-1', blockEvent(3, { stateRoot: 'lie', supply: '999' }), 6);
  const report = swarm.report();
  assert.deepEqual(report.stateRoots, { 'node-1': 'root-2', 'node-2': 'root-2' });
  assert.equal(report.stateRootsAgree, true);
  assert.equal(report.supply, '200');
  assert.deepEqual(report.balances, {
    'node-1': { balance: '7', stake: '0', pending: '3', answered: 1 },
    'node-2': { balance: '9', stake: '0', pending: '3', answered: 1 },
  });
  swarm.record('node-2', blockEvent(3, { slashed: [guilty] }), 7);
  swarm.record('node-1', blockEvent(3, { slashed: [guilty] }), 7);
  assert.deepEqual(
    swarm.report().slashed.map(({ node, reason, height }) => ({ node, reason, height })),
    [{ node: 'hostile-1', reason: 'false-proof', height: 2 }],
  );
});

test('two roots after one block are never forgotten, a node that is gone is', () => {
  const swarm = recorder();
  swarm.record('node-2', blockEvent(1), 0);
  for (let number = 1; number <= 100; number++) swarm.record('node-1', blockEvent(number), number);
  const alone = swarm.report();
  assert.deepEqual(alone.stateRoots, { 'node-1': 'root-100' });
  assert.equal(alone.stateRootsAgree, true);
  assert.equal(alone.supply, '10000');
  swarm.record('node-2', blockEvent(2, { stateRoot: 'fork' }), 101);
  for (let number = 3; number <= 100; number++) swarm.record('node-2', blockEvent(number), 102);
  const both = swarm.report();
  assert.deepEqual(both.stateRoots, { 'node-1': 'root-100', 'node-2': 'root-100' });
  assert.equal(both.stateRootsAgree, false);
});

test('refused proofs are told once, as often as the node says that saw most', () => {
  const swarm = recorder();
  const refused = { type: 'refusedProof', node: 'cc', code: 'tokens-implausible' } as const;
  for (const name of ['node-1', 'node-1', 'node-2']) swarm.record(name, refused, 1);
  swarm.record('hostile-1', { ...refused, node: 'aa' }, 1);
  swarm.record('node-2', { ...refused, code: 'proof-replayed' }, 1);
  assert.deepEqual(swarm.report().refusedProofs, [
    { node: 'hostile-1', code: 'tokens-implausible', times: 2 },
    { node: 'hostile-1', code: 'proof-replayed', times: 1 },
  ]);
});
