/**
 * Calls across a compute port: an object whose methods are asynchronous is served on one side and used on the other as
 * if it were there. Calls run one after another, in the order they were made. Knows nothing of what the methods do.
 */
import type { StageReplica } from '../../diloco/replica.ts';
import { CodedError } from '../../std/outcome.ts';
import type { ComputePort, HandOver } from './compute-port.ts';

/**
 * Every method, and what becomes of arrays: `kept` by both sides; `fresh` in the result, so that they may be handed over;
 * `rows` go over to the other side in both directions, as `PipelineStage` has it.
 */
export type MethodTable<Service> = { readonly [Method in keyof Service]-?: Arrays };
type Arrays = 'kept' | 'fresh' | 'rows';

const ofParameters: Readonly<Record<Arrays, HandOver>> = { kept: 'none', fresh: 'none', rows: 'rows' };
const ofResult: Readonly<Record<Arrays, HandOver>> = { kept: 'none', fresh: 'all', rows: 'rows' };

const replicaMethods: MethodTable<StageReplica> = {
  info: 'kept',
  position: 'kept',
  trainStep: 'kept',
  evaluate: 'kept',
  // The replica gives the same bytes when it is asked again.
  contribute: 'kept',
  screen: 'kept',
  closeRound: 'kept',
  readLeaf: 'kept',
  install: 'kept',
  snapshot: 'fresh',
  restore: 'kept',
  generate: 'kept',
  openSession: 'kept',
  decode: 'fresh',
  closeSession: 'kept',
  record: 'kept',
  evidenceIndex: 'fresh',
  evidenceLeaf: 'fresh',
  replay: 'kept',
  breakChain: 'kept',
  exportWeights: 'fresh',
  close: 'kept',
  forward: 'rows',
  backward: 'rows',
  prepareStep: 'kept',
  applyStep: 'kept',
  discard: 'kept',
  evaluateRows: 'rows',
  evaluateLoss: 'rows',
};

interface Call {
  readonly id: number;
  readonly method: string;
  readonly parameters: readonly unknown[];
}

interface WireError {
  readonly name: string;
  readonly code?: string;
  readonly message: string;
}

type Reply =
  | { readonly id: number; readonly ok: true; readonly value: unknown }
  | { readonly id: number; readonly ok: false; readonly error: WireError };

type AnyMethod = (...parameters: readonly unknown[]) => Promise<unknown>;

/** Serves the replica until the port closes. While it is still being made calls wait; if that fails, each fails so. */
export function serveReplica(replica: StageReplica | Promise<StageReplica>, port: ComputePort): void {
  serveMethods(replica, replicaMethods, port);
}

/**
 * The replica behind the port. Once the port is closed every call, those under way too, rejects with `compute-stopped`.
 * Errors arrive as `CodedError` when they had a code.
 */
export function connectReplica(port: ComputePort): StageReplica {
  return connectMethods<StageReplica>(replicaMethods, port);
}

export function serveMethods<Service extends object>(
  target: Service | Promise<Service>,
  table: MethodTable<Service>,
  port: ComputePort,
): void {
  const service = Promise.resolve(target);
  // A failure to make the service is the answer to every call; it must not end the thread before one was made.
  service.catch(() => undefined);
  const answer = async ({ id, method, parameters }: Call) => {
    let reply: Reply;
    let handOver: HandOver = 'none';
    try {
      if (!Object.hasOwn(table, method)) throw new CodedError('unknown-method', `no method ${method}`);
      const object = (await service) as Record<string, AnyMethod>;
      reply = { id, ok: true, value: await object[method]!(...parameters) };
      handOver = ofResult[table[method as keyof Service]];
    } catch (error) {
      reply = { id, ok: false, error: toWire(error) };
    }
    await port.post(reply, handOver);
  };
  let tail = Promise.resolve();
  port.onMessage((message) => {
    tail = tail.then(() => answer(message as Call));
  });
}

export function connectMethods<Service extends object>(
  table: MethodTable<Service>,
  port: ComputePort,
): Service {
  const pending = new Map<number, { resolve: (value: unknown) => void; reject: (error: Error) => void }>();
  let calls = 0;
  let closed = false;
  port.onMessage((message) => {
    const reply = message as Reply;
    const waiting = pending.get(reply.id);
    pending.delete(reply.id);
    if (reply.ok) waiting?.resolve(reply.value);
    else waiting?.reject(fromWire(reply.error));
  });
  port.onClose(() => {
    closed = true;
    for (const { reject } of pending.values()) reject(stopped());
    pending.clear();
  });
  const call = (method: string, handOver: HandOver, parameters: readonly unknown[]) =>
    new Promise<unknown>((resolve, reject) => {
      if (closed) return reject(stopped());
      const id = calls++;
      pending.set(id, { resolve, reject });
      port.post({ id, method, parameters } satisfies Call, handOver).catch((error: Error) => {
        pending.delete(id);
        reject(error);
      });
    });
  return Object.fromEntries(
    Object.entries<Arrays>(table).map(([method, arrays]) => [
      method,
      (...parameters: unknown[]) => call(method, ofParameters[arrays], parameters),
    ]),
  ) as Service;
}

function stopped(): CodedError {
  return new CodedError('compute-stopped', 'the compute worker has stopped');
}

function toWire(error: unknown): WireError {
  if (!(error instanceof Error)) return { name: 'Error', message: String(error) };
  const { name, message } = error;
  return error instanceof CodedError ? { name, code: error.code, message } : { name, message };
}

function fromWire({ name, code, message }: WireError): Error {
  if (code !== undefined) return new CodedError(code, message);
  return Object.assign(new Error(message), { name });
}
