/** API keys as OpenAI's own client meets them: wrong ones, a credit that ends, and a gateway that cannot pay. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { APIError, AuthenticationError, RateLimitError } from 'openai';
import { gatewayKey, gatewayNetwork } from '../../../test/key-accounts.ts';
import { model, nodeToken, serve } from '../../../test/openai-server.ts';
import { verifyDigest } from '../../identity/keys.ts';
import { fromHex } from '../../std/bytes.ts';
import { CodedError } from '../../std/outcome.ts';
import { keyReceiptDigest } from '../key-accounts.ts';

const messages = [{ role: 'user' as const, content: 'And a tariff?' }];

test('keys, where they are configured', async (t) => {
  const { clientWith, url } = await serve(
    t,
    { answer: () => 'x' },
    { apiKeys: ['first-of-two-keys', 'second-of-two-keys'] },
  );
  assert.equal((await clientWith('second-of-two-keys').models.retrieve(model)).id, model);
  await assert.rejects(clientWith('wrong').models.retrieve(model), (error) => {
    assert.ok(error instanceof AuthenticationError);
    return error.code === 'invalid_api_key';
  });
  assert.equal((await fetch(`${url}/v1/models`)).status, 401);
  assert.equal((await fetch(`${url}/api/status`)).status, 200);
});

test('a key pays for what it uses, until its credit is used up', async (t) => {
  const key = { key: 'a-key-with-a-credit', name: 'alice', tokensMax: 120, neuroMax: 1_000_000n };
  const { clientWith, generator, url } = await serve(
    t,
    { answer: () => 'abcdef' },
    { apiKeys: [key, 'no-limit-on-this'] },
  );
  const client = clientWith(key.key);
  const first = await client.completions.create({ model, prompt: 'x'.repeat(20), max_tokens: 10 });
  assert.deepEqual([first.usage?.prompt_tokens, first.usage?.completion_tokens], [21, 7]);
  // 92 are left: a longer answer than the rest is cut, and what is left then is too little for the prompt.
  const stream = await client.chat.completions.create({ model, messages, stream: true });
  let text = '';
  for await (const chunk of stream) text += chunk.choices[0]?.delta.content ?? '';
  assert.ok(
    text.length <= 6 && generator.requests.at(-1)!.maxTokens <= 92 - generator.requests.at(-1)!.prompt.length,
  );
  const used = generator.requests.at(-1)!.prompt.length + 7;
  await assert.rejects(
    client.completions.create({ model, prompt: 'x'.repeat(92), max_tokens: 1 }),
    (error) => {
      assert.ok(error instanceof RateLimitError);
      assert.deepEqual(
        [error.status, error.code, error.type],
        [429, 'insufficient_quota', 'insufficient_quota'],
      );
      assert.equal(error.headers.get('x-should-retry'), 'false');
      return true;
    },
  );
  assert.equal(
    (await clientWith('no-limit-on-this').completions.create({ model, prompt: 'x' })).object,
    'text_completion',
  );

  const ask = (path: string, token = nodeToken) =>
    fetch(`${url}/api/keys${path}`, { headers: { Authorization: `Bearer ${token}` } });
  assert.equal((await ask('', key.key)).status, 401);
  const { keys } = await (await ask('')).json();
  assert.equal(keys.length, 2);
  const [{ id, name, requests, tokensLeft, spent }] = keys;
  assert.deepEqual([name, requests, tokensLeft], ['alice', 2, 120 - 28 - used]);
  assert.equal(spent, String(2 * (28 + used)));
  assert.ok(!JSON.stringify(keys).includes(key.key));
  const page = await (await ask(`/${id}/receipts?limit=1`)).json();
  assert.deepEqual([page.receipts.length, page.receipts[0].number, page.next], [1, 2, '2']);
  const { receipts, next } = await (await ask(`/${id}/receipts?before=2`)).json();
  assert.equal(next, null);
  const { signature, ...receipt } = receipts[0];
  assert.deepEqual([receipt.request, receipt.amount, receipt.promptTokens], [first.id, '56', 21]);
  assert.ok(
    verifyDigest(keyReceiptDigest(gatewayNetwork, id, receipt), fromHex(signature), gatewayKey.publicKey),
  );
  assert.equal((await ask('/0000/receipts')).status, 404);
  assert.equal((await ask(`/${id}/receipts?limit=x`)).status, 400);
});

test('a gateway that cannot pay says so', async (t) => {
  const failing = () => {
    throw new CodedError('payment-required', 'payment-required: 0 NEURO');
  };
  const { client } = await serve(t, { answer: () => 'x', beforeToken: failing });
  await assert.rejects(client.completions.create({ model, prompt: 'x' }), (error) => {
    assert.ok(error instanceof APIError);
    return error.status === 402 && error.code === 'payment_required';
  });
});
