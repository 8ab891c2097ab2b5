/**
 * A channel to the place where the weights live, with one shape for threads and processes. Large arrays never block the
 * sender or the receiver for long: a thread sees them where they are or gets them by transfer, a process in pieces.
 * Knows nothing of calls.
 */
import type { ChildProcess } from 'node:child_process';
import { setImmediate as yieldToLoop } from 'node:timers/promises';
import type { MessagePort } from 'node:worker_threads';
import { assert, must } from '../../std/assert.ts';
import { inTurn } from '../../std/in-turn.ts';

/** Which arrays of a message the sender gives away; it keeps the others. `rows` are those of f32. */
export type HandOver = 'all' | 'rows' | 'none';

export interface ComputePort {
  /**
   * Messages arrive in the order they were posted; resolves when this one is on its way, also when nobody is there any
   * more. What is handed over is not copied where that can be. What lies in shared memory never is between threads, and
   * neither side writes to it afterwards.
   */
  post(message: unknown, handOver: HandOver): Promise<void>;
  onMessage(listener: (message: unknown) => void): void;
  /** Called once, when the other side is gone or this side was closed. */
  onClose(listener: () => void): void;
  close(): void;
}

type TypedArray =
  | Uint8Array
  | Int8Array
  | Uint16Array
  | Int16Array
  | Uint32Array
  | Int32Array
  | Float32Array
  | Float64Array;

const arrayTypes = {
  Uint8Array,
  Int8Array,
  Uint16Array,
  Int16Array,
  Uint32Array,
  Int32Array,
  Float32Array,
  Float64Array,
} as const;
type ArrayType = keyof typeof arrayTypes;

/** Bytes copied, or sent to a process, before other work of the thread gets its turn. */
const sliceBytes = 1024 * 1024;
/** Arrays below this size travel to a process inside their message. */
const inlineBytes = 256 * 1024;

function typeOf(array: TypedArray): ArrayType {
  const type = array[Symbol.toStringTag] as ArrayType;
  assert(Object.hasOwn(arrayTypes, type), `cannot send a ${type}`);
  return type;
}

function bytesOf(array: TypedArray): Uint8Array {
  return new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
}

/** The message with every typed array replaced; plain objects and lists are copied, all else stays. */
function mapArrays(value: unknown, replace: (array: TypedArray) => unknown): unknown {
  if (typeof value !== 'object' || value === null) return value;
  if (ArrayBuffer.isView(value)) return replace(value as TypedArray);
  if (Array.isArray(value)) return value.map((element) => mapArrays(element, replace));
  return Object.fromEntries(
    Object.entries(value).map(([key, element]) => [key, mapArrays(element, replace)]),
  );
}

/** One end of a `MessageChannel` whose other end is in another thread. */
export function threadPort(port: MessagePort): ComputePort {
  const queue = inTurn();
  return {
    post: (message, handOver) =>
      queue(async () => {
        const packed = packForTransfer(message, handOver);
        await copyInSlices(packed.copies);
        port.postMessage(packed.message, [...packed.transfer]);
      }),
    onMessage: (listener) => void port.on('message', listener),
    onClose: (listener) => void port.once('close', listener),
    close: () => port.close(),
  };
}

interface Copy {
  readonly from: Uint8Array;
  readonly to: Uint8Array;
}

/** Only whole buffers are shared or handed over: a view of WebAssembly memory, or of anything larger, is copied. */
function packForTransfer(message: unknown, handOver: HandOver) {
  const transfer = new Set<ArrayBuffer>();
  const copies: Copy[] = [];
  const packed = mapArrays(message, (array) => {
    const { buffer } = array;
    const isWhole = buffer.byteLength === array.byteLength;
    if (isWhole && buffer instanceof SharedArrayBuffer) return array;
    const given = handOver === 'all' || (handOver === 'rows' && array instanceof Float32Array);
    if (given && isWhole && buffer instanceof ArrayBuffer) {
      transfer.add(buffer);
      return array;
    }
    const copy = new arrayTypes[typeOf(array)](array.length);
    transfer.add(copy.buffer);
    copies.push({ from: bytesOf(array), to: bytesOf(copy) });
    return copy;
  });
  return { message: packed, transfer, copies };
}

async function copyInSlices(copies: readonly Copy[]): Promise<void> {
  let sinceYield = 0;
  for (const { from, to } of copies) {
    for (let start = 0; start < from.length; start += sliceBytes) {
      const slice = from.subarray(start, start + sliceBytes);
      to.set(slice, start);
      sinceYield += slice.length;
      if (sinceYield < sliceBytes) continue;
      sinceYield = 0;
      await yieldToLoop();
    }
  }
}

/** What travels to a process: sizes of the large arrays, their bytes in pieces, then the message that refers to them. */
type Envelope =
  | { readonly kind: 'arrays'; readonly arrays: readonly { type: ArrayType; length: number }[] }
  | { readonly kind: 'piece'; readonly bytes: Uint8Array }
  | { readonly kind: 'message'; readonly message: unknown };

/** The IPC channel of a child, or of this process to its parent; the channel must use `serialization: 'advanced'`. */
export function processPort(channel: ChildProcess | NodeJS.Process): ComputePort {
  const queue = inTurn();
  const send = (envelope: Envelope) =>
    new Promise<void>((resolve) => {
      if (!channel.connected || !channel.send) return resolve();
      // A channel that closes under us is reported by `onClose`.
      channel.send(envelope, undefined, {}, () => resolve());
    });
  return {
    post: (message) =>
      queue(async () => {
        const large: TypedArray[] = [];
        const body = mapArrays(message, (array) => {
          if (array.byteLength < inlineBytes) return array;
          return { $array: large.push(array) - 1 };
        });
        if (large.length > 0) {
          const arrays = large.map((array) => ({ type: typeOf(array), length: array.length }));
          await send({ kind: 'arrays', arrays });
        }
        for (const array of large) await sendPieces(bytesOf(array), send);
        await send({ kind: 'message', message: body });
      }),
    onMessage(listener) {
      const receive = receiver(listener);
      channel.on('message', (envelope) => receive(envelope as Envelope));
    },
    onClose: (listener) => void channel.once('disconnect', listener),
    close: () => {
      if (channel.connected) channel.disconnect?.();
    },
  };
}

async function sendPieces(bytes: Uint8Array, send: (envelope: Envelope) => Promise<void>): Promise<void> {
  for (let start = 0; start < bytes.length; start += sliceBytes) {
    await send({ kind: 'piece', bytes: bytes.subarray(start, start + sliceBytes) });
    await yieldToLoop();
  }
}

/** Puts the arrays of each message together again. */
function receiver(listener: (message: unknown) => void): (envelope: Envelope) => void {
  let arrays: TypedArray[] = [];
  let index = 0;
  let offset = 0;
  return (envelope) => {
    if (envelope.kind === 'arrays') {
      arrays = envelope.arrays.map(({ type, length }) => new arrayTypes[type](length));
      index = 0;
      offset = 0;
    } else if (envelope.kind === 'piece') {
      const array = bytesOf(must(arrays[index], 'a piece of no array'));
      array.set(envelope.bytes, offset);
      offset += envelope.bytes.length;
      if (offset < array.length) return;
      index += 1;
      offset = 0;
    } else {
      assert(index === arrays.length, 'a message before its arrays');
      listener(resolveReferences(envelope.message, arrays));
      arrays = [];
      index = 0;
    }
  };
}

function resolveReferences(value: unknown, arrays: readonly TypedArray[]): unknown {
  if (typeof value !== 'object' || value === null || ArrayBuffer.isView(value)) return value;
  if (Array.isArray(value)) return value.map((element) => resolveReferences(element, arrays));
  if ('$array' in value) return must(arrays[value.$array as number], 'an array that was not sent');
  return Object.fromEntries(
    Object.entries(value).map(([key, element]) => [key, resolveReferences(element, arrays)]),
  );
}
