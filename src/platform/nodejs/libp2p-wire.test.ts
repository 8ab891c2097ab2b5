/**
 * What the contract suite cannot say of both transports: peers that break the wire protocol, other networks, occupied
 * ports, forwarding where not everybody is connected, and whether the traffic counter tells the truth.
 */
import assert from 'node:assert/strict';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { after, describe, it } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { privateKeyFromRaw } from '@libp2p/crypto/keys';
import { identify } from '@libp2p/identify';
import type { Libp2p, Stream } from '@libp2p/interface';
import { noise } from '@libp2p/noise';
import { tcp } from '@libp2p/tcp';
import { yamux } from '@libp2p/yamux';
import { multiaddr } from '@multiformats/multiaddr';
import { createLibp2p } from 'libp2p';
import { generateKeyPair, type KeyPair } from '../../identity/keys.ts';
import { encodeFrame, frameHeader } from '../../net/frame.ts';
import { progressFramesMax } from '../../net/limits.ts';
import type { ScorePolicy } from '../../net/peer-score.ts';
import type { Protocol } from '../../net/protocol.ts';
import { concatBytes, toHex, utf8 } from '../../std/bytes.ts';
import { sha256 } from '../../std/hash.ts';
import { accept, CodedError } from '../../std/outcome.ts';
import { systemClock } from './clock.ts';
import { encodeHello, helloProtocol } from './libp2p-hello.ts';
import { createLibp2pTransport, type Libp2pTransport, type Libp2pTransportOptions } from './libp2p-host.ts';

const networkId = 'wire-test';
const clock = systemClock();
const closes: (() => Promise<unknown>)[] = [];

const protocol: Protocol = {
  id: '/neuroshard/wire/1',
  requestBytesMax: 1000,
  responseBytesMax: 1024 * 1024,
  timeoutMs: 3_000,
  idleTimeoutMs: 250,
  requestsPerMinuteMax: 1000,
};

const wireId = (id: string) =>
  id.replace('/neuroshard/', `/neuroshard/${toHex(sha256(utf8(networkId)).subarray(0, 4))}/`);

async function start(changes: Partial<Libp2pTransportOptions> = {}): Promise<Libp2pTransport> {
  const transport = await createLibp2pTransport({
    key: generateKeyPair(),
    listen: ['/ip4/127.0.0.1/tcp/0'],
    bootstrap: [],
    networkId,
    clock,
    localSwarm: true,
    ...changes,
  });
  closes.push(() => transport.close());
  return transport;
}

async function until(condition: () => boolean, what: string): Promise<void> {
  for (let i = 0; i < 500 && !condition(); i++) await pause(20);
  assert.ok(condition(), `waited in vain for ${what}`);
}

/** A libp2p node that greets as ours do and then does as it likes. */
async function startRaw(key: KeyPair, target: Libp2pTransport): Promise<Libp2p> {
  const raw = await createLibp2p({
    privateKey: privateKeyFromRaw(key.secretKey),
    addresses: { listen: [] },
    transports: [tcp()],
    connectionEncrypters: [noise()],
    streamMuxers: [yamux()],
    connectionMonitor: { enabled: false },
    services: { identify: identify() },
  });
  closes.push(async () => {
    // Its paused streams would keep it waiting.
    for (const connection of raw.getConnections()) connection.abort(new Error('the test is over'));
    await raw.stop();
  });
  const hello = encodeFrame({
    kind: 'request',
    body: encodeHello({ networkId, neighbours: [] }),
  });
  const stream = await raw.dialProtocol(multiaddr(target.addresses()[0]!), wireId(helloProtocol.id));
  const answered = new Promise((resolve) => stream.addEventListener('message', resolve, { once: true }));
  stream.send(hello);
  await answered;
  return raw;
}

const closed = (stream: Stream) =>
  new Promise<void>((resolve) => stream.addEventListener('close', () => resolve(), { once: true }));

after(async () => {
  await Promise.all(closes.map((close) => close()));
});

const onePenalty: ScorePolicy = {
  points: { stalled: 40, malformed: 40, 'too-large': 40 },
  otherPoints: 0,
  healPointsPerMinute: 1,
  refuseAtPoints: 100,
  refuseMs: 60_000,
};

describe('a peer that breaks the wire protocol', () => {
  const cases: readonly [name: string, bytes: Uint8Array][] = [
    [
      'stops in the middle of a request',
      encodeFrame({ kind: 'request', body: new Uint8Array(500) }).subarray(0, 200),
    ],
    ['stops in the middle of a header', frameHeader('request', 100).subarray(0, 3)],
    ['announces more than the limit', frameHeader('request', 1001)],
    ['sends what is no frame', utf8('GET / HTTP/1.1\r\n\r\n')],
    ['answers where it should ask', encodeFrame({ kind: 'response', body: new Uint8Array(0) })],
    ['sends a frame of an unknown kind', new Uint8Array([0, 0, 0, 1, 9])],
  ];
  for (const [name, bytes] of cases) {
    it(`${name}: its stream is reset, the third time it is refused, others are served`, async () => {
      const target = await start({ scorePolicy: onePenalty });
      target.handle(protocol, async (_from, request) => accept(request));
      await pause(50);
      const key = generateKeyPair();
      const raw = await startRaw(key, target);
      const address = multiaddr(target.addresses()[0]!);
      for (let i = 0; i < 3; i++) {
        const stream = await raw.dialProtocol(address, wireId(protocol.id));
        const ended = closed(stream);
        stream.send(bytes);
        await ended;
      }
      await until(() => raw.getConnections().length === 0, 'the connection to end');
      await assert.rejects(raw.dialProtocol(address, wireId(protocol.id)));
      const honest = await start({ bootstrap: target.addresses() });
      await until(() => honest.peers().length === 1, 'an honest peer');
      const outcome = await honest.request(target.self, protocol, new Uint8Array(10));
      assert.ok(outcome.ok);
    });
  }

  it('stops in the middle of an answer: the request is `stalled`', async () => {
    const target = await start();
    const key = generateKeyPair();
    const raw = await startRaw(key, target);
    await raw.handle(wireId(protocol.id), (stream) => {
      const half = encodeFrame({ kind: 'response', body: new Uint8Array(1000) }).subarray(0, 500);
      stream.addEventListener('message', () => stream.send(half), { once: true });
    });
    const outcome = await target.request(key.nodeId, protocol, new Uint8Array(1));
    assert.equal(outcome.ok ? 'ok' : outcome.code, 'stalled');
  });

  it('drips an answer byte by byte: the whole deadline ends it', async () => {
    const target = await start();
    const key = generateKeyPair();
    const raw = await startRaw(key, target);
    await raw.handle(wireId(protocol.id), (stream) => {
      stream.send(frameHeader('response', 1000));
      const timer = setInterval(() => stream.status === 'open' && stream.send(new Uint8Array(1)), 50);
      stream.addEventListener('close', () => clearInterval(timer));
    });
    const outcome = await target.request(key.nodeId, { ...protocol, timeoutMs: 700 }, new Uint8Array(1));
    assert.ok(!outcome.ok);
    assert.ok(outcome.code === 'timeout' || outcome.code === 'stalled', outcome.code);
  });

  it('floods with progress frames in place of an answer: the call ends as `malformed`', async () => {
    const target = await start();
    const key = generateKeyPair();
    const raw = await startRaw(key, target);
    const frames = concatBytes(
      ...Array.from({ length: 2_000 }, () => encodeFrame({ kind: 'progress', body: new Uint8Array(8) })),
    );
    await raw.handle(wireId(protocol.id), (stream) => {
      stream.addEventListener('message', () => stream.send(frames), { once: true });
    });
    let taken = 0;
    const outcome = await target.request(
      key.nodeId,
      { ...protocol, frameBytesMax: 8 },
      new Uint8Array(1),
      undefined,
      () => {
        taken += 1;
      },
    );
    assert.equal(outcome.ok ? 'ok' : outcome.code, 'malformed');
    assert.ok(taken > 0 && taken <= 2 * progressFramesMax(protocol.timeoutMs), `${taken} frames taken`);
  });

  it('asks and does not read: its streams are few, and each gets one answer prepared', async () => {
    const target = await start();
    const body = new Uint8Array(1024 * 1024);
    let answers = 0;
    target.handle({ ...protocol, idleTimeoutMs: 1_000 }, async () => {
      answers += 1;
      return accept(body);
    });
    await pause(50);
    const raw = await startRaw(generateKeyPair(), target);
    const address = multiaddr(target.addresses()[0]!);
    const request = encodeFrame({ kind: 'request', body: new Uint8Array(1) });
    let ended = 0;
    const open = async () => {
      const stream = await raw.dialProtocol(address, wireId(protocol.id), { maxOutboundStreams: 100 });
      stream.addEventListener('close', () => {
        ended += 1;
      });
      stream.pause();
      stream.send(request);
    };
    await Promise.allSettled(Array.from({ length: 60 }, open));
    await until(() => answers > 0 && ended >= answers, 'the streams to be given up');
    assert.ok(answers <= 20, `${answers} answers prepared`);
  });

  it('asks again before it has its answer: the stream is reset', async () => {
    const target = await start();
    let stopped = 0;
    target.handle(protocol, async (_from, _request, signal) => {
      await new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve()));
      stopped += 1;
      return accept(new Uint8Array(0));
    });
    await pause(50);
    const raw = await startRaw(generateKeyPair(), target);
    const stream = await raw.dialProtocol(multiaddr(target.addresses()[0]!), wireId(protocol.id));
    const ended = closed(stream);
    for (let i = 0; i < 2; i++) stream.send(encodeFrame({ kind: 'request', body: new Uint8Array(1) }));
    await ended;
    await until(() => stopped === 1, 'the handler to be told');
  });

  it('announces more than is held for one peer: the rest is `busy`, and room again once streams end', async () => {
    const target = await start();
    const large: Protocol = { ...protocol, requestBytesMax: 64 * 1024 * 1024, idleTimeoutMs: 60_000 };
    target.handle(large, async (_from, request) => accept(request));
    await pause(50);
    const raw = await startRaw(generateKeyPair(), target);
    const address = multiaddr(target.addresses()[0]!);
    const openWith = async (bytes: Uint8Array) => {
      const stream = await raw.dialProtocol(address, wireId(large.id), { maxOutboundStreams: 100 });
      const answer = new Promise<string>((resolve) => {
        stream.addEventListener('message', ({ data }) => {
          resolve(new TextDecoder().decode(data.subarray()));
        });
      });
      stream.send(bytes);
      return { stream, answer };
    };
    const held = [];
    for (let i = 0; i < 4; i++) held.push(await openWith(frameHeader('request', large.requestBytesMax)));
    await pause(100);
    const { answer } = await openWith(frameHeader('request', large.requestBytesMax));
    assert.match(await answer, /busy/);
    for (const { stream } of held) stream.abort(new Error('enough'));
    await pause(100);
    const again = await openWith(encodeFrame({ kind: 'request', body: utf8('room again') }));
    assert.match(await again.answer, /room again/);
  });

  it('does not greet: it is served nothing and is no peer', async () => {
    const target = await start();
    target.handle(protocol, async (_from, request) => accept(request));
    const stranger = await start({ networkId: 'another', bootstrap: target.addresses() });
    await pause(800);
    assert.deepEqual(target.peers(), []);
    assert.deepEqual(stranger.peers(), []);
  });
});

it('forwards messages between nodes that cannot be connected to each other', async () => {
  const middle = await start();
  const [left, right] = await Promise.all(
    [0, 1].map(() => start({ listen: [], bootstrap: middle.addresses() })),
  );
  await until(
    () => middle.peers().length === 2 && left!.peers().length === 1 && right!.peers().length === 1,
    'a line',
  );
  const taken: string[] = [];
  for (const transport of [left!, middle, right!]) {
    transport.subscribe('line', 100, (from, message) => {
      taken.push(`${transport.self} ${from} ${toHex(message)}`);
    });
  }
  // Subscriptions take a moment to be known; what is published before that reaches nobody.
  const passedOn = () => taken.find((line) => line.startsWith(right!.self));
  for (let i = 0; i < 50 && !passedOn(); i++) {
    await left!.publish('line', new Uint8Array([i]));
    await pause(100);
  }
  const [, from, hex] = passedOn()!.split(' ');
  assert.equal(from, middle.self);
  assert.equal(taken.filter((line) => line.endsWith(` ${hex}`)).length, 2);
  assert.ok(taken.includes(`${middle.self} ${left!.self} ${hex}`));
});

it('does not forward what its own handler penalised, and parts with who sent it', async () => {
  const middle = await start({ scorePolicy: { ...onePenalty, otherPoints: 100 } });
  const [left, right] = await Promise.all(
    [0, 1].map(() => start({ listen: [], bootstrap: middle.addresses() })),
  );
  await until(() => middle.peers().length === 2, 'a line');
  let judged = 0;
  let passedOn = 0;
  middle.subscribe('judged', 100, (from) => {
    judged += 1;
    middle.penalize(from, 'made-up');
  });
  right!.subscribe('judged', 100, () => {
    passedOn += 1;
  });
  for (let i = 0; i < 50 && judged === 0; i++) {
    await left!.publish('judged', new Uint8Array([i]));
    await pause(100);
  }
  await until(() => middle.peers().length === 1, 'the sender to be refused');
  await pause(300);
  assert.deepEqual([judged, passedOn, middle.peers()], [1, 0, [right!.self]]);
});

it('nodes that all dial each other at once, by addresses without ids, form one mesh', async () => {
  const holders = await Promise.all([0, 1, 2, 3].map(() => holdPort()));
  const listen = holders.map(({ port }) => `/ip4/127.0.0.1/tcp/${port}`);
  await Promise.all(holders.map(({ release }) => release()));
  const all = await Promise.all(
    listen.map((own) => start({ listen: [own], bootstrap: listen.filter((other) => other !== own) })),
  );
  await until(() => all.every((transport) => transport.peers().length === 3), 'a full mesh');
  const taken = all.map(() => new Set<string>());
  all.forEach((transport, index) => {
    transport.subscribe('mesh', 100, (from) => {
      taken[index]!.add(from);
    });
  });
  for (let i = 0; i < 100 && taken.some((froms) => froms.size < 3); i++) {
    for (const transport of all) await transport.publish('mesh', new Uint8Array([i]));
    await pause(50);
  }
  for (const [index, froms] of taken.entries()) assert.equal(froms.size, 3, `node ${index} hears all others`);
});

async function holdPort() {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const release = () => new Promise((resolve) => server.close(resolve));
  return { port: (server.address() as AddressInfo).port, release };
}

it('sends a small announcement once to each peer, and nothing while idle', async () => {
  const first = await start();
  const others = await Promise.all([0, 1, 2].map(() => start({ bootstrap: first.addresses() })));
  const all = [first, ...others];
  await until(() => all.every((transport) => transport.peers().length === 3), 'a full mesh');
  let deliveries = 0;
  for (const transport of all) {
    transport.subscribe('cost', 1000, () => {
      deliveries += 1;
    });
  }
  const sent = () => all.reduce((sum, transport) => sum + transport.traffic().bytesSent, 0);
  let sentInAWindow = 1;
  for (let i = 0; i < 10 && sentInAWindow > 0; i++) {
    const beforeWindow = sent();
    await pause(2_000);
    sentInAWindow = sent() - beforeWindow;
  }
  assert.equal(sentInAWindow, 0, 'bytes sent while idle');
  const costs: number[] = [];
  // A round trip is measured now and then: not beside all of them.
  for (let i = 1; i <= 3; i++) {
    const before = sent();
    await first.publish('cost', new Uint8Array(300));
    await until(() => deliveries === 3 * i, 'three deliveries');
    await pause(300);
    costs.push(sent() - before);
  }
  assert.ok(Math.min(...costs) < 3 * 420, `${costs.join(', ')} bytes for three deliveries of 300`);
});

it('says `port-in-use` in one line, and leaves nothing open', async () => {
  const blocker = createServer();
  await new Promise<void>((resolve) => blocker.listen(0, '127.0.0.1', resolve));
  const { port } = blocker.address() as AddressInfo;
  await assert.rejects(start({ listen: [`/ip4/127.0.0.1/tcp/${port}`] }), (error) => {
    assert.ok(error instanceof CodedError);
    assert.equal(error.code, 'port-in-use');
    assert.equal(error.message.includes('\n'), false);
    assert.match(error.message, new RegExp(`${port}`));
    return true;
  });
  blocker.close();
});

it('says `bad-address` for what is no multiaddress', async () => {
  for (const options of [{ listen: ['127.0.0.1:8000'] }, { bootstrap: ['nowhere'] }]) {
    await assert.rejects(
      start(options),
      (error) => error instanceof CodedError && error.code === 'bad-address',
    );
  }
});

it('counts every byte on the socket', async () => {
  const target = await start();
  const proxy = await startProxy(Number(multiaddr(target.addresses()[0]!).getComponents()[1]!.value));
  const dialler = await start({ bootstrap: [`/ip4/127.0.0.1/tcp/${proxy.port}`], listen: [] });
  await until(() => dialler.peers().length === 1, 'the peer behind the proxy');
  target.handle(protocol, async () => accept(new Uint8Array(500_000)));
  await pause(100);
  assert.ok((await dialler.request(target.self, protocol, new Uint8Array(1000))).ok);
  // What is on its way has been counted at one end only.
  const isCounted = () => {
    const [near, far] = [dialler.traffic(), target.traffic()];
    const isNear = near.bytesSent === proxy.up() && near.bytesReceived === proxy.down();
    return isNear && far.bytesSent === proxy.down() && far.bytesReceived === proxy.up();
  };
  await pause(300);
  await until(isCounted, 'the same counts at both ends and between them');
  assert.ok(proxy.down() > 500_000);
  await dialler.close();
  proxy.server.close();
});

async function startProxy(targetPort: number) {
  let up = 0;
  let down = 0;
  const server: Server = createServer((socket: Socket) => {
    const upstream = connect(targetPort, '127.0.0.1');
    socket.on('data', (bytes) => {
      up += bytes.length;
    });
    upstream.on('data', (bytes) => {
      down += bytes.length;
    });
    for (const end of [socket, upstream]) end.on('error', () => {});
    socket.pipe(upstream).pipe(socket);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return { server, port: (server.address() as AddressInfo).port, up: () => up, down: () => down };
}
