import assert from 'node:assert/strict';
import { test } from 'node:test';
import { membersOf, testKeys, testNetwork } from '../../test/consensus-group.ts';
import { signDigest, verifyDigest } from '../identity/keys.ts';
import { utf8 } from '../std/bytes.ts';
import { sha256 } from '../std/hash.ts';
import {
  certificateBody,
  makeCertificate,
  readCertificate,
  statementDigest,
  verifyCertificate,
} from './certificate.ts';
import { memberSet } from './members.ts';
import type { Certificate, SignatureScheme, VoteKind } from './types.ts';

const keys = testKeys(4);
const members = memberSet(membersOf(keys), 10);
const hash = sha256(utf8('a block'));
/** The real scheme: forging must fail for secp256k1, not for a stand-in. */
const secp256k1: SignatureScheme = {
  sign: (digest, key) => signDigest(digest, key.secretKey),
  verify: verifyDigest,
};

function signed(signers: readonly number[], kind: VoteKind = 'finalize', network = testNetwork): Certificate {
  const digest = statementDigest(network, kind, 7, hash);
  const votes = new Map(signers.map((signer) => [signer, secp256k1.sign(digest, keys[signer]!)]));
  return makeCertificate(kind, 7, hash, votes);
}

const codeOf = (certificate: Certificate) => {
  const outcome = verifyCertificate(certificate, testNetwork, members, secp256k1);
  return outcome.ok ? 'ok' : outcome.code;
};

test('three of four make a certificate, two do not', () => {
  assert.equal(codeOf(signed([3, 0, 1])), 'ok');
  assert.equal(codeOf(signed([0, 1])), 'no-quorum');
});

test('it survives the wire, small', () => {
  const certificate = signed([0, 2, 3]);
  const read = readCertificate(certificateBody(certificate));
  assert.deepEqual(read.ok && read.value, certificate);
});

test('forged, borrowed and repeated signatures do not count', () => {
  const good = signed([0, 1, 2]);
  const [a, b, c] = good.signatures as [Uint8Array, Uint8Array, Uint8Array];
  assert.equal(codeOf({ ...good, signatures: [a, b, a] }), 'bad-signature');
  assert.equal(
    codeOf({ ...good, signatures: [a, b, c.map((byte, i) => (i === 40 ? byte ^ 1 : byte))] }),
    'bad-signature',
  );
  assert.equal(codeOf({ ...good, signers: [0, 1, 1], signatures: [a, b, b] }), 'duplicate-signer');
  assert.equal(codeOf({ ...good, signers: [1, 0, 2], signatures: [b, a, c] }), 'duplicate-signer');
  assert.equal(codeOf({ ...good, signers: [0, 1, 4] }), 'unknown-member');
  assert.equal(codeOf({ ...good, signers: [0, 1] }), 'schema');
});

test('votes for another block, height, kind or network do not count', () => {
  const good = signed([0, 1, 2]);
  assert.equal(codeOf({ ...good, blockHash: sha256(utf8('another')) }), 'bad-signature');
  assert.equal(codeOf({ ...good, height: 8 }), 'bad-signature');
  assert.equal(codeOf({ ...good, kind: 'vote' }), 'bad-signature');
  assert.equal(codeOf(signed([0, 1, 2], 'finalize', sha256(utf8('another network')))), 'bad-signature');
});

test('a signature known to be right is not verified again', () => {
  let verified = 0;
  const counting: SignatureScheme = {
    ...secp256k1,
    verify: (...args) => {
      verified += 1;
      return secp256k1.verify(...args);
    },
  };
  const outcome = verifyCertificate(
    signed([0, 1, 2]),
    testNetwork,
    members,
    counting,
    (signer) => signer !== 1,
  );
  assert.ok(outcome.ok);
  assert.equal(verified, 1);
});

test('certificates of wrong form are refused before any signature is looked at', () => {
  const [code, height, block, bitmap, joined] = certificateBody(signed([0, 1, 2])) as [
    number,
    number,
    Uint8Array,
    Uint8Array,
    Uint8Array,
  ];
  const wrong: unknown[] = [
    null,
    [],
    [9, height, block, bitmap, joined],
    [code, 0, block, bitmap, joined],
    [code, 1.5, block, bitmap, joined],
    [code, height, null, bitmap, joined],
    [1, height, block, bitmap, joined],
    [code, height, block.slice(1), bitmap, joined],
    [code, height, block, new Uint8Array(), joined],
    [code, height, block, new Uint8Array([7, 0]), joined],
    [code, height, block, bitmap, joined.slice(1)],
    [code, height, block, new Uint8Array(5000).fill(255), joined],
  ];
  for (const value of wrong) {
    const read = readCertificate(value);
    assert.ok(!read.ok && read.code === 'schema', JSON.stringify(value));
  }
});
