import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { generateKeyPair } from '../../identity/keys.ts';
import { type Canonical, encodeCanonical } from '../../std/codec.ts';
import { decodeHello, encodeHello, neighboursListedMax } from './libp2p-hello.ts';

const publicKey = generateKeyPair().publicKey;

test('a hello comes back as it was', () => {
  fc.assert(
    fc.property(
      fc.option(
        fc.array(
          fc.record(
            {
              publicKey: fc.uint8Array({ minLength: 33, maxLength: 33 }),
              addresses: fc.array(fc.uint8Array({ maxLength: 128 }), { maxLength: 3 }),
            },
            { noNullPrototype: true },
          ),
          { maxLength: neighboursListedMax },
        ),
      ),
      (neighbours) => {
        const hello = { networkId: 'net', neighbours };
        const decoded = decodeHello(encodeHello(hello), 'net');
        assert.ok(decoded.ok);
        assert.deepEqual(decoded.value.neighbours, neighbours);
      },
    ),
  );
});

test('another network is said to be one', () => {
  const decoded = decodeHello(encodeHello({ networkId: 'net', neighbours: [] }), 'other');
  assert.equal(decoded.ok ? 'ok' : decoded.code, 'other-network');
});

test('malformed hellos are rejected', () => {
  const neighbour = [publicKey, []];
  const malformed: Canonical[] = [
    null,
    'net',
    [],
    ['net'],
    ['net', [], []],
    ['net', 'all'],
    ['net', [null]],
    ['net', [[publicKey]]],
    ['net', [[publicKey.subarray(1), []]]],
    ['net', [['key', []]]],
    ['net', [[publicKey, null]]],
    ['net', [[publicKey, ['/ip4/127.0.0.1']]]],
    ['net', [[publicKey, [new Uint8Array(129)]]]],
    ['net', [[publicKey, Array(4).fill(new Uint8Array(8))]]],
    ['net', Array(neighboursListedMax + 1).fill(neighbour)],
  ];
  for (const value of malformed) {
    const decoded = decodeHello(encodeCanonical(value), 'net');
    assert.equal(decoded.ok ? 'ok' : decoded.code, 'malformed', JSON.stringify(value));
  }
});

test('any bytes are a hello or a rejection, and never throw', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
      assert.equal(decodeHello(bytes, 'net').ok, false);
    }),
  );
  assert.equal(decodeHello(new Uint8Array(20_000), 'net').ok, false);
});
