/** Evidence as bytes: what it proves, of whom, and that it proves nothing when a single thing is off. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createGroup, membersOf, testKeys, testNetwork } from '../../test/consensus-group.ts';
import { type KeyPair, signDigest } from '../identity/keys.ts';
import { type Canonical, encodeCanonical } from '../std/codec.ts';
import { sha256 } from '../std/hash.ts';
import { blockHash, genesisHash } from './block.ts';
import { noHash, type StatementKind, statementCode, statementDigest } from './certificate.ts';
import { epochDomain } from './epoch-end.ts';
import { checkEvidence, decodeEvidence, encodeEvidence, evidenceBytesMax } from './equivocation.ts';
import { defaultLimits } from './limits.ts';
import { memberSet } from './members.ts';
import { encodeMessage } from './messages.ts';
import type { Evidence } from './types.ts';

const keys = testKeys(4);
const members = membersOf(keys);
const one = sha256(new Uint8Array([1]));
const two = sha256(new Uint8Array([2]));

function part(
  kind: StatementKind,
  hash: Uint8Array,
  epoch = 3,
  height = 9,
  key: KeyPair = keys[1]!,
): Canonical {
  const digest = statementDigest(epochDomain(testNetwork, epoch), kind, height, hash);
  return [statementCode(kind), kind === 'dummy' ? null : hash, signDigest(digest, key.secretKey)];
}

function evidenceOf(first: Canonical, second: Canonical, key: KeyPair = keys[1]!): Uint8Array {
  return encodeCanonical([3, key.publicKey, 9, first, second]);
}

function codeOf(bytes: Uint8Array, of = members): string {
  const checked = checkEvidence(bytes, testNetwork, { members: of });
  return checked.ok ? `${checked.value.kind} of ${checked.value.nodeId === keys[1]!.nodeId}` : checked.code;
}

test('what an honest member never signs convicts, without the member list too', () => {
  for (const kind of ['vote', 'finalize', 'proposal'] as const) {
    const bytes = evidenceOf(part(kind, one), part(kind, two));
    assert.equal(codeOf(bytes), `${kind} of true`);
    assert.ok(checkEvidence(bytes, testNetwork).ok);
    assert.ok(bytes.length <= evidenceBytesMax && bytes.length < 300, `${bytes.length} bytes`);
  }
  const both = evidenceOf(part('dummy', noHash), part('finalize', one));
  assert.equal(codeOf(both), 'finalize-and-dummy of true');
  const decoded = decodeEvidence(both);
  assert.ok(decoded.ok);
  const { epoch, height, nodeId } = decoded.value;
  assert.deepEqual({ epoch, height, nodeId }, { epoch: 3, height: 9, nodeId: keys[1]!.nodeId });
});

test('statements that may stand together are no evidence', () => {
  for (const [first, second] of [
    [part('vote', one), part('vote', one)],
    [part('vote', one), part('finalize', two)],
    [part('vote', one), part('dummy', noHash)],
    [part('dummy', noHash), part('dummy', noHash)],
    [part('proposal', one), part('vote', two)],
  ] as const) {
    assert.equal(codeOf(evidenceOf(first, second)), 'not-evidence');
    assert.equal(decodeEvidence(evidenceOf(first, second)).ok, false);
  }
});

test('another epoch, network, height, key or member list clears', () => {
  const good = part('vote', one);
  assert.equal(codeOf(evidenceOf(good, part('vote', two, 4))), 'bad-signature');
  assert.equal(codeOf(evidenceOf(good, part('vote', two, 3, 8))), 'bad-signature');
  assert.equal(codeOf(evidenceOf(good, part('vote', two, 3, 9, keys[2]))), 'bad-signature');
  const bytes = evidenceOf(good, part('vote', two));
  assert.equal(codeOf(bytes, members.slice(2)), 'unknown-member');
  assert.ok(!checkEvidence(bytes, sha256(testNetwork)).ok);
});

test('bytes of any other form are refused with one code', () => {
  const good = evidenceOf(part('vote', one), part('vote', two));
  const codes = (bytes: Uint8Array) => {
    const decoded = decodeEvidence(bytes);
    return decoded.ok ? 'ok' : decoded.code;
  };
  assert.equal(codes(good), 'ok');
  assert.equal(codes(new Uint8Array(evidenceBytesMax + 1)), 'too-large');
  const [a, b] = [part('vote', one), part('vote', two)];
  const notAKey = new Uint8Array(33);
  for (const body of [
    [3, keys[1]!.publicKey, 9, a],
    [-1, keys[1]!.publicKey, 9, a, b],
    [3, notAKey, 9, a, b],
    [3, keys[1]!.publicKey, 0, a, b],
    [3, keys[1]!.publicKey, 9, a, [7, one, new Uint8Array(64)]],
    [3, keys[1]!.publicKey, 9, a, [0, null, new Uint8Array(64)]],
    [3, keys[1]!.publicKey, 9, a, [1, one, new Uint8Array(64)]],
    [3, keys[1]!.publicKey, 9, a, [0, two, new Uint8Array(63)]],
  ] as Canonical[]) {
    assert.equal(codes(encodeCanonical(body)), 'schema');
  }
  for (let at = 0; at < good.length; at++) {
    const bent = good.slice();
    bent[at]! ^= 0x10;
    assert.equal(checkEvidence(bent, testNetwork, { members }).ok, false, `byte ${at}`);
  }
});

test("a replica's evidence, two large proposals included, becomes bytes that convict", async () => {
  const domain = epochDomain(testNetwork, 5);
  const proposal = (fill: number) => {
    const payload = new Uint8Array(30_000).fill(fill);
    const block = { height: 2, parentHeight: 0, parentHash: genesisHash, payload };
    const hash = blockHash(domain, block);
    const signature = signDigest(statementDigest(domain, 'proposal', 2, hash), keys[2]!.secretKey);
    return encodeMessage({ type: 'proposal', proposal: { block, hash, signature } });
  };
  const group = createGroup(4, 0, 'secp256k1');
  const found: Evidence[] = [];
  const { replica } = await group.open(0, {
    networkId: domain,
    application: { evidence: (evidence) => found.push(evidence) },
  });
  await group.run(1);
  replica.receive('x', proposal(1));
  replica.receive('x', proposal(2));
  assert.equal(found.length, 1);
  const context = {
    networkId: testNetwork,
    epoch: 5,
    members: memberSet(members, 10),
    limits: defaultLimits,
  };
  const equivocation = encodeEvidence(found[0]!, context);
  assert.equal(equivocation.nodeId, keys[2]!.nodeId);
  const checked = checkEvidence(equivocation.bytes, testNetwork, { members });
  assert.deepEqual(checked, { ok: true, value: equivocation });
  await replica.stop();
});
