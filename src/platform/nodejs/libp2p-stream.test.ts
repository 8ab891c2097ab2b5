import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Stream } from '@libp2p/interface';
import { createVirtualClock } from '../../../sim/virtual-clock.ts';
import { encodeFrame, frameHeaderBytes } from '../../net/frame.ts';
import { pieceBytesMax } from '../../net/limits.ts';
import { concatBytes } from '../../std/bytes.ts';
import type { Rejection } from '../../std/outcome.ts';
import { openFrameStream } from './libp2p-stream.ts';

/** Takes bytes while `isTaking`, and keeps what it is given in the meantime, as libp2p's streams do. */
class SlowStream extends EventTarget {
  isTaking = true;
  readonly sent: Uint8Array[] = [];
  private readonly kept: Uint8Array[] = [];
  get writeBufferLength(): number {
    return this.kept.reduce((sum, bytes) => sum + bytes.length, 0);
  }
  send(bytes: Uint8Array): boolean {
    (this.isTaking ? this.sent : this.kept).push(bytes.slice());
    return this.isTaking;
  }
  takeAll(): void {
    this.isTaking = true;
    this.sent.push(...this.kept.splice(0));
    this.dispatchEvent(new Event('idle'));
  }
  abort(): void {
    this.kept.length = 0;
    this.dispatchEvent(new Event('close'));
  }
}

function open() {
  const clock = createVirtualClock();
  const slow = new SlowStream();
  const ends: Rejection[] = [];
  const stream = openFrameStream(slow as unknown as Stream, {
    clock,
    idleTimeoutMs: 1_000,
    frameTimeoutMs: 10_000,
    admit: () => 'take',
    onFrame: () => {},
    onProgress: () => {},
    onEnd: (reason) => ends.push(reason),
  });
  return { clock, slow, ends, stream };
}

test('what may be skipped is skipped while earlier bytes have not left', async () => {
  const { slow, stream } = open();
  const frame = (body: number) => encodeFrame({ kind: 'progress', body: new Uint8Array([body]) });
  assert.equal(stream.trySend('progress', new Uint8Array([1])), true);
  slow.isTaking = false;
  assert.equal(stream.trySend('progress', new Uint8Array([2])), true);
  for (let i = 0; i < 1_000; i++) assert.equal(stream.trySend('progress', new Uint8Array([3])), false);
  assert.equal(slow.writeBufferLength, frameHeaderBytes + 1);
  slow.takeAll();
  assert.equal(stream.trySend('progress', new Uint8Array([4])), true);
  const answered = stream.send('response', new Uint8Array([5]));
  assert.equal(stream.trySend('progress', new Uint8Array([6])), false);
  await answered;
  const expected = [
    frame(1),
    frame(2),
    frame(4),
    encodeFrame({ kind: 'response', body: new Uint8Array([5]) }),
  ];
  assert.deepEqual(slow.sent, expected);
});

test('a large body leaves piece by piece, and no more of it is handed over than is taken', async () => {
  const { slow, stream, clock } = open();
  const body = new Uint8Array(3 * pieceBytesMax + 10).map((_, i) => i % 253);
  slow.isTaking = false;
  const sent = stream.send('request', body);
  await clock.advance(500);
  assert.equal(slow.writeBufferLength, frameHeaderBytes + pieceBytesMax);
  slow.takeAll();
  await sent;
  assert.deepEqual(concatBytes(...slow.sent), encodeFrame({ kind: 'request', body }));
  assert.ok(slow.sent.every((piece) => piece.length <= pieceBytesMax));
});

test('ends as `stalled` when nothing is taken for the idle time', async () => {
  const { slow, stream, clock, ends } = open();
  slow.isTaking = false;
  const sent = stream.send('request', new Uint8Array(100));
  await clock.advance(2_000);
  await sent;
  assert.equal(stream.isOpen, false);
  assert.deepEqual(
    ends.map(({ code }) => code),
    ['stalled'],
  );
});
