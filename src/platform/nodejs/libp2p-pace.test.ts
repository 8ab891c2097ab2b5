import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createTurnBudget, paceSocket, type SocketConnection } from './libp2p-pace.ts';

/** Turns that come when they are called for. */
function manualTurns() {
  let callbacks: (() => void)[] = [];
  return {
    nextTurn: (callback: () => void) => void callbacks.push(callback),
    turn() {
      const due = callbacks;
      callbacks = [];
      for (const callback of due) callback();
      return due.length > 0;
    },
  };
}

/** A connection whose socket tells what is done with it, and takes `room` bytes at once. */
function fakeConnection(room = Number.POSITIVE_INFINITY) {
  const calls: string[] = [];
  let writableLength = 0;
  const connection = {
    readBufferLength: 0,
    socket: {
      cork: () => calls.push('cork'),
      write(part: Uint8Array) {
        calls.push(`write ${part.length}`);
        writableLength += part.length;
        return writableLength < 64 * 1024;
      },
      uncork() {
        calls.push('uncork');
        writableLength = Math.max(0, writableLength - room);
      },
      pause: () => calls.push('pause'),
      resume: () => calls.push('resume'),
      get writableLength() {
        return writableLength;
      },
      destroyed: false,
    },
    sendData: () => assert.fail('replaced'),
    onData: (data: { readonly byteLength: number }) => void calls.push(`data ${data.byteLength}`),
    safeDispatchEvent: (type: string) => void calls.push(type),
  };
  return {
    connection: connection as unknown as SocketConnection,
    takeCalls: () => calls.splice(0),
    drain() {
      writableLength = 0;
    },
  };
}

function message(...lengths: number[]) {
  const parts = lengths.map((length) => new Uint8Array(length));
  return Object.assign(parts, { byteLength: lengths.reduce((sum, length) => sum + length, 0) });
}

test('a budget is there again in the next turn, and waiting tasks get one turn each', () => {
  const turns = manualTurns();
  const budget = createTurnBudget(100, turns.nextTurn);
  assert.equal(budget.take(60), true);
  assert.equal(budget.take(60), false);
  assert.equal(budget.take(1), false);
  const done: number[] = [];
  for (const task of [1, 2, 3]) budget.later(() => done.push(task));
  turns.turn();
  assert.deepEqual(done, [1]);
  assert.equal(budget.take(60), true);
  turns.turn();
  turns.turn();
  assert.deepEqual(done, [1, 2, 3]);
  turns.turn();
  assert.equal(turns.turn(), false, 'nothing is scheduled while nothing happens');
});

test('the parts of a message leave together', () => {
  const { connection, takeCalls } = fakeConnection();
  paceSocket(connection, createTurnBudget(1000, manualTurns().nextTurn));
  assert.deepEqual(connection.sendData(message(2, 12, 80, 16)), { sentBytes: 110, canSendMore: true });
  assert.deepEqual(takeCalls(), ['cork', 'write 2', 'write 12', 'write 80', 'write 16', 'uncork']);
});

test('a connection over the budget is full until a later turn', () => {
  const turns = manualTurns();
  const { connection, takeCalls } = fakeConnection();
  paceSocket(connection, createTurnBudget(1000, turns.nextTurn));
  assert.equal(connection.sendData(message(900)).canSendMore, true);
  assert.deepEqual(connection.sendData(message(900)), { sentBytes: 900, canSendMore: false });
  assert.equal(connection.sendData(message(1)).canSendMore, false);
  takeCalls();
  turns.turn();
  assert.deepEqual(takeCalls(), ['drain']);
  assert.equal(connection.sendData(message(1)).canSendMore, true);
});

test('a socket that has not taken its bytes is waited for, whatever the turn', () => {
  const turns = manualTurns();
  const { connection, takeCalls, drain } = fakeConnection(100_000);
  paceSocket(connection, createTurnBudget(1_000_000, turns.nextTurn));
  assert.equal(connection.sendData(message(200_000)).canSendMore, true, 'what is left is little');
  assert.equal(connection.sendData(message(300_000)).canSendMore, false);
  turns.turn();
  assert.equal(connection.sendData(message(900_000)).canSendMore, false);
  takeCalls();
  turns.turn();
  assert.deepEqual(takeCalls(), [], 'its own drain will tell');
  drain();
  assert.equal(connection.sendData(message(1)).canSendMore, true);
});

test('over the budget sockets are not read, and go on one after the other', () => {
  const turns = manualTurns();
  const budget = createTurnBudget(1000, turns.nextTurn);
  const [one, other] = [fakeConnection(), fakeConnection()];
  for (const { connection } of [one, other]) paceSocket(connection, budget);
  one.connection.onData({ byteLength: 999 });
  assert.deepEqual(one.takeCalls(), ['data 999']);
  one.connection.onData({ byteLength: 999 });
  one.connection.onData({ byteLength: 5 });
  other.connection.onData({ byteLength: 7 });
  assert.deepEqual(one.takeCalls(), ['pause', 'data 999', 'data 5'], 'what comes all the same is kept');
  assert.deepEqual(other.takeCalls(), ['pause', 'data 7']);
  turns.turn();
  assert.deepEqual([one.takeCalls(), other.takeCalls()], [['resume'], []]);
  turns.turn();
  assert.deepEqual([one.takeCalls(), other.takeCalls()], [[], ['resume']]);
});

test('a connection without a socket of its own stays as it is', () => {
  const sendData = () => ({ sentBytes: 1, canSendMore: true });
  const connection = { sendData } as unknown as SocketConnection;
  paceSocket(connection, createTurnBudget());
  assert.equal(connection.sendData, sendData);
});
