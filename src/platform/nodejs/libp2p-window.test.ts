import assert from 'node:assert/strict';
import { test } from 'node:test';
import { StreamState, YamuxStream, type YamuxStreamInit } from '@libp2p/yamux/stream';
import { spareWindowUpdates } from './libp2p-window.ts';

const window = 256 * 1024;

function open(state: StreamState) {
  const updates: number[] = [];
  const stream = new YamuxStream({
    id: '1',
    streamId: 1,
    state,
    direction: 'inbound',
    log: Object.assign(() => {}, { trace() {}, error() {} }),
    getRTT: () => -1,
    sendFrame: ({ length }: { readonly length: number }) => updates.push(length) > 0,
  } as unknown as YamuxStreamInit);
  spareWindowUpdates(stream);
  stream.addEventListener('message', () => {});
  const receive = (length: number) =>
    stream.handleData({
      header: { type: 0, flag: 0, streamID: 1, length },
      data: new Uint8Array(length),
    } as unknown as Parameters<YamuxStream['handleData']>[0]);
  return { stream, updates, receive };
}

test('room is told of when 64 KiB have come together, and all of it', () => {
  const { updates, receive } = open(StreamState.Established);
  for (let i = 0; i < 63; i++) receive(1024);
  assert.deepEqual(updates, []);
  receive(1024);
  assert.deepEqual(updates, [64 * 1024]);
  receive(window);
  assert.deepEqual(updates, [64 * 1024, window]);
});

test('a stream that is not established yet says what opens it', () => {
  const { stream, updates } = open(StreamState.Init);
  stream.sendWindowUpdate();
  assert.deepEqual(updates, [0]);
});

test('a stream that was paused tells of the room it has gained since', () => {
  const { stream, updates, receive } = open(StreamState.Established);
  stream.pause();
  receive(200 * 1024);
  assert.deepEqual(updates, []);
  stream.resume();
  assert.deepEqual(updates, [200 * 1024]);
});
