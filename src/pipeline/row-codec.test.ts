import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { decodeRows, encodeRows, type RowCodec, rowBytes, rowCodecs } from './row-codec.ts';

const floatMax = 3.4028234663852886e38;
const finite = fc.float({ noNaN: true, noDefaultInfinity: true });
const finiteRows = fc.array(finite, { maxLength: 600 }).map((values) => Float32Array.from(values));

function roundTrip(rows: Float32Array, codec: RowCodec): Float32Array {
  const bytes = encodeRows(rows, codec);
  assert.equal(bytes.length, rowBytes(codec, rows.length));
  const decoded = decodeRows(bytes, codec, rows.length);
  assert.ok(decoded.ok, codec);
  return decoded.value;
}

test('bytes are 4, 2, and 1 for each element, with 4 more for each int8 block', () => {
  assert.equal(rowBytes('f32', 1000), 4000);
  assert.equal(rowBytes('bf16', 1000), 2000);
  assert.equal(rowBytes('int8', 1000), 1016);
  assert.equal(rowBytes('int8', 256), 260);
  for (const codec of rowCodecs) assert.equal(rowBytes(codec, 0), 0);
});

test('f32 gives back the same bits', () => {
  fc.assert(fc.property(finiteRows, (rows) => assert.deepEqual(roundTrip(rows, 'f32'), rows)));
});

test('bf16 is within half of its last place, and saturates instead of becoming infinite', () => {
  fc.assert(
    fc.property(finiteRows, (rows) => {
      const decoded = roundTrip(rows, 'bf16');
      for (const [i, value] of rows.entries()) {
        const limit = Math.max(Math.abs(value) * 2 ** -8, 2 ** -134);
        assert.ok(Math.abs(decoded[i]! - value) <= limit, `${value} became ${decoded[i]}`);
      }
    }),
  );
  const bf16Max = 3.3895313892515355e38;
  assert.deepEqual([...roundTrip(Float32Array.of(floatMax, -floatMax), 'bf16')], [bf16Max, -bf16Max]);
});

test('bf16 rounds ties to even', () => {
  const tie = Float32Array.of(1 + 2 ** -8, 1 + 3 * 2 ** -8, -(1 + 2 ** -8), 0, -0);
  assert.deepEqual([...roundTrip(tie, 'bf16')], [1, 1 + 2 ** -6, -1, 0, -0]);
});

test('bf16 of a bf16 number is that number', () => {
  const words = fc.array(
    fc.integer({ min: 0, max: 0xffff }).filter((half) => (half & 0x7f80) !== 0x7f80),
    {
      maxLength: 300,
    },
  );
  fc.assert(
    fc.property(words, (halves) => {
      const bytes = new Uint8Array(Uint16Array.from(halves).buffer);
      const decoded = decodeRows(bytes, 'bf16', halves.length);
      assert.ok(decoded.ok);
      assert.deepEqual(encodeRows(decoded.value, 'bf16'), bytes);
    }),
  );
});

test('int8 is within half a level of its block, one at the end of the range; subnormal blocks within 64 of their last places', () => {
  const magnitude = fc.integer({ min: -40, max: 128 }).map((exponent) => 2 ** exponent);
  const rows = fc
    .array(fc.tuple(fc.float({ min: -1, max: 1, noNaN: true }), magnitude), { maxLength: 600 })
    .map((pairs) =>
      Float32Array.from(pairs, ([value, scale]) => Math.max(-floatMax, Math.min(floatMax, value * scale))),
    );
  fc.assert(
    fc.property(rows, (values) => {
      const decoded = roundTrip(values, 'int8');
      for (let start = 0; start < values.length; start += 256) {
        const block = values.subarray(start, start + 256);
        const most = block.reduce((largest, value) => Math.max(largest, Math.abs(value)), 0);
        const level = most > floatMax / 1.01 ? most / 127 : (most / 127) * 0.501;
        for (const [i, value] of block.entries()) {
          const error = Math.abs(decoded[start + i]! - value);
          assert.ok(error <= level + 2 ** -143, `${value} became ${decoded[start + i]} with ${most}`);
        }
      }
    }),
  );
});

test('what is not finite is refused by the receiver, wherever it stands', () => {
  for (const codec of rowCodecs) {
    for (const value of [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY]) {
      const rows = new Float32Array(700).fill(0.5);
      rows[699] = value;
      const decoded = decodeRows(encodeRows(rows, codec), codec, rows.length);
      assert.equal(decoded.ok ? 'accepted' : decoded.code, 'not-finite', `${codec} ${value}`);
    }
  }
  // NaNs whose last bits are set would carry into the sign.
  const bits = Uint32Array.of(0x7fff_ffff, 0xffff_ffff);
  const decoded = decodeRows(encodeRows(new Float32Array(bits.buffer), 'bf16'), 'bf16', 2);
  assert.equal(decoded.ok, false);
});

test('any bytes decode to finite rows or to a code, at any address', () => {
  const bytes = fc.uint8Array({ maxLength: 1100 });
  fc.assert(
    fc.property(
      bytes,
      fc.integer({ min: 0, max: 3 }),
      fc.constantFrom(...rowCodecs),
      (content, shift, codec) => {
        const message = new Uint8Array(content.length + shift);
        message.set(content, shift);
        const length = codec === 'int8' ? Math.floor((content.length * 256) / 260) : content.length >> 1;
        const decoded = decodeRows(message.subarray(shift), codec, length);
        if (decoded.ok) assert.ok(decoded.value.every(Number.isFinite));
        else assert.ok(['wrong-length', 'not-finite'].includes(decoded.code));
        if (content.length !== rowBytes(codec, length)) assert.equal(decoded.ok, false);
      },
    ),
  );
});

test('scales that could make an infinite number are refused', () => {
  for (const scale of [Number.NaN, Number.POSITIVE_INFINITY, floatMax, -1]) {
    const bytes = encodeRows(new Float32Array(10).fill(1), 'int8');
    new Float32Array(bytes.buffer, 0, 1)[0] = scale;
    const decoded = decodeRows(bytes, 'int8', 10);
    assert.equal(decoded.ok ? 'accepted' : decoded.code, 'not-finite');
  }
});
