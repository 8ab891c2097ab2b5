/** The options of `node start`, as far as they are only options: what a node does with them is tested where it does it. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Command } from 'commander';
import { checkpointOf, formatCheckpoint } from '../consensus/checkpoint.ts';
import { UsageError } from './errors.ts';
import { type NodeStartOptions, nodeStartCommand, runOptionsOf } from './node.ts';

function runOptions(...argv: string[]) {
  const program = new Command().exitOverride();
  const command = nodeStartCommand(program).action(() => undefined);
  program.parse(['start', ...argv], { from: 'user' });
  return runOptionsOf(command.opts<NodeStartOptions>(), () => undefined);
}

test('addresses: what is announced is apart from what is listened on, and may be several', () => {
  const plain = runOptions();
  assert.deepEqual([plain.listen, plain.announce, plain.bootstrap], [['/ip4/0.0.0.0/tcp/4001'], [], []]);
  const [home, forwarded, tunnel] = [
    '/ip4/10.0.0.2/tcp/1',
    '/ip4/203.0.113.5/tcp/2',
    '/dns4/a.example/tcp/3',
  ];
  const all = ['--listen', home, '--announce', forwarded, '--announce', tunnel];
  const { listen, announce } = runOptions(...all);
  assert.deepEqual([listen, announce], [[home], [forwarded, tunnel]]);
});

test('a checkpoint is one line, taken as it was given out', () => {
  const checkpoint = checkpointOf({ epoch: 7, root: new Uint8Array(32).fill(5), members: [] });
  const line = formatCheckpoint(checkpoint);
  assert.deepEqual(runOptions('--checkpoint', ` ${line}\n`).checkpoint, checkpoint);
  assert.equal(runOptions().checkpoint, undefined);
  for (const wrong of ['', '7', line.slice(1), line.toUpperCase(), `${line}0`, `-${line}`])
    assert.throws(() => runOptions('--checkpoint', wrong), UsageError, wrong);
});
