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
    kind: fc.constantFrom('request' as const, 'response' as const, 'rejection' as const, 'progress' as const),
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
        () => 'take',
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
  const bytes = encodeFrame({ kind: 'response', body });
  for (const size of [1, 1000, 65_536, bytes.length]) {
    const taken: Frame[] = [];
    const reader = createFrameReader(
      () => 'take',
      (frame) => taken.push(frame),
    );
    for (let offset = 0; offset < bytes.length; offset += size)
      reader.push(bytes.subarray(offset, offset + size));
    assert.deepEqual(taken, [{ kind: 'response', body }]);
  }
});

test('a frame that is not admitted is refused at its header, and nothing after it is read', () => {
  const taken: Frame[] = [];
  const reader = createFrameReader(
    (kind, bytes) => (kind === 'request' && bytes <= 10 ? 'take' : reject('too-large')),
    (frame) => taken.push(frame),
  );
  assert.equal(reader.push(encodeFrame({ kind: 'request', body: new Uint8Array(10) })), null);
  assert.equal(reader.push(frameHeader('request', 11))?.code, 'too-large');
  assert.equal(reader.push(encodeFrame({ kind: 'request', body: new Uint8Array(1) }))?.code, 'too-large');
  assert.equal(taken.length, 1);
});

test('a skipped body is read and forgotten, and nothing is set aside for it', () => {
  const taken: Frame[] = [];
  const reader = createFrameReader(
    (_kind, bytes) => (bytes > 10 ? 'skip' : 'take'),
    (frame) => taken.push(frame),
  );
  const next = encodeFrame({ kind: 'request', body: new Uint8Array([1]) });
  for (const length of [11, 100_000]) {
    const bytes = concatBytes(encodeFrame({ kind: 'request', body: new Uint8Array(length) }), next);
    for (let offset = 0; offset < bytes.length; offset += 999) {
      assert.equal(reader.push(bytes.subarray(offset, offset + 999)), null);
    }
  }
  assert.equal(taken.length, 2);
  const header = frameHeader('request', 0);
  new DataView(header.buffer).setUint32(0, 0xffff_ffff);
  const before = process.memoryUsage().arrayBuffers;
  assert.equal(reader.push(header), null);
  assert.ok(process.memoryUsage().arrayBuffers - before < 10 * 1024 * 1024);
  assert.equal(reader.isInside(), true);
});

test('unknown kinds and lengths shorter than the header are malformed', () => {
  for (const [length, kind] of [
    [1, 4],
    [1, 255],
    [0, 0],
  ] as const) {
    const header = new Uint8Array(frameHeaderBytes);
    new DataView(header.buffer).setUint32(0, length);
    header[4] = kind;
    const reader = createFrameReader(
      () => 'take',
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
        (_kind, bytes) => (bytes <= 50 ? 'take' : reject('too-large')),
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
