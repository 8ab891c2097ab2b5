/** Properties that every decoder of untrusted bytes must have. */
import assert from 'node:assert/strict';
import fc from 'fast-check';
import type { Outcome } from '../src/std/outcome.ts';

/** Never throws, whatever comes: random bytes, and a valid message with some bytes changed or its end cut off. */
export function assertNeverThrows(decode: (bytes: Uint8Array) => Outcome<unknown>, valid: Uint8Array): void {
  const refused = (bytes: Uint8Array) => {
    const outcome = decode(bytes);
    if (!outcome.ok) assert.match(outcome.code, /^[a-z]+(-[a-z]+)*$/);
    return !outcome.ok;
  };
  fc.assert(fc.property(fc.uint8Array({ maxLength: 400 }), (bytes) => void refused(bytes)));
  const change = fc.record({ at: fc.nat(valid.length - 1), to: fc.nat(255) });
  fc.assert(
    fc.property(fc.array(change, { minLength: 1, maxLength: 3 }), (changes) => {
      const bytes = valid.slice();
      for (const { at, to } of changes) bytes[at] = to;
      refused(bytes);
    }),
    { numRuns: 60 },
  );
  for (const length of [0, 1, valid.length >> 1, valid.length - 1])
    assert.ok(refused(valid.subarray(0, length)));
  assert.ok(refused(new Uint8Array([...valid, 0])));
}
