import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { performance } from 'node:perf_hooks';
import { after, test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { type LinkOptions, retransmissions, startLinkRelay } from '../bench/support/link-relay.ts';
import { generateKeyPair } from '../src/identity/keys.ts';
import { statusProtocol } from '../src/net/protocol.ts';
import { systemClock } from '../src/platform/nodejs/clock.ts';
import { createLibp2pTransport } from '../src/platform/nodejs/libp2p-host.ts';
import { accept } from '../src/std/outcome.ts';

const closes: (() => unknown)[] = [];
after(async () => {
  for (const close of closes.reverse()) await close();
});

/** Sends back what comes. */
async function startEcho(): Promise<number> {
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on('error', () => {});
    socket.pipe(socket);
  });
  closes.push(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return (server.address() as AddressInfo).port;
}

async function startRelay(there: LinkOptions, back: LinkOptions = there) {
  const relay = await startLinkRelay({ targetPort: await startEcho(), there, back });
  closes.push(() => relay.close());
  return relay;
}

function dial(port: number) {
  const socket = connect(port, '127.0.0.1');
  const taken: Buffer[] = [];
  socket.on('data', (bytes) => taken.push(bytes));
  socket.on('error', () => {});
  closes.push(() => socket.destroy());
  const length = () => taken.reduce((sum, bytes) => sum + bytes.length, 0);
  async function receive(bytes: number): Promise<Buffer> {
    while (length() < bytes) await once(socket, 'data');
    return Buffer.concat(taken);
  }
  return { socket, length, receive };
}

const patterned = (length: number) =>
  Buffer.from(Uint8Array.from({ length }, (_, i) => (i * 31 + (i >> 8)) % 251));

test('passes everything on in order, over a link that delays, limits and loses', async () => {
  const link = { delayMs: 5, bitsPerSecond: 100e6, loss: 0.02 };
  const relay = await startRelay(link);
  const { socket, receive } = dial(relay.port);
  const sent = patterned(1_000_000);
  const beganMs = performance.now();
  socket.write(sent);
  assert.ok((await receive(sent.length)).equals(sent));
  // A link cannot be faster than it is: 80 ms for the bytes, 10 ms for the way.
  assert.ok(performance.now() - beganMs >= 89);
  assert.deepEqual(relay.bytesPassed(), { there: sent.length, back: sent.length });
});

test('stalls and goes on without losing a byte or a connection', async () => {
  const relay = await startRelay({ delayMs: 0 });
  const { socket, receive, length } = dial(relay.port);
  socket.write(patterned(100));
  await receive(100);
  relay.stall();
  socket.write(patterned(50_000));
  const late = dial(relay.port);
  late.socket.write(patterned(10));
  await pause(100);
  assert.deepEqual([length(), late.length()], [100, 0]);
  relay.resume();
  assert.ok((await receive(50_100)).subarray(100).equals(patterned(50_000)));
  assert.ok((await late.receive(10)).equals(patterned(10)));
});

test('brings the end after what was sent before it', async () => {
  const server = createServer((socket) => socket.end(patterned(100_000)));
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  closes.push(() => server.close());
  const { port: targetPort } = server.address() as AddressInfo;
  const link = { delayMs: 20, bitsPerSecond: 50e6 };
  const relay = await startLinkRelay({ targetPort, there: link, back: link });
  closes.push(() => relay.close());
  const { socket, length } = dial(relay.port);
  await once(socket, 'close');
  assert.equal(length(), 100_000);
});

test('cuts on command, and lets new connections come', async () => {
  const relay = await startRelay({ delayMs: 5 });
  const first = dial(relay.port);
  first.socket.write(patterned(1000));
  await first.receive(1000);
  const ended = once(first.socket, 'close');
  relay.cut();
  await ended;
  const again = dial(relay.port);
  again.socket.write(patterned(10));
  assert.ok((await again.receive(10)).equals(patterned(10)));
});

test('a piece is as late as its unluckiest segment', () => {
  assert.equal(retransmissions(0.999, 0, 45), 0);
  assert.equal(retransmissions(0.98, 0.01, 1), 0);
  assert.equal(retransmissions(0.995, 0.01, 1), 1);
  assert.equal(retransmissions(0.99995, 0.01, 1), 2);
  assert.equal(retransmissions(0.7, 0.01, 45), 1);
});

test('nodes behind it are dialled through it, by everybody, and know no other way', async () => {
  const target = createServer();
  await new Promise<void>((resolve) => target.listen(0, '127.0.0.1', resolve));
  const { port } = target.address() as AddressInfo;
  await new Promise((resolve) => target.close(resolve));
  const relay = await startLinkRelay({ targetPort: port, there: { delayMs: 2 }, back: { delayMs: 2 } });
  closes.push(() => relay.close());
  const common = { networkId: 'relayed', clock: systemClock(), localSwarm: true };
  const behind = await createLibp2pTransport({
    ...common,
    key: generateKeyPair(),
    listen: [`/ip4/127.0.0.1/tcp/${port}`],
    announce: [`/ip4/127.0.0.1/tcp/${relay.port}`],
    bootstrap: [],
  });
  closes.push(() => behind.close());
  const [address] = behind.addresses();
  assert.ok(address?.startsWith(`/ip4/127.0.0.1/tcp/${relay.port}/p2p/`));
  assert.equal(relay.addressOf(`/ip4/127.0.0.1/tcp/${port}/p2p/x`), `/ip4/127.0.0.1/tcp/${relay.port}/p2p/x`);
  const caller = await createLibp2pTransport({
    ...common,
    key: generateKeyPair(),
    listen: [],
    bootstrap: behind.addresses(),
  });
  closes.push(() => caller.close());
  while (caller.peers().length === 0 || behind.peers().length === 0) await pause(10);
  const impatient = { ...statusProtocol, idleTimeoutMs: 300 };
  behind.handle(impatient, async (_from, request) => accept(request));
  await pause(50);
  const ask = () => caller.request(behind.self, impatient, new Uint8Array(3));
  assert.ok((await ask()).ok);
  relay.stall();
  const stalled = await ask();
  assert.equal(stalled.ok ? 'ok' : stalled.code, 'stalled');
  relay.resume();
  assert.ok((await ask()).ok);
  relay.cut();
  while (caller.peers().length === 1) await pause(10);
  while (caller.peers().length === 0) await pause(10);
  assert.ok((await ask()).ok);
});
