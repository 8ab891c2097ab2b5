import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { bytesOf, concatBytes, utf8 } from '../std/bytes.ts';
import { decodeF32, readSafetensors, type SafetensorsSource, writeSafetensors } from './safetensors.ts';

const sources: SafetensorsSource[] = [
  { name: 'a', shape: [2, 3], data: Float32Array.of(1, -2, 3.5, 0, 1e-30, -0) },
  { name: 'ids', shape: [4], data: Int32Array.of(1, -1, 2 ** 31 - 1, 0) },
  { name: 'ü/"quoted"', shape: [], data: Float32Array.of(7) },
  { name: 'none', shape: [0, 5], data: new Float32Array(0) },
  { name: 'bytes', shape: [3], data: Uint8Array.of(1, 2, 3) },
];

/** A file with this header text and so many bytes of data. */
function fileOf(header: unknown, dataBytes: number): Uint8Array {
  const json = utf8(typeof header === 'string' ? header : JSON.stringify(header));
  const head = new Uint8Array(8);
  new DataView(head.buffer).setBigUint64(0, BigInt(json.length), true);
  return concatBytes(head, json, new Uint8Array(dataBytes));
}

const codeOf = (file: Uint8Array) => {
  const read = readSafetensors(file);
  return read.ok ? 'ok' : read.code;
};

test('what is written is read back, with its metadata', () => {
  const file = writeSafetensors(sources, { format: 'pt', note: 'x' });
  const read = readSafetensors(file);
  assert(read.ok);
  assert.deepEqual(Object.fromEntries(read.value.metadata), { format: 'pt', note: 'x' });
  assert.equal(read.value.dataOffset % 8, 0);
  assert.equal(read.value.tensors.size, sources.length);
  for (const { name, shape, data } of sources) {
    const entry = read.value.tensors.get(name);
    assert(entry);
    assert.deepEqual(entry.shape, shape);
    assert.deepEqual(new Uint8Array(entry.bytes), bytesOf(data));
  }
});

test('files read at any offset of a larger buffer', () => {
  const file = writeSafetensors(sources);
  const shifted = concatBytes(new Uint8Array(3), file).subarray(3);
  const read = readSafetensors(shifted);
  assert(read.ok);
  const { dtype, bytes } = read.value.tensors.get('a')!;
  assert.deepEqual(decodeF32(dtype, bytes), { ok: true, value: sources[0]!.data });
});

test('hostile headers are rejected with their reason', () => {
  const f32 = (shape: unknown, start: unknown, end: unknown) => ({
    dtype: 'F32',
    shape,
    data_offsets: [start, end],
  });
  const cases: [string, unknown, number][] = [
    ['safetensors-header', 'not json', 0],
    ['safetensors-header', '[1]', 0],
    ['safetensors-header', 'null', 0],
    ['safetensors-header', { a: 3 }, 0],
    ['safetensors-header', { __metadata__: { x: 1 } }, 0],
    ['safetensors-header', { __metadata__: [] }, 0],
    ['safetensors-dtype', { a: { dtype: 'F33', shape: [1], data_offsets: [0, 4] } }, 4],
    ['safetensors-dtype', { a: { dtype: 'toString', shape: [1], data_offsets: [0, 4] } }, 4],
    ['safetensors-dtype', { a: { shape: [1], data_offsets: [0, 4] } }, 4],
    ['safetensors-shape', { a: f32([2], 0, 4) }, 4],
    ['safetensors-shape', { a: f32([-1], 0, 4) }, 4],
    ['safetensors-shape', { a: f32([0.5], 0, 4) }, 4],
    ['safetensors-shape', { a: f32('1', 0, 4) }, 4],
    ['safetensors-shape', { a: f32(new Array(9).fill(1), 0, 4) }, 4],
    ['safetensors-shape', { a: f32([2 ** 32, 2 ** 32], 0, 4) }, 4],
    ['safetensors-offsets', { a: f32([1], 4, 0) }, 8],
    ['safetensors-offsets', { a: f32([1], 0, '4') }, 4],
    ['safetensors-offsets', { a: { dtype: 'F32', shape: [1] } }, 4],
    ['safetensors-offsets', { a: f32([1], 4, 8) }, 8],
    ['safetensors-offsets', { a: f32([1], 0, 4), b: f32([1], 0, 4) }, 4],
    ['safetensors-offsets', { a: f32([2], 0, 8), b: f32([2], 4, 12) }, 12],
    ['safetensors-offsets', { a: f32([1], 0, 4) }, 8],
    ['safetensors-truncated', { a: f32([2], 0, 8) }, 4],
    ['safetensors-header', `{"a":${'['.repeat(100_000)}${']'.repeat(100_000)}}`, 0],
  ];
  for (const [code, header, dataBytes] of cases) {
    assert.equal(codeOf(fileOf(header, dataBytes)), code, JSON.stringify(header).slice(0, 80));
  }
  assert.equal(codeOf(new Uint8Array(5)), 'safetensors-truncated');
  assert.equal(codeOf(new Uint8Array(8).fill(255)), 'safetensors-header');
  const invalidUtf8 = concatBytes(Uint8Array.of(2, 0, 0, 0, 0, 0, 0, 0), Uint8Array.of(0xff, 0xfe));
  assert.equal(codeOf(invalidUtf8), 'safetensors-header');
});

test('no damage to a file crashes the reader, and no cut file is accepted', () => {
  const file = writeSafetensors(sources, { format: 'pt' });
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.nat(file.length - 1), fc.nat(255)), { maxLength: 6 }), (changes) => {
      const damaged = file.slice();
      for (const [at, value] of changes) damaged[at] = value;
      const read = readSafetensors(damaged);
      if (!read.ok) return assert.match(read.code, /^safetensors-/);
      const size = [...read.value.tensors.values()].reduce((sum, { bytes }) => sum + bytes.length, 0);
      assert.equal(size + read.value.dataOffset, file.length);
    }),
    { numRuns: 500 },
  );
  for (let length = 0; length < file.length; length++) {
    assert.notEqual(codeOf(file.subarray(0, length)), 'ok', `cut at ${length}`);
  }
});

test('no bytes and no JSON crash the reader', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
      assert.notEqual(codeOf(bytes), 'ok');
    }),
  );
  fc.assert(
    fc.property(fc.jsonValue(), fc.nat(64), (json, dataBytes) => {
      const code = codeOf(fileOf(json, dataBytes));
      assert(code === 'ok' || code.startsWith('safetensors-'));
    }),
  );
});

test('half precision, bfloat16 and doubles widen exactly', () => {
  const halves = Uint16Array.of(0x3c00, 0xc000, 0x0001, 0x7bff, 0x7c00, 0x8000, 0x7e00);
  const widened = decodeF32('F16', bytesOf(halves));
  assert(widened.ok);
  assert.deepEqual(Array.from(widened.value), [
    1,
    -2,
    2 ** -24,
    65504,
    Number.POSITIVE_INFINITY,
    -0,
    Number.NaN,
  ]);
  const brains = decodeF32('BF16', bytesOf(Uint16Array.of(0x3f80, 0xc040, 0x7f80)));
  assert(brains.ok);
  assert.deepEqual(Array.from(brains.value), [1, -3, Number.POSITIVE_INFINITY]);
  assert.deepEqual(decodeF32('F64', bytesOf(Float64Array.of(1.5))), {
    ok: true,
    value: Float32Array.of(1.5),
  });
  const integers = decodeF32('I32', new Uint8Array(4));
  assert(!integers.ok && integers.code === 'safetensors-dtype');
});
