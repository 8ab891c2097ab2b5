import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { testAccounts } from '../../test/key-accounts.ts';
import { utf8 } from '../std/bytes.ts';
import { memoryStore } from '../std/store.ts';
import type { ApiKey, KeyAccounts } from './key-accounts.ts';

const key = 'a-key-of-someone';

/** What `find` gives a request with that key; the rest of a context is not looked at. */
function account(accounts: KeyAccounts, name = key) {
  const header = () => `Bearer ${name}`;
  return accounts.find({ req: { header } } as unknown as Parameters<KeyAccounts['find']>[0])!;
}

const one = { promptTokens: 10, maxTokens: [5] };

function use(accounts: KeyAccounts, completionTokens: number, request = 'r', promptTokens = 10) {
  const held = account(accounts).reserve({ promptTokens, maxTokens: [completionTokens] })!;
  held.settle({ request, promptTokens, completionTokens });
}

test('what runs at once shares the credit, and what was not used comes back', async () => {
  const accounts = await testAccounts([{ key, tokensMax: 40 }]);
  const first = account(accounts).reserve({ promptTokens: 10, maxTokens: [8, 8] })!;
  assert.deepEqual(first.maxTokens, [8, 8]);
  assert.equal(accounts.list()[0]!.tokensLeft, 14);
  const second = account(accounts).reserve({ promptTokens: 10, maxTokens: [9, 1] })!;
  assert.deepEqual(second.maxTokens, [2, 1]);
  assert.equal(account(accounts).reserve(one), undefined);
  first.settle({ request: 'a', promptTokens: 10, completionTokens: 2 });
  first.settle({ request: 'a', promptTokens: 10, completionTokens: 16 });
  second.settle({ request: 'b', promptTokens: 10, completionTokens: 0 });
  assert.deepEqual(
    accounts.list().map(({ requests, tokensLeft }) => [requests, tokensLeft]),
    [[1, 28]],
    'settled once; what drew nothing costs nothing',
  );
});

test('a credit in NEURO is never exceeded, whatever is asked for', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.integer({ min: 1, max: 500 }),
      fc.integer({ min: 0, max: 9_000 }),
      fc.array(fc.tuple(fc.integer({ min: 1, max: 50 }), fc.integer({ min: 1, max: 50 })), { maxLength: 30 }),
      async (neuroMax, tokenPrice, requests) => {
        const accounts = await testAccounts([{ key, neuroMax: BigInt(neuroMax) }], { tokenPrice });
        for (const [promptTokens, most] of requests) {
          const held = account(accounts).reserve({ promptTokens, maxTokens: [most] });
          if (!held) continue;
          assert.ok(held.maxTokens[0]! >= 1 && held.maxTokens[0]! <= most);
          held.settle({ request: 'r', promptTokens, completionTokens: held.maxTokens[0]! });
        }
        const { spent, promptTokens, completionTokens } = accounts.list()[0]!;
        assert.ok(BigInt(spent) <= BigInt(neuroMax));
        assert.ok((promptTokens + completionTokens) * tokenPrice <= 1000 * neuroMax);
      },
    ),
    { numRuns: 100 },
  );
});

test('accounts come back after a restart, page by page of receipts', async () => {
  const store = memoryStore();
  const limited: ApiKey = { key, tokensMax: 100_000 };
  let accounts = await testAccounts([limited], { store });
  for (let i = 1; i <= 230; i++) {
    use(accounts, 1, `request ${i}`);
    if (i % 77 === 0) {
      await accounts.flush();
      accounts = await testAccounts([limited], { store });
    }
  }
  await accounts.flush();
  accounts = await testAccounts([limited], { store });
  const [document] = accounts.list();
  assert.deepEqual([document!.requests, document!.tokensLeft], [230, 100_000 - 230 * 11]);
  const seen: string[] = [];
  for (let before: number | undefined; ; ) {
    const page = (await accounts.receipts(document!.id, { limit: 40, ...(before && { before }) }))!;
    seen.push(...page.map(({ request }) => request));
    before = page.at(-1)?.number;
    if (page.length < 40) break;
  }
  assert.deepEqual(
    seen,
    Array.from({ length: 230 }, (_, i) => `request ${230 - i}`),
  );
  assert.equal(await accounts.receipts('unknown', { limit: 1 }), undefined);
});

test('a record that cannot be read is not taken for an empty one', async () => {
  const store = memoryStore();
  const accounts = await testAccounts([key], { store });
  use(accounts, 3);
  await accounts.flush();
  const [name] = await store.list('api-key-');
  await store.put(name!, utf8('{}'));
  await assert.rejects(testAccounts([key], { store }), { code: 'bad-key-account' });
  await assert.rejects(testAccounts([key, key]), { code: 'bad-api-key' });
});
