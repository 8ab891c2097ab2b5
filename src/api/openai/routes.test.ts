/** The routes without a server, in virtual time: what a hostile client could hold on to. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { scriptedGenerator } from '../../../test/scripted-generator.ts';
import { virtualClock } from '../../../test/virtual-clock.ts';
import { utf8 } from '../../std/bytes.ts';
import { sha256 } from '../../std/hash.ts';
import { seededRandom } from '../../std/random.ts';
import { stallMsMax } from './limits.ts';
import { createOpenAiRoutes } from './routes.ts';

function setUp(generationsMax: number) {
  const generator = scriptedGenerator({ answer: () => 'abc', isEndless: true });
  const { clock, advance } = virtualClock();
  const { app, counts } = createOpenAiRoutes({
    generator,
    clock,
    random: seededRandom(sha256(utf8('test'))),
    fingerprint: () => 'fp',
    generationsMax,
  });
  const post = (body: object, signal?: AbortSignal) =>
    app.request('/completions', {
      method: 'POST',
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify({ model: 'scripted', prompt: 'x', ...body }),
      ...(signal && { signal }),
    });
  return { app, generator, advance, counts, post };
}

test('streams that nobody reads: bounded places, nothing made ahead, all free again after the deadline', async () => {
  const { generator, advance, counts, post } = setUp(4);
  const stream = { stream: true, max_tokens: 4000, n: 2 };
  const answers = [await post(stream), await post(stream), await post(stream), await post({})];
  assert.deepEqual(
    answers.map(({ status }) => status),
    [200, 200, 429, 429],
  );
  await advance(stallMsMax - 1);
  assert.deepEqual([generator.running(), counts().generations, counts().streams], [4, 4, 2]);
  assert.ok(generator.drawn() <= 8, `${generator.drawn()} drawn for two readers who took nothing`);
  await advance(1);
  assert.deepEqual([generator.running(), counts().generations, counts().streams], [0, 0, 0]);
  assert.equal(counts().ended.stalled, 4);
  const text = await answers[0]!.text();
  assert.match(text, /reader_too_slow/);
  assert.doesNotMatch(text, /DONE/);
  assert.equal((await post({ n: 4 })).status, 200);
});

test('a client that leaves before the first token ends its generation', async () => {
  const { generator, counts, post } = setUp(4);
  const stop = new AbortController();
  for (const stream of [false, true]) {
    const answer = post({ max_tokens: 4000, stream }, stop.signal);
    stop.abort();
    assert.notEqual((await answer).status, 200);
  }
  while (generator.running() > 0) await new Promise(setImmediate);
  assert.equal(counts().ended.disconnected, 2);
  assert.equal(counts().generations, 0);
});

test('the same seed gives the same choices, and without one each request differs', async () => {
  const { generator, post } = setUp(4);
  for (const body of [{ seed: 3, n: 2 }, { seed: 3, n: 2 }, {}, {}]) await post(body);
  const seeds = generator.requests.map(({ seed }) => seed);
  assert.deepEqual(seeds.slice(0, 4), [3, '3/1', 3, '3/1']);
  assert.notEqual(seeds[4], seeds[5]);
});

test('without keys it answers as localhost alone', async () => {
  const { app } = setUp(1);
  const statusOf = async (host: string) => (await app.request(`http://${host}/models`)).status;
  for (const host of ['localhost:8000', '127.0.0.1:8000', '[::1]:8000'])
    assert.equal(await statusOf(host), 200);
  for (const host of ['evil.example', '127.0.0.1.evil.example', '192.168.1.2:8000'])
    assert.equal(await statusOf(host), 403);
});

test('no body is a failure of ours, and none leaves anything running', async () => {
  const { app, generator, counts } = setUp(16);
  const odd = fc.oneof(
    fc.jsonValue({ maxDepth: 3 }),
    fc.constantFrom(-1, 0, 1, 1.5, 2 ** 60, '', 'x', true, [], {}),
  );
  const names = [
    ...[
      'temperature',
      'top_p',
      'top_k',
      'n',
      'seed',
      'stop',
      'stream',
      'stream_options',
      'max_tokens',
      'logprobs',
    ],
    ...[
      'echo',
      'best_of',
      'tools',
      'response_format',
      'logit_bias',
      'top_logprobs',
      'max_completion_tokens',
      'user',
    ],
  ];
  const oddly = (given: object) =>
    fc
      .tuple(
        fc.constant(given),
        fc.dictionary(fc.constantFrom(...names, ...Object.keys(given)), odd, { maxKeys: 3 }),
      )
      .map(([plain, changed]) => ({ max_tokens: 3, ...plain, ...changed }));
  const messages = [{ role: 'user', content: 'x' }];
  const request = fc.oneof(
    fc.tuple(fc.constant('/completions'), oddly({ model: 'scripted', prompt: 'x' })),
    fc.tuple(fc.constant('/chat/completions'), oddly({ model: 'scripted', messages })),
    fc.tuple(fc.constantFrom('/completions', '/chat/completions'), fc.jsonValue()),
  );
  const statuses = new Set<number>();
  await fc.assert(
    fc.asyncProperty(request, async ([path, body]) => {
      const headers = { 'Content-Type': 'application/json' };
      const response = await app.request(path, { method: 'POST', headers, body: JSON.stringify(body) });
      statuses.add(response.status);
      if (![200, 400, 404].includes(response.status)) assert.fail(await response.text());
      await response.body?.cancel();
      for (let turn = 0; counts().generations > 0 && turn < 100; turn++) await new Promise(setImmediate);
      assert.deepEqual([counts().generations, generator.running()], [0, 0]);
    }),
    { numRuns: 300 },
  );
  assert.ok(statuses.has(200) && statuses.has(400), 'both kinds were tried');
});
