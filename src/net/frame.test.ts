import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { concatBytes, utf8 } from '../std/bytes.ts';
import { reject } from '../std/outcome.ts';
import {
  createFrameReader,
  decodeRejection,
  encodeFrame,
  encodeRejection,
  type Frame,
  frameHeader,
  frameHeaderBytes,
  rejectionBytesMax,
} from './frame.ts';

const frames = fc.array(
  fc.record({
    exchange: fc.nat({ max: 0xffff_ffff }),
    kind: fc.constantFrom('request' as const, 'response' as const, 'rejection' as const, 'cancel' as const),
    body: fc.uint8Array({ maxLength: 300 }),
  }),
  { maxLength: 8 },
);

/** The bytes cut at the given places. */
function cut(bytes: Uint8Array, places: readonly number[]): Uint8Array[] {
  const sorted = [...new Set(places.map((place) => place % (bytes.length + 1)))].sort((a, b) => a - b);
  return [0, ...sorted].map((from, index) => bytes.subarray(from, sorted[index] ?? bytes.length));
}

test('any split of the bytes decodes to the same frames', () => {
  fc.assert(
    fc.property(frames, fc.array(fc.nat()), (sent, places) => {
      const taken: Frame[] = [];
      const reader = createFrameReader(
        () => 300,
        (frame) => taken.push(frame),
      );
      for (const piece of cut(concatBytes(...sent.map(encodeFrame)), places)) {
        assert.equal(reader.push(piece), null);
      }
      assert.deepEqual(
        taken.map((frame) => ({ ...frame })),
        sent.map((frame) => ({ ...frame })),
      );
      assert.equal(reader.isInside(), false);
    }),
  );
});

test('a large body that comes byte by byte or at once is the same', () => {
  const body = new Uint8Array(200_000).map((_, index) => index % 251);
  const bytes = encodeFrame({ exchange: 7, kind: 'response', body });
  for (const size of [1, 1000, 65_536, bytes.length]) {
    const taken: Frame[] = [];
    const reader = createFrameReader(
      () => body.length,
      (frame) => taken.push(frame),
    );
    for (let offset = 0; offset < bytes.length; offset += size)
      reader.push(bytes.subarray(offset, offset + size));
    assert.deepEqual(taken, [{ exchange: 7, kind: 'response', body }]);
  }
});

test('a body over the limit is refused at its header, and nothing after it is read', () => {
  const taken: Frame[] = [];
  const reader = createFrameReader(
    (kind) => (kind === 'request' ? 10 : 0),
    (frame) => taken.push(frame),
  );
  assert.equal(reader.push(encodeFrame({ exchange: 1, kind: 'request', body: new Uint8Array(10) })), null);
  assert.equal(reader.push(frameHeader(2, 'request', 11))?.code, 'too-large');
  assert.equal(
    reader.push(encodeFrame({ exchange: 3, kind: 'request', body: new Uint8Array(1) }))?.code,
    'too-large',
  );
  assert.equal(taken.length, 1);
});

test('a header that claims 4 GiB allocates nothing of the kind', () => {
  const header = frameHeader(1, 'request', 0);
  new DataView(header.buffer).setUint32(0, 0xffff_ffff);
  const before = process.memoryUsage().arrayBuffers;
  const reader = createFrameReader(
    () => Number.MAX_SAFE_INTEGER,
    () => assert.fail('no frame is whole'),
  );
  assert.equal(reader.push(header), null);
  assert.ok(process.memoryUsage().arrayBuffers - before < 10 * 1024 * 1024);
  assert.equal(reader.isInside(), true);
});

test('unknown kinds and lengths shorter than the header are malformed', () => {
  for (const [length, kind] of [
    [5, 4],
    [5, 255],
    [4, 0],
    [0, 0],
  ] as const) {
    const header = new Uint8Array(frameHeaderBytes);
    new DataView(header.buffer).setUint32(0, length);
    header[8] = kind;
    const reader = createFrameReader(
      () => 100,
      () => assert.fail('no frame'),
    );
    assert.equal(reader.push(header)?.code, 'malformed');
  }
});

test('any bytes give frames within the limit or one rejection, and never throw', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 400 }), (bytes) => {
      let bodyBytes = 0;
      const reader = createFrameReader(
        () => 50,
        ({ body }) => {
          assert.ok(body.length <= 50);
          bodyBytes += body.length + frameHeaderBytes;
        },
      );
      const failure = reader.push(bytes);
      assert.ok(failure === null || failure.code === 'too-large' || failure.code === 'malformed');
      assert.ok(bodyBytes <= bytes.length);
    }),
  );
});

test('rejections keep code and detail; what is no code is malformed', () => {
  for (const rejection of [reject('no-such-blob'), reject('stalled', 'for 5 s, then gone')]) {
    assert.deepEqual(decodeRejection(encodeRejection(rejection)), rejection);
  }
  const long = encodeRejection(reject('too-long', 'é'.repeat(1000)));
  assert.equal(long.length, rejectionBytesMax);
  assert.equal(decodeRejection(long).code, 'too-long');
  for (const text of ['', ' detail', 'Upper', 'a\nb', 'x'.repeat(65)]) {
    assert.equal(decodeRejection(utf8(text)).code, 'malformed', JSON.stringify(text));
  }
});
