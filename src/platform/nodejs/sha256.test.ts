import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { toHex, utf8 } from '../../std/bytes.ts';
import { installSha256, portableSha256, sha256, sha256Hex } from '../../std/hash.ts';
import { installNodeSha256 } from './sha256.ts';

test('the fast digest is the portable one, on whole buffers and on views', (t) => {
  t.after(() => installSha256((bytes) => portableSha256(bytes)));
  installNodeSha256();
  // FIPS 180-4 example.
  assert.equal(sha256Hex(utf8('abc')), 'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad');
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), fc.nat(300), (bytes, start) => {
      const view = bytes.subarray(Math.min(start, bytes.length));
      assert.equal(toHex(sha256(view)), toHex(portableSha256(view)));
    }),
  );
});
