/** `chat` against the real API on a real port, the model scripted: one answer, a pipe, a conversation, what goes wrong. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { PassThrough } from 'node:stream';
import { text as readText } from 'node:stream/consumers';
import { type TestContext, test } from 'node:test';
import { testAccounts } from '../../test/key-accounts.ts';
import { type Script, scriptedGenerator } from '../../test/scripted-generator.ts';
import { createOpenAiRoutes } from '../api/openai/routes.ts';
import { systemClock } from '../platform/nodejs/clock.ts';
import { startHttpServer } from '../platform/nodejs/http-server.ts';
import { packageFile } from '../platform/nodejs/installation.ts';
import { systemRandom } from '../platform/nodejs/random.ts';
import { CodedError } from '../std/outcome.ts';
import { register } from './chat.ts';
import type { Message } from './chat-client.ts';
import { converse, printable, type SessionOptions } from './chat-session.ts';
import { InterruptedError } from './errors.ts';
import { createProgram, runProgram } from './program.ts';

async function serve(t: TestContext, script: Script, apiKeys: readonly string[] = []) {
  const generator = scriptedGenerator(script);
  const { app } = createOpenAiRoutes({
    generator,
    clock: systemClock(),
    random: systemRandom(),
    fingerprint: () => 'fp_1_abc',
    keys: await testAccounts(apiKeys),
  });
  const strip = (request: Request) => new Request(request.url.replace('/v1/', '/'), request);
  const server = await startHttpServer({ fetch: (request) => app.fetch(strip(request)), port: 0 });
  t.after(() => server.close());
  return { generator, url: server.url };
}

async function chat(...argv: string[]) {
  let stdout = '';
  let stderr = '';
  const stop = new AbortController();
  const surroundings = {
    stdout: {
      write: (text: string) => {
        stdout += text;
        if (text.includes('!')) stop.abort(new InterruptedError('SIGINT', 130));
      },
    },
    stderr: { write: (text: string) => (stderr += text) },
    signal: stop.signal,
  };
  const program = createProgram('0.0.0', surroundings, [register]);
  const code = await runProgram(program, ['chat', ...argv], surroundings);
  return { code, stdout, stderr };
}

test('one answer to a prompt, as text and as one document', async (t) => {
  const { generator, url } = await serve(t, { answer: () => ' A tax.' });
  const plain = await chat('What is a levy?', '--node', `${url}/v1/`, '--system', 'Be brief.');
  assert.deepEqual(plain, { code: 0, stdout: 'A tax.\n', stderr: '' });
  assert.equal(
    generator.decode(generator.requests[0]!.prompt),
    'Be brief.\n\nUser: What is a levy?\nAssistant:',
  );
  const json = await chat(
    'Why?',
    '--node',
    url,
    '--json',
    '--seed',
    '3',
    '--max-tokens',
    '4',
    '--temperature',
    '0',
  );
  assert.equal(json.code, 0);
  assert.deepEqual(JSON.parse(json.stdout), {
    node: url,
    model: 'scripted',
    prompt: 'Why?',
    text: 'A t',
    finishReason: 'length',
    usage: { promptTokens: 22, completionTokens: 4 },
    fingerprint: 'fp_1_abc',
  });
  const { seed, temperature, maxTokens } = generator.requests[1]!;
  assert.deepEqual([seed, temperature, maxTokens], [3, 0, 4]);
});

test('a prompt from a pipe, in a process of its own', async (t) => {
  const { url } = await serve(t, {
    answer: (prompt) => (prompt.includes('piped in') ? ' Heard.\n' : ' Nothing.'),
  });
  const child = spawn(process.execPath, [packageFile('bin', 'neuroshard.js'), 'chat', '--node', url]);
  child.stdin.end('piped in\n');
  const [stdout, stderr, [code]] = await Promise.all([
    readText(child.stdout),
    readText(child.stderr),
    once(child, 'close'),
  ]);
  assert.deepEqual([code, stdout, stderr], [0, 'Heard.\n', '']);
});

test('what goes wrong is one line and a code', async (t) => {
  const { url } = await serve(t, { answer: () => 'x', contextMax: 32 }, ['a-key-of-some-length']);
  const other = await startHttpServer({ fetch: () => Response.json({ hello: 1 }), port: 0 });
  t.after(() => other.close());
  const key = ['--api-key', 'a-key-of-some-length'];
  const cases: [argv: string[], exit: number, code: string, line: RegExp][] = [
    [['hi', '--node', 'localhost:8000'], 2, 'bad-address', /--node is an address like/],
    [['hi', '--node', 'http://127.0.0.1:1'], 1, 'no-node', /no node answers at http:\/\/127\.0\.0\.1:1/],
    [['hi', '--node', other.url], 1, 'not-a-node', /is not a node that answers prompts/],
    [['hi', '--node', url], 1, 'unauthorized', /wants another API key/],
    [['hi', '--node', url, ...key, '--model', 'gpt-5'], 1, 'unknown-model', /'gpt-5' does not exist here/],
    [['x'.repeat(40), '--node', url, ...key], 1, 'context-full', /context is 32 tokens/],
    [[' ', '--node', url, ...key], 2, 'missing-prompt', /no prompt/],
    [['hi', '--temperature', '3'], 2, 'out-of-range', /--temperature is at most 2/],
  ];
  for (const [argv, exit, code, line] of cases) {
    const { code: exitCode, stdout, stderr } = await chat(...argv, '--json');
    assert.equal(exitCode, exit, stderr);
    assert.equal(JSON.parse(stdout).error.code, code);
    assert.match(stderr, line);
    assert.equal(stderr.split('\n').length, 2, stderr);
  }
});

test('an answer that breaks off says so after what came', async (t) => {
  const failing = (drawn: number) => {
    if (drawn === 3) throw new CodedError('no-route', 'stage 1 has no replica');
  };
  const { url } = await serve(t, { answer: () => 'abcdef', beforeToken: failing });
  const { code, stdout, stderr } = await chat('hi', '--node', url);
  assert.deepEqual([code, stdout], [1, 'abc\n']);
  assert.match(stderr, /^neuroshard: the answer of .+ broke off: stage 1 has no replica\n$/);
});

test('Ctrl-C ends one answer with the exit code that shells expect', async (t) => {
  const { generator, url } = await serve(t, {
    answer: () => 'ab!',
    isEndless: true,
    contextMax: 1e9,
    beforeToken: () => new Promise(setImmediate),
  });
  const { code, stdout } = await chat('hi', '--node', url);
  assert.equal(code, 130);
  assert.match(stdout, /^ab!/);
  while (generator.running() > 0) await new Promise((resolve) => setTimeout(resolve, 5));
});

test('help, with examples', async () => {
  const { code, stdout } = await chat('--help');
  assert.equal(code, 0);
  assert.match(stdout, /--node <url>[\s\S]*Examples:\n {2}neuroshard chat\n/);
});

/** A conversation with both ends of the terminal in hand. */
function terminal(answer: SessionOptions['answer'], system?: string) {
  const input = new PassThrough();
  const output = new PassThrough();
  let shown = '';
  output.on('data', (bytes: Buffer) => (shown += bytes.toString()));
  const stop = new AbortController();
  const done = converse({ input, output, system, answer, signal: stop.signal });
  const until = async (pattern: RegExp) => {
    while (!pattern.test(shown)) await new Promise(setImmediate);
    shown = '';
  };
  return { type: (text: string) => input.write(text), until, done, stop };
}

test('a conversation remembers, forgets when asked, and ends', async () => {
  const asked: string[][] = [];
  const { type, until, done } = terminal(async function* (messages) {
    asked.push(messages.map(({ role, content }) => `${role}: ${content}`));
    yield 'answer ';
    yield String(asked.length);
  }, 'Be brief.');
  type('one\r');
  await until(/answer 1\n/);
  type('two\r');
  await until(/answer 2\n/);
  type('/help\r');
  await until(/\/reset {2}forget/);
  type('/reset\r');
  type('three\r');
  await until(/answer 3\n/);
  type('/quit\r');
  await done;
  const system = 'system: Be brief.';
  assert.deepEqual(asked, [
    [system, 'user: one'],
    [system, 'user: one', 'assistant: answer 1', 'user: two'],
    [system, 'user: three'],
  ]);
});

test('Ctrl-C ends the answer, which is remembered as far as it came; twice, it ends the conversation', async () => {
  const asked: (readonly Message[])[] = [];
  const { type, until, done } = terminal(async function* (messages, signal) {
    asked.push(messages);
    yield 'endless';
    await once(signal, 'abort');
    signal.throwIfAborted();
  });
  type('one\r');
  await until(/endless/);
  type('\x03');
  await until(/\(stopped\)\n/);
  type('two\r');
  await until(/endless/);
  type('\x03');
  await until(/\(stopped\)\n/);
  type('\x03');
  await until(/Ctrl-C again to leave/);
  type('\x03');
  await done;
  assert.deepEqual(
    asked[1]?.map(({ content }) => content),
    ['one', 'endless', 'two'],
  );
});

test('what no longer fits is forgotten, oldest first; a failure is shown and not remembered', async () => {
  const lengths: number[] = [];
  const { type, until, done, stop } = terminal(async function* (messages) {
    lengths.push(messages.length);
    if (messages.length > 3) throw new CodedError('context-full', 'full');
    if (messages.at(-1)?.content === 'fail') throw new CodedError('busy', 'busy now');
    yield 'fine';
  });
  type('one\r');
  await until(/fine\n/);
  type('fail\r');
  await until(/\(busy now\)\n/);
  type('two\r');
  await until(/fine\n/);
  type('three\r');
  await until(/oldest words no longer fit[\s\S]*fine\n/);
  stop.abort(new InterruptedError('SIGTERM', 143));
  await assert.rejects(done, InterruptedError);
  assert.deepEqual(lengths, [1, 3, 3, 5, 3]);
});

test('a stranger cannot steer the terminal', () => {
  assert.equal(printable('a\x1b[2Jb\r\n\tc\u009b'), 'a\ufffd[2Jb\ufffd\n\tc\ufffd');
});
