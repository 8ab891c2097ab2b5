import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createVirtualClock } from '../../sim/virtual-clock.ts';
import type { TransportCluster } from '../../test/transport-cluster.ts';
import { testTransport } from '../../test/transport-contract.ts';
import { utf8 } from '../std/bytes.ts';
import { sha256, sha256Hex } from '../std/hash.ts';
import { accept } from '../std/outcome.ts';
import { seededRandom, uniformBelow } from '../std/random.ts';
import type { MemoryHubOptions } from './memory-hub.ts';
import { createMemoryHub } from './memory-transport.ts';
import type { ScorePolicy } from './peer-score.ts';
import { statusProtocol, trainProtocol } from './protocol.ts';
import type { Transport } from './transport.ts';

const idOf = (index: number) => sha256Hex(utf8(`node ${index}`));

function startHub(options: Partial<MemoryHubOptions> & { readonly seed?: string } = {}) {
  const clock = createVirtualClock();
  const random = seededRandom(sha256(utf8(options.seed ?? 'seed')));
  return { clock, random, hub: createMemoryHub({ clock, random, onError: () => {}, ...options }) };
}

async function startCluster(count: number, scorePolicy?: ScorePolicy): Promise<TransportCluster> {
  const { clock, hub } = startHub({ roundTripMs: () => 6, ...(scorePolicy && { scorePolicy }) });
  const transports = Array.from({ length: count }, (_, index) => hub.join(idOf(index)));
  return {
    transports,
    pass: (ms) => clock.advance(ms),
    async until(condition, what) {
      for (let ms = 0; ms < 20_000 && !condition(); ms += 10) await clock.advance(10);
      assert.ok(condition(), `waited in vain for ${what}`);
    },
    async run(promise) {
      let settled = false;
      const ended = promise.finally(() => {
        settled = true;
      });
      ended.catch(() => {});
      for (let ms = 0; ms < 60_000 && !settled; ms += 10) await clock.advance(10);
      return await ended;
    },
    async stop(index) {
      hub.crash(idOf(index));
    },
    async restart(index) {
      transports[index] = hub.join(idOf(index));
    },
    async close() {
      for (const transport of transports) await transport.close();
    },
  };
}

testTransport('in memory', startCluster);

/** Five nodes talk over a bad network; the result says all that anybody saw, with the time. */
async function chatter(seed: string): Promise<readonly string[]> {
  const random = seededRandom(sha256(utf8(`links ${seed}`)));
  const link = () => ({ delayMs: uniformBelow(random, 200), lost: uniformBelow(random, 10) === 0 });
  const { clock, hub } = startHub({ seed, link });
  const seen: string[] = [];
  const transports: Transport[] = Array.from({ length: 5 }, (_, index) => hub.join(idOf(index)));
  transports.forEach((transport, index) => {
    transport.subscribe('t', 100, (_from, message) => {
      seen.push(`${clock.nowMs()} ${index} took ${message[0]}`);
    });
    transport.handle(statusProtocol, async (_from, request) => accept(request));
  });
  for (let i = 0; i < 20; i++) {
    const transport = transports[i % 5]!;
    await transport.publish('t', new Uint8Array([i]));
    void transport.request(idOf((i + 1) % 5), statusProtocol, new Uint8Array([i])).then((outcome) => {
      seen.push(`${clock.nowMs()} ${i} answered ${outcome.ok ? 'ok' : outcome.code}`);
    });
    if (i === 8) hub.partition([[0, 1].map(idOf), [2, 3, 4].map(idOf)]);
    if (i === 14) hub.partition(null);
    await clock.advance(50);
  }
  await clock.advance(20_000);
  return seen;
}

test('a seed replays exactly, and another seed does not', async () => {
  const first = await chatter('a');
  assert.ok(first.length > 60);
  assert.deepEqual(await chatter('a'), first);
  assert.notDeepEqual(await chatter('b'), first);
});

test('a lost request or answer is `stalled`; a lost announcement never comes', async () => {
  const { clock, hub } = startHub({ link: () => ({ delayMs: 1, lost: true }) });
  const [first, second] = [hub.join(idOf(0)), hub.join(idOf(1))];
  let deliveries = 0;
  second.subscribe('t', 10, () => {
    deliveries += 1;
  });
  second.handle(statusProtocol, async (_from, request) => accept(request));
  const outcome = first.request(second.self, { ...statusProtocol, timeoutMs: 60_000 }, new Uint8Array(1));
  await first.publish('t', new Uint8Array(1));
  await clock.advance(statusProtocol.idleTimeoutMs);
  assert.equal((await outcome).ok ? 'ok' : 'rejected', 'rejected');
  assert.deepEqual(await outcome, { ok: false, code: 'stalled', detail: '' });
  assert.equal(deliveries, 0);
});

test('a partition cuts what is on its way; healing connects again', async () => {
  const { clock, hub } = startHub({ link: () => ({ delayMs: 100, lost: false }) });
  const transports = [0, 1, 2].map((index) => hub.join(idOf(index)));
  const taken: number[] = [];
  transports[1]!.subscribe('t', 10, (_from, message) => {
    taken.push(message[0]!);
  });
  await transports[0]!.publish('t', new Uint8Array([1]));
  await clock.advance(50);
  hub.partition([[idOf(0), idOf(2)], [idOf(1)]]);
  assert.deepEqual(transports[0]!.peers(), [idOf(2)]);
  assert.deepEqual(transports[1]!.peers(), []);
  await transports[0]!.publish('t', new Uint8Array([2]));
  await clock.advance(1_000);
  hub.partition(null);
  assert.equal(transports[1]!.peers().length, 2);
  await transports[0]!.publish('t', new Uint8Array([3]));
  await clock.advance(1_000);
  assert.deepEqual(taken, [3]);
});

test('a crashed node is silent, and may join again', async () => {
  const { clock, hub } = startHub();
  const first = hub.join(idOf(0));
  const old = hub.join(idOf(1));
  const taken: number[] = [];
  first.subscribe('t', 10, (_from, message) => {
    taken.push(message[0]!);
  });
  await old.publish('t', new Uint8Array([1]));
  hub.crash(idOf(1));
  await old.publish('t', new Uint8Array([2]));
  assert.deepEqual(hub.nodes(), [idOf(0)]);
  const again = hub.join(idOf(1));
  await again.publish('t', new Uint8Array([3]));
  await clock.advance(100);
  assert.deepEqual(taken, [3]);
  assert.throws(() => hub.join(idOf(1)), /already joined/);
});

test('what a sender or receiver does to its bytes afterwards reaches nobody else', async () => {
  const { clock, hub } = startHub();
  const transports = [0, 1, 2].map((index) => hub.join(idOf(index)));
  const taken: number[] = [];
  for (const transport of transports.slice(1)) {
    transport.subscribe('t', 10, (_from, message) => {
      taken.push(message[0]!);
      message[0] = 99;
    });
  }
  const message = new Uint8Array([1]);
  await transports[0]!.publish('t', message);
  message[0] = 50;
  await clock.advance(100);
  assert.deepEqual(taken, [1, 1]);
});

test('a bug in a request handler comes out of the clock', async () => {
  const clock = createVirtualClock();
  const hub = createMemoryHub({ clock, random: seededRandom(new Uint8Array(16)) });
  const [first, second] = [hub.join(idOf(0)), hub.join(idOf(1))];
  second.handle(statusProtocol, async () => {
    throw new Error('a bug');
  });
  void first.request(second.self, statusProtocol, new Uint8Array(1));
  await assert.rejects(clock.advance(100), /a bug/);
});

test('a link with a rate takes its time; bytes that move are life, and small messages pass between', async () => {
  const { clock, hub } = startHub({
    link: () => ({ delayMs: 10, lost: false, bytesPerSecond: 1_000_000 }),
  });
  const [first, second] = [hub.join(idOf(0)), hub.join(idOf(1))];
  second.handle(trainProtocol, async () => accept(new Uint8Array(0)));
  second.handle(statusProtocol, async (_from, request) => accept(request));
  const beganMs = clock.nowMs();
  const ended = { small: 0, large: 0, second: 0 };
  const note = (name: keyof typeof ended) => (outcome: { readonly ok: boolean }) => {
    assert.ok(outcome.ok);
    ended[name] = clock.nowMs() - beganMs;
  };
  const patient = { ...trainProtocol, idleTimeoutMs: 1_000 };
  void first.request(second.self, patient, new Uint8Array(5_000_000)).then(note('large'));
  void first.request(second.self, patient, new Uint8Array(5_000_000)).then(note('second'));
  void first.request(second.self, statusProtocol, new Uint8Array(10)).then(note('small'));
  await clock.advance(12_000);
  assert.ok(ended.small > 0 && ended.small < 700, `${ended.small}`);
  assert.ok(ended.large >= 5_000 && ended.large < 5_500, `${ended.large}`);
  assert.ok(ended.second >= 10_000 && ended.second < 10_700, `${ended.second}`);
});

test('a stalled node says nothing and keeps its connections; then everything goes on', async () => {
  const { clock, hub } = startHub();
  const [first, second] = [hub.join(idOf(0)), hub.join(idOf(1))];
  const told: string[] = [];
  second.handle({ ...trainProtocol, idleTimeoutMs: 1_000 }, async (_from, request, signal, progress) => {
    signal.addEventListener('abort', () => told.push('aborted'));
    for (let i = 0; i < 20; i++) {
      clock.setTimer(i * 100, () => progress(new Uint8Array([i])));
    }
    await new Promise<void>((resolve) => clock.setTimer(2_000, resolve));
    return accept(request);
  });
  const frames: number[] = [];
  const ask = (idleTimeoutMs: number) =>
    first.request(second.self, { ...trainProtocol, idleTimeoutMs }, new Uint8Array(1), undefined, (frame) =>
      frames.push(frame[0]!),
    );
  const impatient = ask(500);
  const patient = ask(5_000);
  await clock.advance(450);
  const before = frames.length;
  assert.ok(before > 4);
  hub.stall(second.self);
  await clock.advance(1_500);
  assert.equal(frames.length, before);
  assert.deepEqual(await impatient, { ok: false, code: 'stalled', detail: '' });
  assert.deepEqual([told, first.peers()], [[], [second.self]]);
  hub.resume(second.self);
  await clock.advance(1_000);
  assert.ok((await patient).ok);
  assert.deepEqual(told, ['aborted']);
  assert.deepEqual(
    [...new Set(frames)],
    Array.from({ length: 20 }, (_, i) => i),
  );
});

test('giving up reaches the handler over the link, and in spite of losses', async () => {
  let lost = false;
  const { clock, hub } = startHub({ link: () => ({ delayMs: 100, lost }) });
  const [first, second] = [hub.join(idOf(0)), hub.join(idOf(1))];
  const beganMs = clock.nowMs();
  let toldMs = 0;
  second.handle(trainProtocol, (_from, request, signal) => {
    return new Promise((resolve) => {
      signal.addEventListener('abort', () => {
        toldMs = clock.nowMs() - beganMs;
        resolve(accept(request));
      });
    });
  });
  const controller = new AbortController();
  const outcome = first.request(second.self, trainProtocol, new Uint8Array(1), controller.signal);
  await clock.advance(200);
  lost = true;
  controller.abort();
  await clock.advance(500);
  assert.deepEqual(await outcome, { ok: false, code: 'aborted', detail: '' });
  assert.equal(toldMs, 300);
});

test('requests beyond the bytes that are held for one peer are `busy`', async () => {
  const { clock, hub } = startHub();
  const [first, second] = [hub.join(idOf(0)), hub.join(idOf(1))];
  second.handle(trainProtocol, async (_from, _request, signal) => {
    await new Promise((resolve) => signal.addEventListener('abort', resolve));
    return accept(new Uint8Array(0));
  });
  const controller = new AbortController();
  const codes: string[] = [];
  const body = new Uint8Array(trainProtocol.requestBytesMax);
  for (let i = 0; i < 5; i++) {
    void first.request(second.self, trainProtocol, body, controller.signal).then((outcome) => {
      codes.push(outcome.ok ? 'ok' : outcome.code);
    });
  }
  await clock.advance(100);
  assert.deepEqual(codes, ['busy']);
  controller.abort();
  await clock.advance(100);
  assert.deepEqual(codes, ['busy', 'aborted', 'aborted', 'aborted', 'aborted']);
});
