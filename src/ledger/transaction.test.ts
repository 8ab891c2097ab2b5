/** Transactions as bytes: what is read is what was signed, and nothing hostile passes or throws. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { ledgerConstants, namedKey } from '../../test/ledger-world.ts';
import { type Canonical, encodeCanonical } from '../std/codec.ts';
import type { Outcome } from '../std/outcome.ts';
import {
  decodeTransaction,
  encodeTransaction,
  signTransaction,
  transactionBytesMax,
  transactionId,
  verifyTransaction,
} from './transaction.ts';
import { transfer } from './transactions/transfer.ts';

const { networkId } = ledgerConstants();
const alice = namedKey('alice');
const bob = namedKey('bob');
const body = { to: bob.nodeId, amount: 7n };
const signed = signTransaction(networkId, transfer, { body, nonce: 1 }, alice);
const id = transactionId(networkId, signed);

const codeOf = (outcome: Outcome<unknown>) => (outcome.ok ? 'accepted' : outcome.code);

test('what was signed comes back and verifies', () => {
  const decoded = decodeTransaction(encodeTransaction(signed));
  assert.ok(decoded.ok);
  assert.deepEqual(transfer.parse(decoded.value.body), { ok: true, value: body });
  assert.deepEqual(transactionId(networkId, decoded.value), id);
  assert.equal(verifyTransaction(decoded.value, id), true);
});

test('another author, network, nonce or amount is another transaction', () => {
  const others = [
    signTransaction(networkId, transfer, { body, nonce: 2 }, alice),
    signTransaction(networkId, transfer, { body, nonce: 1 }, bob),
    signTransaction(networkId, transfer, { body: { ...body, amount: 8n }, nonce: 1 }, alice),
  ];
  for (const other of others) {
    assert.notDeepEqual(transactionId(networkId, other), id);
    assert.equal(
      verifyTransaction({ ...other, signature: signed.signature }, transactionId(networkId, other)),
      false,
    );
  }
  assert.notDeepEqual(transactionId(new Uint8Array(32), signed), id);
});

/** n − s: as valid to plain ECDSA, and refused. */
function highS(signature: Uint8Array): Uint8Array {
  const order = 0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141n;
  const s = BigInt(`0x${Buffer.from(signature.subarray(32)).toString('hex')}`);
  const high = Buffer.from((order - s).toString(16).padStart(64, '0'), 'hex');
  return new Uint8Array([...signature.subarray(0, 32), ...high]);
}

test('high-S and unsigned never verify', () => {
  assert.equal(verifyTransaction({ ...signed, signature: highS(signed.signature!) }, id), false);
  assert.equal(verifyTransaction({ ...signed, signature: null }, id), false);
  assert.equal(verifyTransaction({ ...signed, publicKey: new Uint8Array(33) }, id), false);
});

test('hostile bytes get one code', () => {
  const { kind, nonce, publicKey, signature } = signed;
  const fields = (over: Record<number, Canonical>): Canonical =>
    [kind, nonce, signed.body, publicKey, signature].map((field, i) => over[i] ?? field);
  const cases: readonly (readonly [Uint8Array, string])[] = [
    [new Uint8Array(transactionBytesMax + 1), 'too-large'],
    [new Uint8Array(0), 'malformed'],
    [encodeTransaction(signed).subarray(1), 'malformed'],
    [encodeCanonical({}), 'malformed-transaction'],
    [encodeCanonical([kind, nonce, signed.body, publicKey]), 'malformed-transaction'],
    [encodeCanonical(fields({ 0: 'k'.repeat(33) })), 'malformed-transaction'],
    [encodeCanonical(fields({ 0: 7 })), 'malformed-transaction'],
    [encodeCanonical(fields({ 1: -1 })), 'malformed-transaction'],
    [encodeCanonical(fields({ 1: 2n ** 60n })), 'malformed-transaction'],
    [encodeCanonical(fields({ 1: 1.5 })), 'malformed-transaction'],
    [encodeCanonical(fields({ 3: new Uint8Array(32) })), 'malformed-transaction'],
    [encodeCanonical(fields({ 4: new Uint8Array(63) })), 'malformed-transaction'],
    [encodeCanonical([kind, nonce, signed.body, null, signature]), 'malformed-transaction'],
    [encodeCanonical([kind, nonce, signed.body, publicKey, null]), 'malformed-transaction'],
    // Arrays in arrays, deeper than any stack.
    [new Uint8Array(transactionBytesMax).fill(0x81), 'malformed'],
  ];
  for (const [bytes, code] of cases) assert.equal(codeOf(decodeTransaction(bytes)), code);
});

test('no byte can be changed', () => {
  const bytes = encodeTransaction(signed);
  fc.assert(
    fc.property(fc.nat(bytes.length - 1), fc.integer({ min: 1, max: 255 }), (at, flip) => {
      const damaged = bytes.slice();
      damaged[at]! ^= flip;
      const decoded = decodeTransaction(damaged);
      if (!decoded.ok) return;
      assert.equal(verifyTransaction(decoded.value, transactionId(networkId, decoded.value)), false);
    }),
    { numRuns: 150 },
  );
});
