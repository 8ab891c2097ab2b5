/**
 * The part of the transport's contract that is about calls which take a while: progress frames, giving up, being left,
 * and that what went wrong with one call does not touch the next. Run by `transport-contract.ts` for both transports.
 */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { progressFramesMax } from '../src/net/limits.ts';
import type { Protocol } from '../src/net/protocol.ts';
import type { Progress } from '../src/net/transport.ts';
import { accept } from '../src/std/outcome.ts';
import { clusterOfSuite, codeOf, type StartCluster, type TransportCluster } from './transport-cluster.ts';

/** A request that a handler has, to be gone on with by the test. */
interface Held {
  readonly progress: Progress;
  readonly signal: AbortSignal;
  answer(bytes: readonly number[]): void;
}

type Asking = ReturnType<typeof askingOf>;

export function testCalls(name: string, startCluster: StartCluster, protocol: () => Protocol): void {
  const asking = askingOf(clusterOfSuite(startCluster, 2), protocol);
  describe(`${name}: progress frames`, () => {
    testFrames(asking);
    testFrameLimits(asking);
  });
  describe(`${name}: calls that end early`, () => {
    testGivingUp(asking);
    testBeingLeft(asking);
  });
}

/** Two nodes: the first asks, the second serves. */
function askingOf(cluster: () => TransportCluster, protocol: () => Protocol) {
  /** A protocol whose handler holds every request until the test answers it or the caller is gone. */
  async function hold(changes: Partial<Protocol> = {}): Promise<{ served: Protocol; held: Held[] }> {
    const served = { ...protocol(), frameBytesMax: 256, ...changes };
    const held: Held[] = [];
    cluster().transports[1]!.handle(served, (_from, _request, signal, progress) => {
      return new Promise((resolve) => {
        const answer = (bytes: readonly number[]) => resolve(accept(new Uint8Array(bytes)));
        signal.addEventListener('abort', () => answer([]));
        held.push({ progress, signal, answer });
      });
    });
    await cluster().pass(50);
    return { served, held };
  }
  function ask(asked: Protocol, signal?: AbortSignal, body = new Uint8Array(1)) {
    const frames: number[][] = [];
    const outcome = cluster().transports[0]!.request(
      cluster().transports[1]!.self,
      asked,
      body,
      signal,
      (frame) => {
        frames.push([...frame]);
      },
    );
    return { frames, outcome };
  }
  async function askAndReach(asked: Protocol, held: readonly Held[], signal?: AbortSignal) {
    const count = held.length;
    const call = ask(asked, signal);
    await cluster().until(() => held.length > count, 'the handler to have it');
    return { ...call, ...held[count]! };
  }
  return { cluster, protocol, hold, ask, askAndReach };
}

function testFrames({ cluster, hold, askAndReach }: Asking): void {
  it('come in order, before the answer', async () => {
    const { served, held } = await hold();
    const call = await askAndReach(served, held);
    for (let i = 0; i < 10; i++) call.progress(new Uint8Array([i, 7]));
    await cluster().until(() => call.frames.length === 10, 'ten frames');
    call.progress(new Uint8Array(0));
    call.progress(new Uint8Array(256));
    call.answer([42]);
    assert.deepEqual(await cluster().run(call.outcome), accept(new Uint8Array([42])));
    assert.deepEqual(
      call.frames.slice(0, 10),
      Array.from({ length: 10 }, (_, i) => [i, 7]),
    );
    assert.deepEqual(
      call.frames.slice(10).map((frame) => frame.length),
      [0, 256],
    );
  });

  it('after the answer go nowhere, not to the next call either', async () => {
    const { served, held } = await hold();
    const first = await askAndReach(served, held);
    first.answer([1]);
    assert.equal(codeOf(await cluster().run(first.outcome)), 'ok');
    const second = await askAndReach(served, held);
    first.progress(new Uint8Array([1]));
    second.progress(new Uint8Array([2]));
    await cluster().until(() => second.frames.length > 0, 'a frame');
    second.answer([2]);
    assert.deepEqual(await cluster().run(second.outcome), accept(new Uint8Array([2])));
    assert.deepEqual([first.frames, second.frames], [[], [[2]]]);
  });

  it('after the caller has given up go nowhere and harm nobody', async () => {
    const { served, held } = await hold();
    const controller = new AbortController();
    const call = await askAndReach(served, held, controller.signal);
    controller.abort();
    assert.equal(codeOf(await cluster().run(call.outcome)), 'aborted');
    call.progress(new Uint8Array([1]));
    await cluster().until(() => call.signal.aborted, 'the handler’s signal');
    call.progress(new Uint8Array([2]));
    await cluster().pass(100);
    assert.deepEqual(call.frames, []);
  });

  it('count as life, and the silence after them does not', async () => {
    const { served, held } = await hold({ idleTimeoutMs: 400 });
    const call = await askAndReach(served, held);
    for (let i = 0; i < 8; i++) {
      await cluster().pass(100);
      call.progress(new Uint8Array([i]));
    }
    await cluster().until(() => call.frames.length === 8, 'eight frames');
    assert.equal(codeOf(await cluster().run(call.outcome)), 'stalled');
    await cluster().until(() => call.signal.aborted, 'the handler’s signal');
  });
}

function testFrameLimits({ cluster, protocol, hold, ask, askAndReach }: Asking): void {
  it('are not there where the protocol has none', async () => {
    const { served, held } = await hold();
    const { frameBytesMax, ...without } = protocol();
    assert.equal(frameBytesMax, undefined);
    cluster().transports[1]!.handle(without, async (_from, request, _signal, progress) => {
      progress(request);
      return accept(request);
    });
    await cluster().pass(50);
    const call = ask(without);
    assert.equal(codeOf(await cluster().run(call.outcome)), 'ok');
    assert.deepEqual([call.frames, held.length, served.frameBytesMax], [[], 0, 256]);
  });

  it('over the limit are not sent, and not taken from one who sends them all the same', async () => {
    const { served, held } = await hold();
    const call = await askAndReach(served, held);
    call.progress(new Uint8Array(257));
    call.answer([1]);
    assert.equal(codeOf(await cluster().run(call.outcome)), 'ok');
    assert.deepEqual(call.frames, []);
    const strict = await askAndReach({ ...served, frameBytesMax: 10 }, held);
    strict.progress(new Uint8Array(11));
    assert.equal(codeOf(await cluster().run(strict.outcome)), 'too-large');
    await cluster().until(() => strict.signal.aborted, 'the handler’s signal');
  });

  it('are skipped, not kept, when there are too many', async () => {
    const { served, held } = await hold();
    const call = await askAndReach(served, held);
    for (let i = 0; i < 50_000; i++) call.progress(new Uint8Array(256));
    call.answer([3]);
    assert.deepEqual(await cluster().run(call.outcome), accept(new Uint8Array([3])));
    assert.ok(call.frames.length >= 1 && call.frames.length <= progressFramesMax(4_000));
  });
}

function testGivingUp({ cluster, hold, ask, askAndReach }: Asking): void {
  it('leave the way free for as many others as may be', async () => {
    const { served, held } = await hold();
    for (let i = 0; i < 3; i++) {
      const controller = new AbortController();
      const calls = Array.from({ length: 40 }, () => ask(served, controller.signal));
      const reached = held.length;
      await cluster().until(() => held.length > reached + 10, 'some to be there');
      controller.abort();
      const outcomes = await cluster().run(Promise.all(calls.map(({ outcome }) => outcome)));
      assert.ok(outcomes.every((outcome) => codeOf(outcome) === 'aborted'));
    }
    await cluster().until(() => held.every(({ signal }) => signal.aborted), 'all to be told');
    const calls = Array.from({ length: 40 }, () => ask(served));
    let answered = held.length;
    const all = Promise.all(calls.map(({ outcome }) => outcome));
    for (const upTo = answered + 40; answered < upTo; answered++) {
      await cluster().until(() => held.length > answered, 'the next to be there');
      held[answered]!.answer([5]);
    }
    assert.ok((await cluster().run(all)).every((outcome) => codeOf(outcome) === 'ok'));
  });

  it('in the middle of a large request free the callee as well', async () => {
    const MiB = 1024 * 1024;
    const { served, held } = await hold({ requestBytesMax: 64 * MiB });
    for (let i = 0; i < 8; i++) {
      const controller = new AbortController();
      const { outcome } = ask(served, controller.signal, new Uint8Array(63 * MiB));
      await cluster().pass(10);
      controller.abort();
      assert.equal(codeOf(await cluster().run(outcome)), 'aborted');
    }
    await cluster().pass(200);
    const call = await askAndReach(served, held);
    call.answer([1]);
    assert.equal(codeOf(await cluster().run(call.outcome)), 'ok');
  });
}

function testBeingLeft({ cluster, hold, askAndReach }: Asking): void {
  it('because the caller is gone tell the handler', async () => {
    const { served, held } = await hold();
    const call = await askAndReach(served, held);
    await cluster().stop(0);
    await cluster().until(() => call.signal.aborted, 'the handler’s signal');
    assert.notEqual(codeOf(await cluster().run(call.outcome)), 'ok');
    await cluster().restart(0);
    await cluster().until(() => cluster().transports[0]!.peers().length === 1, 'the caller to be back');
    const again = await askAndReach(served, held);
    again.answer([1]);
    assert.equal(codeOf(await cluster().run(again.outcome)), 'ok');
  });

  it('because the callee is gone say so at once', async () => {
    const { served, held } = await hold({ timeoutMs: 60_000, idleTimeoutMs: 60_000 });
    const call = await askAndReach(served, held);
    call.progress(new Uint8Array([1]));
    await cluster().until(() => call.frames.length === 1, 'a frame');
    await cluster().stop(1);
    assert.equal(codeOf(await cluster().run(call.outcome)), 'unreachable');
    await cluster().until(() => call.signal.aborted, 'the dead handler’s signal');
  });
}
