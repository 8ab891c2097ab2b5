/**
 * How libp2p's connections use their sockets: one system call for each message, and no more bytes in one turn of the
 * event loop than leave the others their turn. Of data that comes faster sockets are not read, and of data that goes
 * faster the connection says that it is full. Knows nothing of what the bytes are.
 */
import type { Socket } from 'node:net';

/**
 * What all connections together take in one turn, before they wait: encrypting, moving and checking them keeps a
 * thread for some milliseconds. Each connection may go over it once, by one read or one message.
 */
const turnBytes = 512 * 1024;
/** Bytes that a socket has not yet taken, from which on its connection is full: what a message may leave behind. */
const unsentBytesMax = 256 * 1024;

export interface TurnBudget {
  /** Takes bytes from this turn; false when nothing is left. */
  take(bytes: number): boolean;
  /** In a later turn, one task in each, in the order they came. */
  later(task: () => void): void;
}

export function createTurnBudget(
  bytesPerTurn = turnBytes,
  nextTurn: (callback: () => void) => void = (callback) => setImmediate(callback),
): TurnBudget {
  let left = bytesPerTurn;
  let isAwaited = false;
  const waiting: (() => void)[] = [];
  const awaitTurn = () => {
    if (isAwaited) return;
    isAwaited = true;
    nextTurn(beginTurn);
  };
  const beginTurn = () => {
    isAwaited = false;
    left = bytesPerTurn;
    const task = waiting.shift();
    if (waiting.length > 0) awaitTurn();
    task?.();
  };
  return {
    take(bytes) {
      left -= bytes;
      awaitTurn();
      return left > 0;
    },
    later(task) {
      waiting.push(task);
      awaitTurn();
    },
  };
}

/** What libp2p's connections have beneath their interface: where bytes meet the socket. */
export interface SocketConnection {
  readonly readBufferLength: number;
  /** Of TCP; a WebSocket has none. */
  readonly socket?: Pick<
    Socket,
    'cork' | 'write' | 'uncork' | 'pause' | 'resume' | 'writableLength' | 'destroyed'
  >;
  sendData(data: Iterable<Uint8Array> & { readonly byteLength: number }): SendResult;
  onData(data: { readonly byteLength: number }): void;
  safeDispatchEvent(type: 'drain'): void;
}

interface SendResult {
  readonly sentBytes: number;
  /** When false, nothing is sent until the connection dispatches `drain`. */
  readonly canSendMore: boolean;
}

/** Replaces both methods of a TCP connection; others stay as they are. */
export function paceSocket(connection: SocketConnection, budget: TurnBudget): void {
  const { socket } = connection;
  if (!socket) return;
  const onData = connection.onData.bind(connection);
  let readsLater = false;
  connection.onData = (data) => {
    if (!budget.take(data.byteLength) && !readsLater) {
      readsLater = true;
      socket.pause();
      budget.later(() => {
        readsLater = false;
        socket.resume();
      });
    }
    onData(data);
  };
  let sendsLater = false;
  connection.sendData = (data) => {
    // An encrypted message has four parts, and each would be a packet of its own.
    socket.cork();
    for (const part of data) socket.write(part);
    socket.uncork();
    const hasTurn = budget.take(data.byteLength);
    const hasRoom = () => socket.writableLength < unsentBytesMax;
    if (!hasTurn && !sendsLater) {
      sendsLater = true;
      budget.later(() => {
        sendsLater = false;
        // Else the socket says so itself: it has more to send than what makes it promise that.
        if (hasRoom()) connection.safeDispatchEvent('drain');
      });
    }
    return { sentBytes: data.byteLength, canSendMore: hasTurn && hasRoom() };
  };
}
