import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { runCommand } from '../../test/cli-run.ts';
import { testAccounts } from '../../test/key-accounts.ts';
import { createKeyRoutes } from '../api/money.ts';
import { startHttpServer } from '../platform/nodejs/http-server.ts';
import { apiKeysOf } from './api-keys.ts';
import { register } from './gateway-keys.ts';

const folder = mkdtempSync(join(tmpdir(), 'neuroshard-gateway-'));
after(() => rmSync(folder, { recursive: true, force: true }));

function execute(...argv: string[]) {
  return runCommand(register, ['api-keys', ...argv]);
}

test('a new key is a line for the file of keys', async () => {
  const made = await execute('new', '--name', 'alice', '--tokens', '5000', '--neuro', '2.5');
  assert.equal(made.code, 0);
  const file = join(folder, 'keys');
  writeFileSync(file, made.stdout);
  const [key] = apiKeysOf({ host: '0.0.0.0', apiKeyFile: file });
  assert.deepEqual([key!.name, key!.tokensMax, key!.neuroMax], ['alice', 5_000, 2_500_000n]);
  assert.notEqual((await execute('new')).stdout, (await execute('new')).stdout);
  for (const wrong of [
    ['--tokens', '0'],
    ['--neuro', 'x'],
    ['--neuro', '0'],
    ['--name', 'a b'],
  ])
    assert.equal((await execute('new', ...wrong)).code, 2, `${wrong}`);
});

test('what keys used is shown by the running node, to who has its token', async (t) => {
  const accounts = await testAccounts([{ key: 'sixteen-characters', name: 'bob', tokensMax: 100 }]);
  const token = 'the-token-of-the-node';
  const app = createKeyRoutes(accounts, token);
  const strip = (request: Request) => new Request(request.url.replace('/api/keys', ''), request);
  const server = await startHttpServer({ fetch: (request) => app.fetch(strip(request)), port: 0 });
  t.after(() => server.close());
  const at = ['--data', folder, '--port', String(server.port)];
  assert.match((await execute('list', ...at)).stderr, /api\.token is not there/);
  writeFileSync(join(folder, 'api.token'), `${token}\n`);
  const header = () => 'Bearer sixteen-characters';
  const context = { req: { header } } as unknown as Parameters<typeof accounts.find>[0];
  for (const request of ['one', 'two']) {
    const held = accounts.find(context)!.reserve({ promptTokens: 10, maxTokens: [20] });
    held!.settle({ request, promptTokens: 10, completionTokens: 20 });
  }
  const list = await execute('list', ...at);
  assert.match(
    list.stdout,
    /^[0-9a-f]{16} {2}bob +2 requests, 20 \+ 40 tokens, 0\.00012 NEURO, 40 tokens left\n$/,
  );
  const id = list.stdout.slice(0, 16);
  const page = await execute('receipts', id, '--limit', '1', ...at);
  assert.match(page.stdout, /^ +2 .* 10 \+ 20 tokens +0\.00006 +two\nmore: --before 2\n$/);
  const next = JSON.parse((await execute('receipts', id, '--before', '2', '--json', ...at)).stdout);
  assert.deepEqual([next.receipts.length, next.receipts[0].request, next.next], [1, 'one', null]);
  assert.match((await execute('receipts', '0'.repeat(16), ...at)).stderr, /no API key/);
  assert.equal((await execute('receipts', 'x', ...at)).code, 2);
  writeFileSync(join(folder, 'api.token'), 'another');
  assert.match((await execute('list', ...at)).stderr, /needs the node's token/);
});
