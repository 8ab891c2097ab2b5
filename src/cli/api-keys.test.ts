import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { apiKeysOf } from './api-keys.ts';

const folder = mkdtempSync(join(tmpdir(), 'neuroshard-keys-'));
after(() => rmSync(folder, { recursive: true, force: true }));
const file = join(folder, 'keys');

test('other machines need a key; this one does not', () => {
  for (const host of ['127.0.0.1', '127.1.2.3', '::1', 'localhost'])
    assert.deepEqual(apiKeysOf({ host }), []);
  for (const host of ['0.0.0.0', '::', '192.168.1.2', '127.0.0.1.example.org', 'localhost.example.org'])
    assert.throws(() => apiKeysOf({ host }), { code: 'missing-api-key' });
});

test('keys come from options and from a file', () => {
  writeFileSync(file, '# mine\nsixteen-characters-1\n\nsixteen-characters-2\r\n');
  const keys = apiKeysOf({ host: '0.0.0.0', apiKey: ['sixteen-characters-0'], apiKeyFile: file });
  assert.deepEqual(
    keys,
    [0, 1, 2].map((i) => ({ key: `sixteen-characters-${i}` })),
  );
});

test('a file says what each key may use', () => {
  writeFileSync(
    file,
    'sixteen-characters-1 name=alice tokens=5000\nsixteen-characters-2\tneuro=2.5  tokens=7\n',
  );
  assert.deepEqual(apiKeysOf({ host: '0.0.0.0', apiKeyFile: file }), [
    { key: 'sixteen-characters-1', name: 'alice', tokensMax: 5_000 },
    { key: 'sixteen-characters-2', neuroMax: 2_500_000n, tokensMax: 7 },
  ]);
  for (const field of ['tokens=-1', 'tokens=1.5', 'neuro=x', 'neuro=0', 'limit=5', 'another', 'name=']) {
    writeFileSync(file, `sixteen-characters-1 ${field}\n`);
    assert.throws(() => apiKeysOf({ host: '0.0.0.0', apiKeyFile: file }), { code: 'bad-api-key' }, field);
  }
  writeFileSync(file, 'sixteen-characters-1\nsixteen-characters-1 tokens=5\n');
  assert.throws(() => apiKeysOf({ host: '0.0.0.0', apiKeyFile: file }), { code: 'bad-api-key' });
});

test('what is no key and no file of keys is refused', () => {
  const host = '127.0.0.1';
  for (const key of ['short', 'with spaces in the key', ''])
    assert.throws(() => apiKeysOf({ host, apiKey: [key] }), { code: 'bad-api-key' });
  assert.throws(() => apiKeysOf({ host, apiKeyFile: join(folder, 'none') }), { code: 'unreadable' });
  writeFileSync(file, '# nothing\n');
  assert.throws(() => apiKeysOf({ host, apiKeyFile: file }), { code: 'no-api-key' });
  writeFileSync(file, 'x'.repeat(64 * 1024 + 1));
  assert.throws(() => apiKeysOf({ host, apiKeyFile: file }), { code: 'too-large' });
});
