/**
 * Starts the place where a node computes: a thread with the native engine, or a process with the wasm engine, and the
 * replica in it. Stopping is cooperative, because a thread ended inside a native run takes the whole process with it.
 */
import { fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { MessageChannel, Worker } from 'node:worker_threads';
import type { ReplicaSettings } from '../../diloco/local-replica.ts';
import type { StageReplica } from '../../diloco/replica.ts';
import { CodedError } from '../../std/outcome.ts';
import { type ComputePort, processPort, threadPort } from './compute-port.ts';
import { connectReplica } from './compute-rpc.ts';
import type { ComputeWorkerData } from './compute-worker.ts';
import type { NativeProvider } from './onnx-native.ts';

export interface ComputeOptions {
  readonly engine: 'native' | 'wasm';
  /** Of the native engine; `cpu` when left out. */
  readonly provider?: NativeProvider;
  /** Of the native engine's operations; the wasm engine has one. */
  readonly threads: number;
  readonly replica: ReplicaSettings;
}

export interface Compute {
  readonly replica: StageReplica;
  /** Lets the calls made so far finish, closes the replica, and resolves when the thread or process has ended. */
  stop(): Promise<void>;
  /** Resolves when the thread or process ended and nobody had asked; never rejects. */
  readonly failed: Promise<Error>;
  /** Of the process that computes: this one, when it is a thread. */
  readonly pid: number;
}

interface Place {
  readonly pid: number;
  readonly port: ComputePort;
  /** Why it ended; undefined for a clean end. */
  readonly ended: Promise<Error | undefined>;
}

/** TypeScript in a checkout, JavaScript in the published package. */
function entry(name: string): URL {
  const extension = import.meta.url.endsWith('.ts') ? 'ts' : 'js';
  return new URL(`./${name}.${extension}`, import.meta.url);
}

/** Resolves when the replica is ready; rejects with what kept it from being made (`provider-unavailable`, …). */
export async function startCompute(options: ComputeOptions): Promise<Compute> {
  const { port, ended, pid } = options.engine === 'native' ? startThread(options) : startProcess(options);
  const replica = connectReplica(port);
  let asked: Promise<void> | undefined;
  const stop = async () => {
    // An error here means that it was never made or is gone already.
    await replica.close().catch(() => undefined);
    port.close();
    await ended;
  };
  const stopOnce = () => (asked ??= stop());
  const failed = new Promise<Error>((resolve) => {
    ended.then((error) => {
      if (!asked)
        resolve(error ?? new CodedError('compute-stopped', 'the compute worker has ended by itself'));
    });
  });
  try {
    await replica.info();
  } catch (error) {
    await stopOnce();
    // When it ended before it could answer, why it ended says more.
    throw (isStopped(error) ? await ended : undefined) ?? error;
  }
  return { replica, stop: stopOnce, failed, pid };
}

function isStopped(error: unknown): boolean {
  return error instanceof CodedError && error.code === 'compute-stopped';
}

function startThread({ provider = 'cpu', threads, replica }: ComputeOptions): Place {
  const { port1, port2 } = new MessageChannel();
  const workerData: ComputeWorkerData = { port: port2, provider, threads, replica };
  const worker = new Worker(entry('compute-worker'), {
    name: 'compute',
    workerData,
    transferList: [port2],
    execArgv: [],
  });
  const ended = new Promise<Error | undefined>((resolve) => {
    let cause: Error | undefined;
    worker.once('error', (error) => {
      cause = error instanceof Error ? error : new Error(String(error));
    });
    worker.once('exit', (code) => {
      // The port of a thread that could not even start is never closed from there.
      port1.close();
      if (code !== 0)
        cause ??= new CodedError('compute-stopped', `the compute thread ended with code ${code}`);
      resolve(cause);
    });
  });
  return { port: threadPort(port1), ended, pid: process.pid };
}

function startProcess({ replica }: ComputeOptions): Place {
  const child = fork(fileURLToPath(entry('compute-process')), {
    serialization: 'advanced',
    execArgv: [],
    // Standard output belongs to this process: a JSON document may be alone on it.
    stdio: ['ignore', 2, 2, 'ipc'],
  });
  const ended = new Promise<Error | undefined>((resolve) => {
    child.once('error', resolve);
    child.once('exit', (code, signal) => {
      const how = signal ? `by ${signal}` : `with code ${code}`;
      resolve(code === 0 ? undefined : new CodedError('compute-stopped', `the compute process ended ${how}`));
    });
  });
  child.send(replica);
  // Without a pid it could not be started, which `ended` tells.
  return { port: processPort(child), ended, pid: child.pid ?? 0 };
}
