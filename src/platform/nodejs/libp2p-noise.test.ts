import assert from 'node:assert/strict';
import { type AddressInfo, connect, createServer } from 'node:net';
import { after, test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { generateKeyPair } from '../../identity/keys.ts';
import type { Protocol } from '../../net/protocol.ts';
import { accept } from '../../std/outcome.ts';
import { systemClock } from './clock.ts';
import { createLibp2pTransport } from './libp2p-host.ts';

const protocol: Protocol = {
  id: '/neuroshard/noise-test/1',
  requestBytesMax: 100_000,
  responseBytesMax: 100_000,
  timeoutMs: 20_000,
  idleTimeoutMs: 20_000,
  requestsPerMinuteMax: 1000,
};

async function start(bootstrap: readonly string[]) {
  const transport = await createLibp2pTransport({
    key: generateKeyPair(),
    listen: ['/ip4/127.0.0.1/tcp/0'],
    bootstrap,
    networkId: 'noise-test',
    clock: systemClock(),
    localSwarm: true,
  });
  after(() => transport.close());
  transport.handle(protocol, async (_from, body) => accept(body));
  return transport;
}

async function connected(transport: Awaited<ReturnType<typeof start>>) {
  for (let i = 0; i < 500 && transport.peers().length === 0; i++) await pause(20);
  assert.equal(transport.peers().length, 1);
}

test('a message costs no exception', async () => {
  const one = await start([]);
  const two = await start([one.addresses()[0]!]);
  await connected(two);
  const { RangeError: original } = globalThis;
  let thrown = 0;
  class Counted extends original {
    constructor(message?: string) {
      super(message);
      thrown += 1;
    }
  }
  // Also where it is made without `new`.
  globalThis.RangeError = new Proxy(Counted, {
    apply: (target, _self, [message]) => new target(message),
  }) as RangeErrorConstructor;
  try {
    for (let i = 0; i < 10; i++)
      assert((await two.request(one.self, protocol, new Uint8Array(500 + i).fill(i))).ok);
  } finally {
    globalThis.RangeError = original;
  }
  assert.equal(thrown, 0);
});

test('messages come whole through a link that cuts them anywhere', async () => {
  const one = await start([]);
  const [, , , , port, , id] = one.addresses()[0]!.split('/');
  const relay = createServer((socket) => {
    const on = connect(Number(port), '127.0.0.1').setNoDelay();
    socket.setNoDelay();
    for (const [from, to] of [
      [socket, on],
      [on, socket],
    ] as const) {
      from.on('data', (bytes) => {
        // Lengths are two bytes: every cut is met.
        for (let i = 0; i < bytes.length; i += 3) to.write(bytes.subarray(i, i + 3));
      });
      from.on('error', () => to.destroy());
      from.on('close', () => to.destroy());
    }
  });
  after(() => relay.close());
  await new Promise<void>((resolve) => relay.listen(0, '127.0.0.1', resolve));
  const relayed = `/ip4/127.0.0.1/tcp/${(relay.address() as AddressInfo).port}/p2p/${id}`;
  const two = await start([relayed]);
  await connected(two);
  for (const length of [0, 1, 2, 3, 700, 66_000]) {
    const body = Uint8Array.from({ length }, (_, i) => i % 251);
    const answer = await two.request(one.self, protocol, body);
    assert.deepEqual(answer.ok && Buffer.from(answer.value), Buffer.from(body));
  }
});
