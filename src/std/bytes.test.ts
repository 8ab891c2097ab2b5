import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { equalBytes, sharedBytes } from './bytes.ts';

test('byte strings are equal exactly when every byte is, wherever they lie in their buffers', () => {
  const place = fc.integer({ min: 0, max: 7 });
  const bytes = fc.uint8Array({ minLength: 1, maxLength: 300 });
  fc.assert(
    fc.property(bytes, place, place, fc.nat(), (value, left, right, at) => {
      const put = (offset: number) => {
        const view = new Uint8Array(new ArrayBuffer(offset + value.length), offset);
        view.set(value);
        return view;
      };
      const [a, b] = [put(left), put(right)];
      assert.ok(equalBytes(a, b));
      b[at % b.length]! ^= 1;
      assert.ok(!equalBytes(a, b));
      assert.ok(!equalBytes(a, a.subarray(1)));
    }),
  );
});

test('shared bytes are zeros, and a clone of them is the same memory', () => {
  const bytes = sharedBytes(8);
  structuredClone(bytes)[3] = 5;
  assert.deepEqual([...bytes], [0, 0, 0, 5, 0, 0, 0, 0]);
});
