/** What an auditor has committed to outlives a restart, and nothing else does. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { RevealBody } from '../ledger/verdict.ts';
import { memoryStore } from '../std/store.ts';
import { auditName, openReveals } from './reveals.ts';

const reveal = (byte: number): RevealBody => ({
  duty: byte.toString(16).padStart(2, '0').repeat(32),
  verdict: 'valid',
  hash: new Uint8Array(32).fill(byte),
  salt: new Uint8Array(32).fill(byte + 1),
});
const nameOf = ({ duty }: RevealBody, interval = 0) => auditName(duty, interval);

test('what was kept is there after a restart, each audit of a duty by itself', async () => {
  const store = memoryStore();
  const reveals = await openReveals(store);
  await reveals.keep(nameOf(reveal(1)), reveal(1));
  await reveals.keep(nameOf(reveal(1), 3), { ...reveal(1), verdict: 'false' });
  for (const one of [reveals, await openReveals(store)]) {
    assert.deepEqual(one.get(nameOf(reveal(1))), reveal(1));
    assert.equal(one.get(nameOf(reveal(1), 3))?.verdict, 'false');
    assert.equal(one.get(nameOf(reveal(1), 1)), undefined);
    assert.equal(one.get(nameOf(reveal(2))), undefined);
  }
});

test('it is durable before anybody is told: the promise waits for the store', async () => {
  const inner = memoryStore();
  let written = false;
  const slow = {
    ...inner,
    put: async (key: string, value: Uint8Array) => {
      await new Promise(setImmediate);
      await inner.put(key, value);
      written = true;
    },
  };
  const reveals = await openReveals(slow);
  await reveals.keep(nameOf(reveal(1)), reveal(1));
  assert.ok(written);
});

test('duties that are settled are forgotten, here and in the store', async () => {
  const store = memoryStore();
  const reveals = await openReveals(store);
  for (const byte of [1, 2]) await reveals.keep(nameOf(reveal(byte)), reveal(byte));
  reveals.keepOnly(new Set([reveal(2).duty]));
  await new Promise(setImmediate);
  assert.equal(reveals.get(nameOf(reveal(1))), undefined);
  assert.deepEqual(reveals.get(nameOf(reveal(2))), reveal(2));
  assert.deepEqual(await store.list(''), [`audit/reveal/${nameOf(reveal(2))}`]);
});

test('a damaged entry is left out, and the others are read', async () => {
  const store = memoryStore();
  await (await openReveals(store)).keep(nameOf(reveal(2)), reveal(2));
  await store.put(`audit/reveal/${nameOf(reveal(1))}`, new Uint8Array([1, 2, 3]));
  await store.put(`audit/reveal/${nameOf(reveal(3))}`, new Uint8Array([0x80]));
  const reveals = await openReveals(store);
  assert.equal(reveals.get(nameOf(reveal(1))), undefined);
  assert.equal(reveals.get(nameOf(reveal(3))), undefined);
  assert.deepEqual(reveals.get(nameOf(reveal(2))), reveal(2));
});
