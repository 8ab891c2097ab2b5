import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { type Random, seededRandom, uniform } from '../../std/random.ts';
import { createOracleMemory } from '../../tensor/kernels/oracle.ts';
import { createKernelMemory } from '../../tensor/kernels/wasm.ts';
import { blobBytes, checkBlob, createBlob, decodeRange, encodeRange, headerBytes } from './blob.ts';
import type { CodecName } from './codec.ts';
import { codecs } from './codecs.ts';
import { accumulate, compress, residual } from './error-feedback.ts';

const names = Object.keys(codecs) as CodecName[];
const kernels = createKernelMemory({ bytes: 4 << 20 });
const randomOf = (seed: number) => seededRandom(new Uint8Array(16).fill(seed));

/** Sums of uniforms: bell-shaped, like a pseudo-gradient. */
function vectorOf(length: number, random: Random, scale = 1e-3): Float32Array {
  const x = kernels.allocF32(length);
  for (let i = 0; i < length; i++) {
    x[i] = scale * (uniform(random) + uniform(random) + uniform(random) + uniform(random) - 2);
  }
  return x;
}

function decodeAll(codec: CodecName, blob: Uint8Array, length: number): Float32Array {
  const out = kernels.allocF32(length);
  decodeRange(blob, { codec, length }, 0, out, kernels);
  return out;
}

function relativeError(x: Float32Array, y: Float32Array): number {
  const error = kernels.allocF32(x.length);
  kernels.subtract(error, x, y);
  return Math.sqrt(kernels.sumSquares(error) / kernels.sumSquares(x));
}

function scoped(body: () => void): void {
  const position = kernels.mark();
  body();
  kernels.reset(position);
}

/** Mutates a valid blob of `length` elements and checks the code. */
function assertRejected(
  codec: CodecName,
  length: number,
  code: string,
  mutate: (blob: Uint8Array) => Uint8Array,
) {
  scoped(() => {
    const blob = compress(codec, vectorOf(length, randomOf(1)), kernels.allocF32(length), kernels);
    const checked = checkBlob(mutate(blob), { codec, length });
    assert.ok(!checked.ok, `accepted, expected ${code}`);
    assert.equal(checked.code, code);
  });
}

const lengths = [1, 2, 63, 64, 65, 255, 256, 257, 4095, 4096, 4097, 20_001];

describe('compression: blobs', () => {
  for (const codec of names) {
    it(`${codec}: round trips of any length pass the check, in wasm and in the oracle alike`, () => {
      for (const length of lengths) {
        scoped(() => {
          const x = vectorOf(length, randomOf(length % 251));
          const shape = { codec, length };
          const blob = createBlob(codec, length);
          encodeRange(blob, shape, 0, x, kernels);
          assert.deepEqual(checkBlob(blob, shape), { ok: true, value: undefined });
          assert.equal(blob.length, blobBytes(codec, length));
          const oracle = createOracleMemory({ bytes: 1 << 20 });
          const again = createBlob(codec, length);
          encodeRange(again, shape, 0, x, oracle);
          assert.deepEqual(again, blob);
          // Encoding what was decoded changes nothing more.
          const decoded = decodeAll(codec, blob, length);
          if (codec !== 'sparse') {
            encodeRange(again, shape, 0, decoded, kernels);
            assert.deepEqual(decodeAll(codec, again, length), decoded);
          }
        });
      }
    });

    it(`${codec}: any aligned range decodes as it does in the whole`, () => {
      const length = 20_001;
      scoped(() => {
        const x = vectorOf(length, randomOf(3));
        const blob = compress(codec, x, kernels.allocF32(length), kernels);
        const whole = decodeAll(codec, blob, length);
        for (const [start, end] of [
          [0, 4096],
          [4096, 12_288],
          [16_384, length],
          [8192, length],
        ] as const) {
          const part = kernels.allocF32(end - start);
          decodeRange(blob, { codec, length }, start, part, kernels);
          assert.deepEqual(part, whole.subarray(start, end));
        }
        if (codecs[codec].blockLength > 1) {
          assert.throws(() => decodeRange(blob, { codec, length }, 100, kernels.allocF32(100), kernels));
        }
      });
    });

    it(`${codec}: whatever the check accepts decodes to finite values; flipped bits never crash it`, () => {
      const length = 5000;
      const position = kernels.mark();
      const valid = compress(codec, vectorOf(length, randomOf(5)), kernels.allocF32(length), kernels);
      fc.assert(
        fc.property(fc.array(fc.nat(valid.length * 8 - 1), { minLength: 1, maxLength: 3 }), (bits) => {
          const blob = valid.slice();
          for (const bit of bits) blob[bit >> 3] = blob[bit >> 3]! ^ (1 << (bit & 7));
          if (!checkBlob(blob, { codec, length }).ok) return;
          scoped(() => assert.ok(kernels.allFinite(decodeAll(codec, blob, length))));
        }),
      );
      kernels.reset(position);
    });

    it(`${codec}: rejects bytes of another size, kind, version or length`, () => {
      const length = 300;
      assertRejected(codec, length, 'truncated', (blob) => blob.slice(0, 7));
      assertRejected(codec, length, 'truncated', (blob) => blob.slice(0, -1));
      assertRejected(codec, length, 'oversize', (blob) => Uint8Array.of(...blob, 0));
      assertRejected(codec, length, 'malformed-blob', (blob) => blob.with(0, 0) as Uint8Array);
      assertRejected(codec, length, 'malformed-blob', (blob) => blob.with(3, 2) as Uint8Array);
      assertRejected(codec, length, 'wrong-codec', (blob) => blob.with(4, 9) as Uint8Array);
      assertRejected(codec, length, 'wrong-length', (blob) => blob.with(9, 7) as Uint8Array);
    });
  }

  it('rejects values that no encoder writes', () => {
    const set =
      (at: number, ...bytes: number[]) =>
      (blob: Uint8Array) => {
        blob.set(bytes, headerBytes + at);
        return blob;
      };
    assertRejected('f32', 9, 'not-finite', set(4, 0, 0, 0xc0, 0x7f));
    assertRejected('f32', 9, 'not-finite', set(32, 0, 0, 0x80, 0xff));
    for (const codec of ['int8', 'int4'] as const) {
      assertRejected(codec, 300, 'bad-scale', set(0, 0, 0, 0xc0, 0x7f));
      assertRejected(codec, 300, 'bad-scale', set(0, 0, 0, 0x80, 0xbf));
      assertRejected(codec, 300, 'bad-scale', set(0, 1, 0, 0, 0));
      assertRejected(codec, 300, 'bad-scale', set(0, 0xff, 0xff, 0x7f, 0x7f));
      assertRejected(codec, 300, 'not-canonical', set(0, 0, 0, 0, 0));
      assertRejected(codec, 300, 'not-canonical', set(4, 0x80, 0x88, 0x80));
    }
    assertRejected('int4', 3, 'not-canonical', (blob) => blob.with(-1, blob.at(-1)! | 0x10) as Uint8Array);
    assertRejected('sparse', 4096, 'bad-scale', set(0, 0, 0, 0x80, 0x7f));
    assertRejected('sparse', 4096, 'bad-scale', set(0, 0xff, 0x7e, 0x80, 0x3f));
    assertRejected('sparse', 4096, 'not-canonical', set(0, 0, 0, 0, 0));
    assertRejected('sparse', 4096, 'bad-index', set(4, ...new Uint8Array(16).fill(0)));
    assertRejected('sparse', 4096, 'bad-index', set(4, ...new Uint8Array(16).fill(0xff)));
    // All in the first bucket with the same low bits: duplicates.
    assertRejected('sparse', 4096, 'bad-index', (blob) => {
      blob.fill(0xff, headerBytes + 4, headerBytes + 12);
      blob.fill(0, headerBytes + 12, headerBytes + 68);
      return blob;
    });
    // Index 4100 − 4096 = 4 of a tail of 4 elements.
    assertRejected('sparse', 4100, 'bad-index', (blob) => {
      blob[headerBytes + 84 + 4] = 0b10;
      return blob;
    });
    assertRejected('sparse', 4097, 'not-canonical', (blob) => blob.with(-1, 4 | blob.at(-1)!) as Uint8Array);
  });

  it('refuses to encode what has diverged', () => {
    scoped(() => {
      const x = vectorOf(10, randomOf(1));
      x[7] = NaN;
      assert.throws(() => compress('int8', x, kernels.allocF32(10), kernels), { code: 'not-finite' });
    });
  });
});

describe('compression: what is lost', () => {
  it('bytes of each codec for 2^20 elements', () => {
    const bytes = Object.fromEntries(names.map((codec) => [codec, blobBytes(codec, 1 << 20)]));
    assert.deepEqual(bytes, { f32: 4_194_320, int8: 1_064_976, int4: 540_688, sparse: 21_520 });
  });

  it('stays within the step of the code for int8 and int4', () => {
    scoped(() => {
      const x = vectorOf(4096, randomOf(2));
      for (const [codec, limit, most] of [
        ['int8', 127, 0.007],
        ['int4', 7, 0.12],
      ] as const) {
        const decoded = decodeAll(codec, compress(codec, x, kernels.allocF32(4096), kernels), 4096);
        for (let start = 0; start < 4096; start += 256) {
          const absMax = Math.max(...x.subarray(start, start + 256).map(Math.abs));
          for (let i = start; i < start + 256; i++) {
            assert.ok(Math.abs(decoded[i]! - x[i]!) <= (absMax / limit) * 0.5001);
          }
        }
        const error = relativeError(x, decoded);
        assert.ok(error < most, `${codec}: ${error}`);
      }
    });
  });

  it('two fitted levels lose less than one, on what top-k keeps', () => {
    scoped(() => {
      const x = vectorOf(4096, randomOf(4));
      const decoded = decodeAll('sparse', compress('sparse', x, kernels.allocF32(4096), kernels), 4096);
      const kept = Array.from(decoded.keys()).filter((i) => decoded[i] !== 0);
      assert.equal(kept.length, 64);
      const smallest = Math.min(...kept.map((i) => Math.abs(x[i]!)));
      const larger = Array.from(x).filter((value) => Math.abs(value) > smallest);
      assert.equal(larger.length, 63);
      const mean = kept.reduce((sum, i) => sum + Math.abs(x[i]!), 0) / 64;
      const errorOf = (level: (i: number) => number) =>
        kept.reduce((sum, i) => sum + (Math.abs(x[i]!) - level(i)) ** 2, 0);
      const two = errorOf((i) => Math.abs(decoded[i]!));
      assert.ok(two < 0.5 * errorOf(() => mean), `${two}`);
      for (const i of kept) assert.equal(Math.sign(decoded[i]!), Math.sign(x[i]!));
    });
  });

  it('keeps the lower of equal magnitudes, and one form of zero', () => {
    scoped(() => {
      const x = kernels.allocF32(4096).fill(0.5);
      const decoded = decodeAll('sparse', compress('sparse', x, kernels.allocF32(4096), kernels), 4096);
      assert.deepEqual(decoded.subarray(0, 64), new Float32Array(64).fill(0.5));
      assert.deepEqual(decoded.subarray(64), new Float32Array(4032));
      for (const tiny of [0, 1e-45]) {
        const blob = compress('sparse', kernels.allocF32(4096).fill(tiny), kernels.allocF32(4096), kernels);
        assert.ok(checkBlob(blob, { codec: 'sparse', length: 4096 }).ok);
        assert.ok(decodeAll('sparse', blob, 4096).every((value) => Object.is(value, 0)));
      }
    });
  });
});

describe('compression: error feedback', () => {
  it('is a pure function of (delta, e), whatever the pieces', () => {
    const length = 12_288;
    for (const codec of names) {
      scoped(() => {
        const delta = vectorOf(length, randomOf(6));
        const e = vectorOf(length, randomOf(7));
        const eAgain = kernels.allocF32(length);
        eAgain.set(e);
        const blob = compress(codec, delta, e, kernels);
        const piecewise = createBlob(codec, length);
        for (const [start, end] of [
          [4096, length],
          [0, 4096],
        ] as const) {
          const part = eAgain.subarray(start, end);
          accumulate(codec, part, delta.subarray(start, end), kernels);
          encodeRange(piecewise, { codec, length }, start, part, kernels);
        }
        assert.deepEqual(piecewise, blob);
        assert.deepEqual(eAgain, e);
      });
    }
  });

  it('what is sent and what is fed back add up to what was to be sent', () => {
    const length = 9000;
    for (const codec of names) {
      scoped(() => {
        const e = vectorOf(length, randomOf(8));
        const blob = compress(codec, vectorOf(length, randomOf(9)), e, kernels);
        const m = e.slice();
        residual(e, blob, { codec, length }, 0, kernels);
        const sent = decodeAll(codec, blob, length);
        for (let i = 0; i < length; i++) assert.equal(e[i], Math.fround(m[i]! - sent[i]!));
        if (codec === 'f32') assert.ok(e.every((value) => value === 0));
      });
    }
  });

  it('brings a constant direction through the sparse codec in time', () => {
    scoped(() => {
      const length = 4096;
      const delta = vectorOf(length, randomOf(10));
      const e = kernels.allocF32(length);
      const total = kernels.allocF32(length);
      const rounds = 60;
      for (let round = 0; round < rounds; round++) {
        const blob = compress('sparse', delta, e, kernels);
        kernels.addScaled(total, decodeAll('sparse', blob, length), 1 / rounds);
        residual(e, blob, { codec: 'sparse', length }, 0, kernels);
      }
      const cosine =
        kernels.dot(total, delta) / Math.sqrt(kernels.sumSquares(total) * kernels.sumSquares(delta));
      assert.ok(cosine > 0.8, `${cosine}`);
    });
  });
});
