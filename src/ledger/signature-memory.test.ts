/** Remembered and verified ahead: whatever the memory or another thread says, a wrong signature stays wrong. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ledgerConstants, namedKey } from '../../test/ledger-world.ts';
import { type SignedDigest, verifyDigest } from '../identity/keys.ts';
import { createSignatureMemory } from './signature-memory.ts';
import { signTransaction, type Transaction, transactionId, verifyTransaction } from './transaction.ts';
import { transfer } from './transactions/transfer.ts';

const { networkId } = ledgerConstants();
const alice = namedKey('alice');
const bob = namedKey('bob');
const body = { to: bob.nodeId, amount: 7n };
const signed = Array.from({ length: 20 }, (_, i) =>
  signTransaction(networkId, transfer, { body, nonce: i + 1 }, alice),
);
const first = signed[0]!;
const idOf = (transaction: Transaction) => transactionId(networkId, transaction);
const changed = (transaction: Transaction): Transaction => ({
  ...transaction,
  signature: transaction.signature!.with(40, transaction.signature![40]! ^ 1),
});

test('a remembered signature does not vouch for another one', () => {
  const { verify } = createSignatureMemory({ networkId, rememberedMax: 2 });
  for (let time = 0; time < 2; time++) assert.equal(verify(first, idOf(first)), true);
  assert.equal(verify(changed(first), idOf(first)), false);
  assert.equal(verify({ ...first, signature: null }, idOf(first)), false);
  assert.equal(verify({ ...first, publicKey: null, signature: null }, idOf(first)), false);
  assert.equal(verify(first, idOf(first)), true);
});

test('what was verified ahead is not asked for again; the wrong are refused all the same', async () => {
  const asked: SignedDigest[] = [];
  const { verify, ahead } = createSignatureMemory({
    networkId,
    rememberedMax: 100,
    verifyMany: async (all) => {
      asked.push(...all);
      return all.map(({ digest, signature, publicKey }) => verifyDigest(digest, signature, publicKey));
    },
  });
  const wrong = changed(first);
  await ahead([wrong, ...signed.slice(1)]);
  assert.equal(asked.length, 20);
  assert.equal(verify(wrong, idOf(wrong)), false);
  for (const each of signed) assert.equal(verify(each, idOf(each)), true);
  assert.equal(ahead(signed), undefined, 'all are known');
  assert.equal(asked.length, 20);
});

test('few are not sent away, and what cannot be verified elsewhere is verified here', async () => {
  let calls = 0;
  const { verify, ahead } = createSignatureMemory({
    networkId,
    rememberedMax: 100,
    verifyMany: async () => {
      calls += 1;
      throw new Error('gone');
    },
  });
  assert.equal(ahead(signed.slice(0, 15)), undefined);
  await ahead(signed);
  assert.equal(calls, 1);
  for (const each of signed) assert.equal(verify(each, idOf(each)), verifyTransaction(each, idOf(each)));
});

test('without anybody to ask nothing is waited for', () => {
  assert.equal(createSignatureMemory({ networkId, rememberedMax: 100 }).ahead(signed), undefined);
});

test('what is on its way is waited for and not asked for again', async () => {
  const answer = Promise.withResolvers<boolean[]>();
  let calls = 0;
  const { ahead } = createSignatureMemory({
    networkId,
    rememberedMax: 100,
    verifyMany: () => {
      calls += 1;
      return answer.promise;
    },
  });
  const first = ahead(signed);
  const second = ahead(signed);
  assert.ok(first && second);
  answer.resolve(signed.map(() => true));
  await Promise.all([first, second]);
  assert.equal(calls, 1);
  assert.equal(ahead(signed), undefined);
});
