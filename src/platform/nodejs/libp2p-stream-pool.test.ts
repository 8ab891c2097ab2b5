import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Stream } from '@libp2p/interface';
import { createVirtualClock } from '../../../sim/virtual-clock.ts';
import { idleStreamMs, idleStreamsMax, requestsAtOnceMax } from '../../net/limits.ts';
import { statusProtocol } from '../../net/protocol.ts';
import { accept, type Outcome, reject } from '../../std/outcome.ts';
import { createStreamPool, type Lane } from './libp2p-stream-pool.ts';

/** A stream that goes nowhere; `abort` closes it as libp2p does. */
class DeadStream extends EventTarget {
  readonly writeBufferLength = 0;
  isOpen = true;
  send(): boolean {
    return true;
  }
  abort(): void {
    if (!this.isOpen) return;
    this.isOpen = false;
    this.dispatchEvent(new Event('close'));
  }
}

function startPool(open?: () => Promise<Outcome<Stream>>) {
  const clock = createVirtualClock();
  const streams: DeadStream[] = [];
  let empties = 0;
  function dead(): Stream {
    const stream = new DeadStream();
    streams.push(stream);
    return stream as unknown as Stream;
  }
  const pool = createStreamPool({
    clock,
    protocol: statusProtocol,
    openStream: open ?? (async () => accept(dead())),
    penalize: () => assert.fail('nobody did anything wrong'),
    onEmpty: () => {
      empties += 1;
    },
  });
  const openCount = () => streams.filter(({ isOpen }) => isOpen).length;
  return { clock, pool, streams, openCount, empties: () => empties };
}

const waiting = new AbortController().signal;

function laneOf(taken: Outcome<Lane>): Lane {
  assert.ok(taken.ok);
  return taken.value;
}

test('the stream used last is used again, and one that was spoilt never', async () => {
  const { pool, streams, empties } = startPool();
  const [first, second] = [laneOf(await pool.take(waiting)), laneOf(await pool.take(waiting))];
  pool.giveBack(first);
  pool.giveBack(second);
  assert.equal(await pool.take(waiting).then(laneOf), second);
  second.stream.end(reject('aborted'));
  assert.equal(await pool.take(waiting).then(laneOf), first);
  streams[0]!.abort();
  pool.giveBack(first);
  assert.equal(empties(), 1);
  assert.notEqual(await pool.take(waiting).then(laneOf), first);
  assert.equal(streams.length, 3);
});

test('so many are open, so many stay open, and for so long', async () => {
  const { clock, pool, openCount, empties } = startPool();
  const lanes = await Promise.all(Array.from({ length: requestsAtOnceMax }, () => pool.take(waiting)));
  const late: Lane[] = [];
  const impatient = new AbortController();
  const rejected = pool.take(impatient.signal);
  for (let i = 0; i < 2; i++) void pool.take(waiting).then((taken) => late.push(laneOf(taken)));
  await clock.advance(10);
  assert.deepEqual([openCount(), late.length], [requestsAtOnceMax, 0]);
  impatient.abort();
  assert.equal(((await rejected) as { code?: string }).code, 'aborted');
  pool.giveBack(laneOf(lanes[0]!));
  laneOf(lanes[1]!).stream.end(reject('stalled'));
  await clock.advance(10);
  assert.equal(late.length, 2);
  assert.equal(openCount(), requestsAtOnceMax);
  for (const lane of [...lanes.slice(2).map(laneOf), ...late]) pool.giveBack(lane);
  assert.equal(openCount(), idleStreamsMax);
  await clock.advance(idleStreamMs);
  assert.deepEqual([openCount(), empties()], [0, 1]);
});

test('who waits is told when no stream can be opened, and when all is closed', async () => {
  const failing = startPool(async () => reject('unknown-protocol'));
  assert.deepEqual(await failing.pool.take(waiting), reject('unknown-protocol'));
  assert.equal(failing.empties(), 1);
  const { pool, openCount } = startPool();
  for (let i = 0; i < requestsAtOnceMax; i++) laneOf(await pool.take(waiting));
  const last = pool.take(waiting);
  pool.close();
  assert.deepEqual([await last, openCount()], [reject('aborted'), 0]);
  assert.deepEqual(await pool.take(waiting), reject('aborted'));
});
