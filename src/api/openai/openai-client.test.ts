/** The routes as their users reach them: OpenAI's own client, over a real port. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  APIError,
  APIUserAbortError,
  BadRequestError,
  InternalServerError,
  NotFoundError,
  RateLimitError,
} from 'openai';
import { model, serve } from '../../../test/openai-server.ts';
import { CodedError } from '../../std/outcome.ts';

async function collect<T>(stream: AsyncIterable<T>): Promise<T[]> {
  const items: T[] = [];
  for await (const item of stream) items.push(item);
  return items;
}

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 5));
}

test('models are listed and retrieved', async (t) => {
  const { client } = await serve(t, { answer: () => '' });
  const [listed, ...others] = await collect(client.models.list());
  assert.deepEqual([listed?.id, listed?.object, others.length], [model, 'model', 0]);
  assert.deepEqual(await client.models.retrieve(model), listed);
  await assert.rejects(client.models.retrieve('gpt-5'), (error) => {
    assert.ok(error instanceof NotFoundError);
    assert.deepEqual(
      [error.code, error.param, error.type],
      ['model_not_found', 'model', 'invalid_request_error'],
    );
    return true;
  });
});

test('a completion, whole', async (t) => {
  const { client, generator } = await serve(t, { answer: (prompt) => `[${prompt}] été` });
  const completion = await client.completions.create({
    model,
    prompt: 'We',
    seed: 7,
    temperature: 0,
    max_tokens: 100,
  });
  assert.match(completion.id, /^cmpl-[0-9a-f]{24}$/);
  assert.equal(completion.object, 'text_completion');
  assert.equal(completion.system_fingerprint, 'fp_0_initial');
  assert.deepEqual(completion.choices, [
    { index: 0, text: '[We] été', logprobs: null, finish_reason: 'stop' },
  ]);
  assert.deepEqual(completion.usage, { prompt_tokens: 3, completion_tokens: 11, total_tokens: 14 });
  const { prompt, temperature, topP, seed, maxTokens } = generator.requests[0]!;
  assert.deepEqual([prompt, temperature, topP, seed, maxTokens], [[256, 87, 101], 0, 1, 7, 100]);
});

test('prompts as texts and as token ids, several choices of each, echoed', async (t) => {
  const { client } = await serve(t, { answer: (prompt, { seed }) => ` after ${prompt} ${seed}` });
  const texts = await client.completions.create({
    model,
    prompt: ['a', 'b'],
    n: 2,
    seed: 5,
    max_tokens: 99,
    echo: true,
  });
  assert.deepEqual(
    texts.choices.map(({ index, text }) => [index, text]),
    [
      [0, 'a after a 5'],
      [1, 'a after a 5/1'],
      [2, 'b after b 5'],
      [3, 'b after b 5/1'],
    ],
  );
  assert.equal(texts.usage?.prompt_tokens, 4);
  const ids = { model, max_tokens: 8, echo: true, seed: 5 };
  const single = await client.completions.create({ ...ids, prompt: [104, 105] });
  assert.equal(single.choices[0]?.text, 'hi after h');
  const several = await client.completions.create({ ...ids, prompt: [[104], [105]] });
  assert.deepEqual(
    several.choices.map(({ text }) => text),
    ['h after h', 'i after i'],
  );
});

test('a completion, streamed, with usage', async (t) => {
  const { client } = await serve(t, { answer: () => 'naïve 🙂' });
  const chunks = await collect(
    await client.completions.create({
      model,
      prompt: 'x',
      max_tokens: 50,
      stream: true,
      echo: true,
      stream_options: { include_usage: true },
    }),
  );
  const usage = chunks.pop();
  assert.deepEqual([usage?.choices, usage?.usage?.completion_tokens], [[], 12]);
  assert.ok(chunks.every((chunk) => chunk.usage === null && chunk.id === usage?.id));
  assert.equal(chunks.map(({ choices }) => choices[0]!.text).join('|'), 'x|n|a|ï|v|e| |🙂|');
  assert.deepEqual(
    chunks.map(({ choices }) => choices[0]!.finish_reason),
    [...new Array(8).fill(null), 'stop'],
  );
});

test('log probabilities of a completion: of the tokens that are in the text, in step with it', async (t) => {
  const { client } = await serve(t, { answer: () => 'aéb STOP c' });
  const body = { model, prompt: 'x', max_tokens: 50, logprobs: 2, stop: ' STOP' };
  const { choices } = await client.completions.create(body);
  const whole = choices[0]!;
  assert.deepEqual([whole.text, whole.finish_reason], ['aéb', 'stop']);
  assert.deepEqual(whole.logprobs?.tokens, ['a', 'bytes:\\xc3', 'bytes:\\xa9', 'b']);
  assert.deepEqual(whole.logprobs?.text_offset, [0, 1, 1, 2]);
  assert.deepEqual(whole.logprobs?.token_logprobs, new Array(4).fill(-Math.LN2));
  assert.deepEqual(whole.logprobs?.top_logprobs?.[0], { a: -Math.LN2, b: -2 * Math.LN2 });
  const chunks = await collect(await client.completions.create({ ...body, stream: true }));
  assert.deepEqual(
    chunks.flatMap((chunk) => chunk.choices[0]!.logprobs?.tokens ?? []),
    whole.logprobs?.tokens,
  );
});

const messages = [
  { role: 'system' as const, content: 'Be brief.' },
  {
    role: 'user' as const,
    content: [
      { type: 'text' as const, text: 'Hel' },
      { type: 'text' as const, text: 'lo' },
    ],
  },
];

test('a chat answer, whole: the plain template, trimmed, ended where the user would speak', async (t) => {
  const { client, generator } = await serve(t, { answer: () => ' Good day.\nUser: and more' });
  const chat = await client.chat.completions.create({
    model,
    messages,
    stop: ['###'],
    n: 2,
    max_completion_tokens: 500,
  });
  assert.match(chat.id, /^chatcmpl-/);
  assert.equal(chat.object, 'chat.completion');
  assert.deepEqual(
    chat.choices,
    [0, 1].map((index) => ({
      index,
      message: { role: 'assistant', content: 'Good day.', refusal: null },
      logprobs: null,
      finish_reason: 'stop',
    })),
  );
  const [request] = generator.requests;
  assert.equal(generator.decode(request!.prompt), 'Be brief.\n\nUser: Hello\nAssistant:');
  assert.deepEqual([request?.stop, request?.maxTokens], [['###', '\nUser:'], 500]);
  assert.equal(chat.usage?.completion_tokens, 32, 'the tokens of the stop text were drawn, too');
});

test('a chat answer, streamed: two choices at once, log probabilities, usage', async (t) => {
  const { client } = await serve(t, { answer: (_prompt, { seed }) => ` ${seed}` });
  const stream = await client.chat.completions.create({
    model,
    messages,
    n: 2,
    seed: 12,
    logprobs: true,
    top_logprobs: 3,
    stream: true,
    stream_options: { include_usage: true },
  });
  const chunks = await collect(stream);
  assert.deepEqual(chunks.at(-1)?.usage, { prompt_tokens: 34, completion_tokens: 10, total_tokens: 44 });
  for (const [index, expected] of ['12', '12/1'].entries()) {
    const own = chunks.flatMap(({ choices }) => choices.filter((choice) => choice.index === index));
    assert.equal(own[0]?.delta.role, 'assistant');
    assert.equal(own.map(({ delta }) => delta.content ?? '').join(''), expected);
    assert.equal(own.at(-1)?.finish_reason, 'stop');
    const tokens = own.flatMap(({ logprobs }) => logprobs?.content ?? []);
    assert.equal(tokens.map(({ token }) => token).join(''), ` ${expected}`);
    assert.deepEqual(tokens[1]?.bytes, ['1'.charCodeAt(0)]);
    assert.equal(tokens[1]?.top_logprobs.length, 3);
  }
  const places = chunks.flatMap(({ choices }) => choices.map(({ index }) => index));
  assert.ok(places.indexOf(1) < places.lastIndexOf(0), 'choices are interleaved');
});

test('tokens run out: the answer ends with length, at the context at the latest', async (t) => {
  const { client } = await serve(t, { answer: () => 'abc', isEndless: true, contextMax: 64 });
  const short = await client.completions.create({ model, prompt: 'x' });
  assert.deepEqual([short.choices[0]?.text.length, short.choices[0]?.finish_reason], [16, 'length']);
  const chat = await client.chat.completions.create({ model, messages });
  assert.deepEqual([chat.usage?.total_tokens, chat.choices[0]?.finish_reason], [64, 'length']);
});

test('what is wrong with a request is said in the shape that clients expect', async (t) => {
  const { client, generator } = await serve(t, { answer: () => 'x', contextMax: 100 });
  const chat = { model, messages };
  const text = { model, prompt: 'x' };
  const cases: [
    path: 'chat/completions' | 'completions',
    body: object,
    code: string,
    param: string | null,
  ][] = [
    ['completions', { prompt: 'x' }, 'missing_required_parameter', 'model'],
    ['completions', { model }, 'missing_required_parameter', 'prompt'],
    ['completions', { ...text, temperature: 'hot' }, 'invalid_type', 'temperature'],
    ['completions', { ...text, temperature: 2.5 }, 'invalid_value', 'temperature'],
    ['completions', { ...text, top_p: -1 }, 'invalid_value', 'top_p'],
    ['completions', { ...text, n: 9 }, 'invalid_value', 'n'],
    ['completions', { ...text, n: 1.5 }, 'invalid_type', 'n'],
    ['completions', { ...text, max_tokens: 0 }, 'invalid_value', 'max_tokens'],
    ['completions', { ...text, stop: ['1', '2', '3', '4', '5'] }, 'invalid_type', 'stop'],
    ['completions', { ...text, stop: '' }, 'invalid_value', 'stop'],
    ['completions', { ...text, logprobs: 6 }, 'invalid_value', 'logprobs'],
    ['completions', { ...text, logprobs: 1, echo: true }, 'unsupported_parameter', 'logprobs'],
    ['completions', { ...text, prompt: [] }, 'invalid_type', 'prompt'],
    ['completions', { ...text, prompt: [1, 'x'] }, 'invalid_type', 'prompt'],
    ['completions', { ...text, prompt: [[1], []] }, 'invalid_value', 'prompt[1]'],
    ['completions', { ...text, prompt: [257] }, 'invalid_token', 'prompt'],
    ['completions', { ...text, prompt: [-1] }, 'invalid_value', 'prompt[0]'],
    ['completions', { ...text, prompt: 'x'.repeat(99) }, 'context_length_exceeded', 'prompt'],
    ['completions', { ...text, prompt: 'x'.repeat(99_999) }, 'context_length_exceeded', 'prompt'],
    ['completions', { ...text, prompt: new Array(100).fill(1) }, 'context_length_exceeded', 'prompt'],
    ['completions', { ...text, prompt: new Array(33).fill('x') }, 'too_many_choices', 'n'],
    ['completions', { ...text, suffix: 'y' }, 'unsupported_parameter', 'suffix'],
    ['completions', { ...text, best_of: 2 }, 'unsupported_parameter', 'best_of'],
    ['completions', { ...text, logit_bias: { 1: 5 } }, 'unsupported_parameter', 'logit_bias'],
    ['completions', { ...text, tempratur: 1 }, 'unknown_parameter', 'tempratur'],
    ['completions', { ...text, stream_options: { include_usage: true } }, 'invalid_value', 'stream_options'],
    [
      'completions',
      JSON.parse(`{"__proto__": {"model": "${model}"}, "prompt": "x"}`),
      'missing_required_parameter',
      'model',
    ],
    ['chat/completions', { model }, 'missing_required_parameter', 'messages'],
    ['chat/completions', { model, messages: [] }, 'invalid_value', 'messages'],
    [
      'chat/completions',
      { model, messages: [{ role: 'tool', content: 'x' }] },
      'invalid_value',
      'messages[0].role',
    ],
    [
      'chat/completions',
      { model, messages: [{ role: 'user' }] },
      'missing_required_parameter',
      'messages[0].content',
    ],
    [
      'chat/completions',
      { model, messages: [{ role: 'user', content: [{ type: 'image_url', image_url: { url: 'x' } }] }] },
      'invalid_type',
      'messages[0].content',
    ],
    [
      'chat/completions',
      { model, messages: [{ role: 'assistant', content: 'x', tool_calls: [{}] }] },
      'invalid_value',
      'messages[0].tool_calls',
    ],
    ['chat/completions', { ...chat, tools: [{ type: 'function' }] }, 'unsupported_parameter', 'tools'],
    [
      'chat/completions',
      { ...chat, response_format: { type: 'json_object' } },
      'unsupported_parameter',
      'response_format',
    ],
    ['chat/completions', { ...chat, presence_penalty: 1 }, 'unsupported_parameter', 'presence_penalty'],
    ['chat/completions', { ...chat, top_logprobs: 1 }, 'invalid_value', 'top_logprobs'],
    [
      'chat/completions',
      { model, messages: [{ role: 'user', content: 'x'.repeat(90) }] },
      'context_length_exceeded',
      'messages',
    ],
  ];
  for (const [path, body, code, param] of cases) {
    const label = `${path} ${JSON.stringify(body).slice(0, 120)}`;
    await assert.rejects(client.post(`/${path}`, { body }), (error) => {
      assert.ok(error instanceof BadRequestError, `${label}: ${error}`);
      assert.deepEqual([error.code, error.param, error.type], [code, param, 'invalid_request_error'], label);
      assert.ok(error.message.length < 300, label);
      return true;
    });
  }
  assert.equal(generator.running(), 0);
  const harmless = {
    ...chat,
    tools: [],
    logit_bias: {},
    response_format: { type: 'text' as const },
    stop: null,
    user: 'me',
    max_tokens: null,
    temperature: null,
  };
  assert.equal((await client.chat.completions.create(harmless)).choices[0]?.message.content, 'x');
  await assert.rejects(client.completions.create({ model: 'gpt-5', prompt: 'x' }), NotFoundError);
});

test('broken JSON, other types, large bodies and unknown addresses have their status', async (t) => {
  const { url } = await serve(t, { answer: () => 'x' });
  const post = async (body: string, type = 'application/json') => {
    const response = await fetch(`${url}/v1/completions`, {
      method: 'POST',
      body,
      headers: { 'Content-Type': type },
    });
    return [response.status, (await response.json()).error.code];
  };
  assert.deepEqual(await post('{"model": '), [400, 'invalid_json']);
  assert.deepEqual(await post('[1]'), [400, 'invalid_type']);
  assert.deepEqual(await post('{}', 'text/plain'), [415, 'unsupported_media_type']);
  assert.deepEqual(await post(' '.repeat(1024 * 1024 + 1)), [413, 'request_too_large']);
  const unknown = await fetch(`${url}/v1/embeddings`, { method: 'POST' });
  assert.deepEqual([unknown.status, (await unknown.json()).error.code], [404, 'unknown_url']);
  assert.equal(unknown.headers.get('access-control-allow-origin'), null);
});

test('a client that leaves a stream ends its generation, and its place is free', async (t) => {
  const script = { answer: () => 'abc', isEndless: true, contextMax: 1e9, beforeToken: tick };
  const { client, generator, metrics } = await serve(t, script, { generationsMax: 2 });
  const stream = await client.chat.completions.create({ model, messages, n: 2, stream: true });
  let chunks = 0;
  for await (const _chunk of stream) if (++chunks === 10) break;
  await until(() => generator.running() === 0);
  const stop = new AbortController();
  const whole = client.completions.create({ model, prompt: 'x', max_tokens: 1e9 }, { signal: stop.signal });
  await until(() => generator.running() === 1);
  stop.abort();
  await assert.rejects(whole, APIUserAbortError);
  await until(() => generator.running() === 0);
  assert.match(await metrics(), /^neuroshard_text_generations_ended_total\{reason="disconnected"\} 3$/m);
  assert.match(await metrics(), /^neuroshard_text_generations 0$/m);
});

test('more at once than there are places is refused, to be tried again', async (t) => {
  const open = Promise.withResolvers<void>();
  const { client, generator, metrics } = await serve(
    t,
    { answer: () => 'x', beforeToken: () => open.promise },
    { generationsMax: 3 },
  );
  const first = client.completions.create({ model, prompt: 'x', n: 2 });
  await until(() => generator.running() === 2);
  await assert.rejects(client.completions.create({ model, prompt: 'x', n: 2 }), (error) => {
    assert.ok(error instanceof RateLimitError);
    assert.equal(error.headers?.get('retry-after'), '1');
    assert.equal(error.type, 'rate_limit_error');
    return true;
  });
  const second = client.completions.create({ model, prompt: 'x' });
  await until(() => generator.running() === 3);
  open.resolve();
  assert.equal((await first).choices.length + (await second).choices.length, 3);
  const text = await metrics();
  assert.match(text, /^neuroshard_text_requests_total\{route="completions",status="200"\} 2$/m);
  assert.match(text, /^neuroshard_text_requests_total\{route="completions",status="429"\} 1$/m);
  assert.match(text, /^neuroshard_text_tokens_total\{kind="completion"\} 6$/m);
  assert.match(text, /^neuroshard_text_tokens_total\{kind="prompt"\} 4$/m);
});

test('a generator that fails: before the first token by status, later inside the stream', async (t) => {
  let failure: Error = new CodedError('no-route', 'stage 1 has no replica that answers');
  const { client, generator } = await serve(t, {
    answer: () => 'abc',
    beforeToken: (drawn) => {
      if (drawn === 2 || failure.message.startsWith('stage')) throw failure;
    },
  });
  for (const stream of [false, true]) {
    await assert.rejects(client.completions.create({ model, prompt: 'x', stream }), (error) => {
      assert.ok(error instanceof InternalServerError);
      assert.deepEqual([error.status, error.code, error.headers?.get('retry-after')], [503, 'no_route', '1']);
      return true;
    });
  }
  failure = new CodedError('round-gone', 'the answer lasted longer than its weights are kept');
  let text = '';
  const stream = await client.completions.create({ model, prompt: 'x', stream: true });
  const read = async () => {
    for await (const chunk of stream) text += chunk.choices[0]!.text;
  };
  await assert.rejects(read(), (error) => {
    assert.ok(error instanceof APIError);
    return error.code === 'round_gone';
  });
  assert.equal(text, 'ab');
  await until(() => generator.running() === 0);
});

async function tick(): Promise<void> {
  await new Promise(setImmediate);
}
