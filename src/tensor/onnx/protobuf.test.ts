import assert from 'node:assert/strict';
import { test } from 'node:test';
import { toHex } from '../../std/bytes.ts';
import { MessageWriter } from './protobuf.ts';

/** Vectors from the encoding guide, https://protobuf.dev/programming-guides/encoding/ */
test('the examples of the encoding guide', () => {
  assert.equal(toHex(new MessageWriter().int(1, 150).finish()), '089601');
  assert.equal(toHex(new MessageWriter().string(2, 'testing').finish()), '120774657374696e67');
  assert.equal(toHex(new MessageWriter().message(3, new MessageWriter().int(1, 150)).finish()), '1a03089601');
  assert.equal(toHex(new MessageWriter().int(1, -2).finish()), '08feffffffffffffffff01');
});

test('zero, large integers, floats and fields beyond 15', () => {
  assert.equal(toHex(new MessageWriter().int(1, 0).finish()), '0800');
  assert.equal(toHex(new MessageWriter().int(1, 2 ** 40).finish()), '08808080808020');
  assert.equal(toHex(new MessageWriter().float(2, 1).finish()), '150000803f');
  assert.equal(toHex(new MessageWriter().int(20, 7).finish()), 'a00107');
});
