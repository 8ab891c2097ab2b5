/** The conventions of every command, on a made-up one: streams, exit codes, errors, help. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Command } from 'commander';
import { CodedError } from '../std/outcome.ts';
import { action, commandGroup, defineCommand } from './command.ts';
import { InterruptedError } from './errors.ts';
import { integer, oneOf } from './parse.ts';
import { createProgram, runProgram } from './program.ts';

interface GreetOptions {
  readonly preset: string;
  readonly times: number;
}

function register(program: Command): void {
  const group = commandGroup(program, 'made', 'made-up commands');
  defineCommand(group, {
    name: 'up',
    summary: 'greets',
    description: 'Greets somebody, several times.',
    examples: [['made up Ada --times 2', 'greets Ada twice']],
  })
    .argument('<name>', 'whom')
    .option('--preset <name>', 'size', oneOf('preset', ['tiny', 'small']), 'tiny')
    .option('--times <n>', 'how often', integer('--times', { min: 1, max: 3 }), 1)
    .action(
      action<GreetOptions>(async ({ preset, times }, run, name) => {
        run.log(`greeting ${name}`);
        if (name === 'nobody') throw new CodedError('nobody-there', 'there is nobody to greet');
        if (name === 'bug') throw new TypeError('of ours');
        if (name === 'wait') throw run.signal.reason;
        return {
          json: { name, preset, times, big: 2n ** 60n },
          text: `hello ${name}`,
          failed: name === 'sad',
        };
      }),
    );
}

async function execute(line: string) {
  let stdout = '';
  let stderr = '';
  const stop = new AbortController();
  stop.abort(new InterruptedError('SIGINT', 130));
  const surroundings = {
    stdout: { write: (text: string) => (stdout += text) },
    stderr: { write: (text: string) => (stderr += text) },
    signal: stop.signal,
  };
  const program = createProgram('1.2.3', surroundings, [register]);
  const code = await runProgram(program, line.split(' ').filter(Boolean), surroundings);
  return { code, stdout, stderr };
}

test('a result goes to stdout, logs to stderr', async () => {
  assert.deepEqual(await execute('made up Ada'), {
    code: 0,
    stdout: 'hello Ada\n',
    stderr: 'greeting Ada\n',
  });
});

test('with --json stdout holds exactly one document', async () => {
  const { code, stdout } = await execute('made up Ada --times 2 --json');
  assert.equal(code, 0);
  assert.deepEqual(JSON.parse(stdout), { name: 'Ada', preset: 'tiny', times: 2, big: '1152921504606846976' });
});

test('a coded failure is one line and exit code 1, and a document with --json', async () => {
  const expected = { code: 1, stdout: '', stderr: 'greeting nobody\nneuroshard: there is nobody to greet\n' };
  assert.deepEqual(await execute('made up nobody'), expected);
  const { code, stdout } = await execute('made up nobody --json');
  assert.equal(code, 1);
  assert.deepEqual(JSON.parse(stdout), {
    error: { code: 'nobody-there', message: 'there is nobody to greet' },
  });
});

test('a result that is a failure is shown like any result, with exit code 1', async () => {
  assert.deepEqual(await execute('made up sad'), {
    code: 1,
    stdout: 'hello sad\n',
    stderr: 'greeting sad\n',
  });
});

test('an interrupted command exits as shells expect', async () => {
  assert.equal((await execute('made up wait')).code, 130);
});

test('a bug says so and shows where', async () => {
  const { code, stderr } = await execute('made up bug');
  assert.equal(code, 1);
  assert.match(stderr, /^neuroshard: bug: TypeError: of ours$/m);
  assert.match(stderr, /program\.test\.ts/);
});

test('a wrong command line is one line, points at the right help, and exits with 2', async () => {
  const cases: [line: string, code: string, stderr: RegExp][] = [
    ['mde up', 'unknown-command', /unknown command 'mde' \(Did you mean made\?\) \(see neuroshard --help\)/],
    [
      'mde --help',
      'unknown-command',
      /unknown command 'mde' \(Did you mean made\?\) \(see neuroshard --help\)/,
    ],
    [
      'made pu',
      'unknown-command',
      /unknown command 'pu' \(Did you mean up\?\) \(see neuroshard made --help\)/,
    ],
    [
      'made up Ada --tims 2',
      'unknown-option',
      /unknown option '--tims' \(Did you mean --times\?\) \(see neuroshard made up --help\)/,
    ],
    ['made up', 'missing-argument', /missing required argument 'name'/],
    ['made up Ada Bob', 'excess-arguments', /too many arguments/],
    ['made up Ada --preset tinny', 'unknown-preset', /unknown preset 'tinny'; did you mean 'tiny'\?/],
    ['made up Ada --times 4', 'out-of-range', /--times is at most 3, not 4/],
  ];
  for (const [line, code, stderr] of cases) {
    const plain = await execute(line);
    assert.equal(plain.code, 2, line);
    assert.equal(plain.stdout, '', line);
    assert.match(plain.stderr, stderr);
    assert.match(plain.stderr, /^neuroshard: [^\n]+\n$/, line);
    const json = await execute(`${line} --json`);
    assert.equal(json.code, 2, line);
    assert.equal(JSON.parse(json.stdout).error.code, code, line);
  }
});

test('help, with examples, and the version go to stdout with exit code 0', async () => {
  for (const line of ['', '--help']) {
    const { code, stdout } = await execute(line);
    assert.equal(code, 0);
    assert.match(stdout, /neuroshard demo/);
    assert.match(stdout, /made-up commands/);
  }
  const help = await execute('made up --help');
  assert.equal(help.code, 0);
  assert.match(
    help.stdout,
    /Greets somebody, several times\.[\s\S]*--json[\s\S]*Examples:\n {2}neuroshard made up Ada --times 2/,
  );
  assert.deepEqual(await execute('--version'), { code: 0, stdout: '1.2.3\n', stderr: '' });
  assert.equal((await execute('made')).code, 2);
});
