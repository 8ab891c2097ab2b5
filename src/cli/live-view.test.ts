/** The live view from made-up events of honest and hostile nodes, as plain lines and as a table. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { NodeEvent } from '../peer/events.ts';
import { openLiveScreen, redrawText } from './live-screen.ts';
import { applyEvent, applyExit, createLiveView } from './live-view.ts';
import { renderLiveView, sparkline } from './live-view-render.ts';

// biome-ignore lint/suspicious/noControlCharactersInRegex: colour codes begin with one.
const colorCode = /\x1b\[\d+m/g;

const idOf = (name: string) => name.padEnd(64, '0');

function started(name: string): NodeEvent {
  const stage = { index: 0, count: 1, firstLayer: 0, endLayer: 4 };
  const rest = { pid: 42, addresses: [], apiPort: null, parameters: 1_310_848, round: 0, step: 0 };
  return { type: 'started', nodeId: idOf(name), stage, ...rest };
}

function step(round: number, number: number, loss: number): NodeEvent {
  const rest = { innerSteps: 20, gradientNorm: 1, microbatches: 1, tokens: 1024, tokensPerSecond: 1234.5 };
  return { type: 'step', round, step: number, loss, ...rest };
}

function closed(round: number, heldOutLoss: number | null, stateHash = 'abcdef0123'): NodeEvent {
  const traffic = { bytesSent: 1_500_000, bytesReceived: 1_500_000, tokens: 20_480, wallMs: 9000 };
  const contributions = [idOf('a'), idOf('b')];
  const rejected = [{ node: idOf('evil'), code: 'norm-too-large' }];
  return {
    type: 'round',
    round,
    trainingLoss: 6,
    heldOutLoss,
    contributions,
    rejected,
    stateHash,
    ...traffic,
  };
}

function swarm() {
  const view = createLiveView('NeuroShard demo', [
    { name: 'a', role: 'honest' },
    { name: 'b', role: 'honest' },
    { name: 'evil', role: 'hostile' },
  ]);
  for (const { name } of view.nodes) applyEvent(view, name, started(name));
  return view;
}

test('plain lines tell each thing once: the first step, each round, agreement, what happened to nodes', () => {
  const view = swarm();
  assert.deepEqual(applyEvent(view, 'a', { type: 'heldOut', round: 0, loss: 7.625 }), [
    'held-out loss before training: 7.625',
  ]);
  assert.deepEqual(applyEvent(view, 'b', { type: 'heldOut', round: 0, loss: 7.625 }), []);
  assert.deepEqual(applyEvent(view, 'a', step(0, 1, 7.6)), [
    'a: round 0 step 1/20, loss 7.600, 1235 tokens/s',
  ]);
  assert.deepEqual(applyEvent(view, 'a', step(0, 2, 7.5)), []);
  assert.deepEqual(applyEvent(view, 'a', step(0, 20, 7.1)), [
    'a: round 0 step 20/20, loss 7.100, 1235 tokens/s',
  ]);
  assert.deepEqual(applyEvent(view, 'b', closed(0, null)), [
    'round 0: 2 accepted, 1 rejected (evil norm-too-large)',
  ]);
  assert.deepEqual(applyEvent(view, 'evil', closed(0, 0.1, 'lies')), []);
  const last = ['round 0: same state abcdef on 2 nodes', 'held-out loss after round 0: 6.500'];
  assert.deepEqual(applyEvent(view, 'a', closed(0, 6.5)), last);
  assert.deepEqual([...view.heldOutLosses.values()], [7.625, 6.5]);
  const sample: NodeEvent = { type: 'sample', round: 1, prompt: 'The people', text: ' of\x1b[2J the\nUnion' };
  assert.deepEqual(applyEvent(view, 'a', sample), ['sample after round 0: The people of [2J the Union']);
  assert.deepEqual(applyEvent(view, 'b', sample), []);
  assert.deepEqual(applyExit(view, 'b', 'ended by SIGKILL'), ['b: ended by SIGKILL']);
});

test('a node whose state differs is named', () => {
  const view = swarm();
  applyEvent(view, 'a', closed(0, 6.5, 'abcdef'));
  assert.deepEqual(applyEvent(view, 'b', closed(0, null, 'fedcba')), [
    'round 0: STATES DIFFER: b not abcdef',
  ]);
});

test('agreement is told when the running honest nodes have reported, without those that ended', () => {
  const view = swarm();
  applyExit(view, 'b', 'ended by SIGKILL');
  assert.equal(applyEvent(view, 'a', closed(0, null)).at(-1), 'round 0: same state abcdef on 1 node');
});

test('the table shows every node, the rounds and the curve', () => {
  const view = swarm();
  applyEvent(view, 'a', { type: 'heldOut', round: 0, loss: 7.625 });
  applyEvent(view, 'a', step(2, 7, 5.4321));
  applyEvent(view, 'a', { type: 'peers', connected: 2, members: 3, membersConnected: 3 });
  for (const name of ['a', 'b']) applyEvent(view, name, closed(1, 5.5));
  applyExit(view, 'b', 'ended by SIGKILL');
  const lines = renderLiveView(view, {
    width: 100,
    height: 40,
    color: false,
    status: '2 min 05 s',
    footer: 'Ctrl-C stops',
  });
  assert.deepEqual(lines, [
    'NeuroShard demo, 1.31M parameters, 2 min 05 s',
    '',
    '  node  role     round  step  tokens/s   loss  held-out  peers  NEURO  ',
    '  a     honest       2  7/20      1235  5.432     5.500      2      -  ',
    '  b     honest       0   0/-         -      -     5.500      -      -  stopped',
    '  evil  hostile      0   0/-         -      -         -      -      -  ',
    '',
    '  held-out loss  7.625 █▁ 5.500 (-27.9%)',
    '',
    '  round  held-out  accepted  rejected                  sent  state',
    '      1     5.500         2  1: evil norm-too-large  3.0 MB  same state abcdef on 2 nodes',
    '',
    'b: ended by SIGKILL',
    '',
    'Ctrl-C stops',
  ]);
});

test('of a model cut into stages the table shows who holds which, and the size of the whole', () => {
  const names = ['a', 'b'];
  const view = createLiveView(
    'demo',
    names.map((name) => ({ name, role: 'honest' })),
  );
  for (const [index, name] of names.entries()) {
    const stage = { index, count: 2, firstLayer: 2 * index, endLayer: 2 * index + 2 };
    applyEvent(view, name, { ...started(name), stage } as NodeEvent);
  }
  // A stage that serves two Drivers makes more steps than one of them, and drives none itself.
  const line = applyEvent(view, 'b', { ...step(0, 30, 7.5), tokensPerSecond: 0 } as NodeEvent);
  assert.deepEqual(line, ['b: round 0 step 30, loss 7.500']);
  const lines = renderLiveView(view, { width: 100, height: 40, color: false });
  assert.equal(lines[0], 'demo, 2.62M parameters');
  assert.deepEqual(lines.slice(2, 5), [
    '  node  role    stage  round  step  tokens/s   loss  held-out  peers  NEURO  ',
    '  a     honest      1      0   0/-         -      -         -      -      -  ',
    '  b     honest      2      0    30         -  7.500         -      -      -  ',
  ]);
});

test('nothing is wider or longer than the terminal, with colour or without', () => {
  const view = swarm();
  for (let round = 0; round < 100; round++) applyEvent(view, 'a', closed(round, 7 - round / 50));
  applyEvent(view, 'a', { type: 'sample', round: 9, prompt: 'x', text: 'y'.repeat(500) });
  for (const [width, height] of [
    [20, 10],
    [79, 23],
    [200, 60],
  ] as const) {
    const plain = renderLiveView(view, { width, height, color: false });
    assert.ok(plain.length <= height);
    for (const line of plain) assert.ok([...line].length <= width, line);
    const colored = renderLiveView(view, { width, height, color: true });
    assert.deepEqual(
      colored.map((line) => line.replace(colorCode, '')),
      plain,
    );
  }
});

test('a sparkline spans its values and is thinned to its width', () => {
  assert.equal(sparkline([8, 4.5, 1], 10), '█▅▁');
  assert.equal(sparkline([3, 3, 3], 10), '▁▁▁');
  assert.equal(sparkline([1, Number.NaN, 2], 10), '▁?█');
  assert.equal(sparkline([5], 10), '▁');
  const long = Array.from({ length: 1000 }, (_, index) => 1000 - index);
  assert.equal(sparkline(long, 8), '█▇▆▅▄▃▂▁');
});

test('a redraw goes up over what it drew, clears the rest of each line and everything below', () => {
  assert.equal(redrawText(['a', 'b'], 0), '\x1b[?2026ha\x1b[K\nb\x1b[K\n\x1b[J\x1b[?2026l');
  assert.equal(redrawText(['c'], 2), '\x1b[?2026h\x1b[2A\rc\x1b[K\n\x1b[J\x1b[?2026l');
});

test('a screen that is no terminal gets plain lines and no escape codes; a terminal gets the table at the end', () => {
  const nodes = [{ name: 'a', role: 'honest' }] as const;
  for (const isTTY of [false, true]) {
    const written: string[] = [];
    const stream = { isTTY, columns: 60, rows: 20, write: (text: string) => written.push(text) };
    const screen = openLiveScreen(stream, { title: 'demo', nodes, color: false });
    screen.event('a', started('a'));
    screen.close();
    if (isTTY) assert.match(written.join(''), /demo, 1\.31M parameters, [\s\S]*a {5}honest/);
    else assert.deepEqual(written, ['a: started as process 42, 1310848 parameters\n']);
  }
});

test('states are compared within a stage, and contributions of all stages count', () => {
  const view = createLiveView('t', [
    { name: 'a', role: 'honest' },
    { name: 'b', role: 'honest' },
    { name: 'c', role: 'honest' },
  ]);
  const start = (name: string, index: number) =>
    applyEvent(view, name, {
      type: 'started',
      nodeId: name.repeat(64),
      pid: 1,
      addresses: [],
      apiPort: null,
      parameters: 10,
      stage: { index, count: 2, firstLayer: 0, endLayer: 1 },
      round: 0,
      step: 0,
    } as unknown as NodeEvent);
  for (const [name, stage] of [
    ['a', 0],
    ['b', 1],
    ['c', 1],
  ] as const)
    start(name, stage);
  const close = (name: string, stateHash: string, contributions: string[]) => {
    const event = closed(0, null, stateHash);
    return applyEvent(view, name, { ...event, contributions } as NodeEvent);
  };
  close('a', 'aaaaaa00', ['a'.repeat(64)]);
  close('b', 'bbbbbb00', ['b'.repeat(64), 'c'.repeat(64)]);
  const lines = close('c', 'bbbbbb00', ['b'.repeat(64), 'c'.repeat(64)]);
  assert.deepEqual(lines, ['round 0: same state in each stage: aaaaaa on 1 node, bbbbbb on 2 nodes']);
  assert.deepEqual(view.rounds[0]!.accepted, ['a', 'b', 'c']);
  const differing = close('c', 'cccccc00', []);
  assert.match(differing.at(-1)!, /^round 0: STATES DIFFER: c not bbbbbb$/);
});

function block(number: number, stateRoot: string, slashed: string[] = []): NodeEvent {
  const amounts = { supply: '4000000', balance: '1500000', stake: '0', pending: '250000', answered: 1 };
  return {
    type: 'block',
    number,
    transactions: 2,
    stateRoot,
    ...amounts,
    slashed: slashed.map((node) => {
      const taken = { amount: '7', proofs: 3 };
      return { node, reason: 'false-proof', height: number, ...taken };
    }),
  };
}

test('the ledger: what each node has earned, one root on all, and who was slashed, told once', () => {
  const view = swarm();
  assert.deepEqual(applyEvent(view, 'a', block(10, 'abcdef0123')), []);
  const line = 'block 10: same state root abcdef on 2 nodes, supply 4 NEURO';
  assert.deepEqual(applyEvent(view, 'b', block(10, 'abcdef0123')), [line]);
  const slashed = [idOf('evil')];
  assert.deepEqual(applyEvent(view, 'a', block(11, 'bbb', slashed)), [
    'evil slashed in block 11: false-proof',
  ]);
  assert.deepEqual(applyEvent(view, 'b', block(11, 'bbb', slashed)), []);
  assert.deepEqual(applyEvent(view, 'evil', block(11, 'lie')), []);
  const lines = renderLiveView(view, { width: 100, height: 40, color: false });
  assert.ok(
    lines.includes('  ledger  block 11: same state root bbb on 2 nodes, supply 4 NEURO'),
    lines.join('\n'),
  );
  assert.match(lines.find((each) => each.includes('  a '))!, /1\.75 {2}$/);
  const audit = { type: 'audit', prover: idOf('evil'), round: 3, interval: 0, detail: '' } as const;
  assert.deepEqual(applyEvent(view, 'a', { ...audit, code: 'valid' }), []);
  assert.deepEqual(applyEvent(view, 'a', { ...audit, code: 'no-work' }), [
    'a: audit of evil, round 3: no-work',
  ]);
});

test('two roots after one block are told at once and stay', () => {
  const view = swarm();
  applyEvent(view, 'a', block(3, 'abcdef01'));
  const difference = 'STATE ROOTS DIFFER after block 3: a abcdef, b fedcba';
  assert.deepEqual(applyEvent(view, 'b', block(3, 'fedcba10')), [difference]);
  for (const name of ['a', 'b']) assert.deepEqual(applyEvent(view, name, block(50, 'same')), []);
  const lines = renderLiveView(view, { width: 100, height: 40, color: false });
  assert.ok(lines.includes(`  ledger  ${difference}`));
});
