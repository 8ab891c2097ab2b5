/**
 * Verifies many signatures at once, in threads: for blocks that nobody here has seen anything of. The threads start with
 * the first call and end when none came for a while, so a node that has caught up keeps none. They run `verifyDigest`
 * itself: there is one answer to what is a valid signature. Knows no transactions.
 */
import { availableParallelism } from 'node:os';
import { Worker } from 'node:worker_threads';
import type { SignedDigest, VerifyMany } from '../../identity/keys.ts';
import { programFile } from './installation.ts';
import { packRecords } from './signature-records.ts';

export interface SignatureThreads {
  readonly verifyMany: VerifyMany;
  /** Ends the threads; what they have not answered is rejected. */
  close(): Promise<void>;
}

export interface SignatureThreadsOptions {
  /** As many as the machine runs at once, up to 8, unless given. */
  readonly count?: number;
  readonly idleMsMax?: number;
}

const countMax = 8;
const idleMsDefault = 10_000;
/** A message to a thread and back costs as much as one verification. */
const partMin = 8;

interface Thread {
  /** Rejects once the thread has ended. */
  verify(part: readonly SignedDigest[]): Promise<readonly boolean[]>;
  end(): Promise<unknown>;
}

export function createSignatureThreads(options: SignatureThreadsOptions = {}): SignatureThreads {
  const count = options.count ?? Math.min(countMax, availableParallelism());
  let threads: readonly Thread[] | undefined;
  let idle: NodeJS.Timeout | undefined;
  let open = 0;
  const end = async () => {
    clearTimeout(idle);
    const ending = threads ?? [];
    threads = undefined;
    await Promise.all(ending.map((thread) => thread.end()));
  };
  const verifyMany: VerifyMany = async (signed) => {
    clearTimeout(idle);
    threads ??= Array.from({ length: count }, startThread);
    const size = Math.max(partMin, Math.ceil(signed.length / count));
    const parts = Array.from({ length: Math.ceil(signed.length / size) }, (_, i) =>
      signed.slice(i * size, (i + 1) * size),
    );
    open += 1;
    try {
      const running = threads;
      return (await Promise.all(parts.map((part, i) => running[i]!.verify(part)))).flat();
    } catch (error) {
      // A thread that ended is not asked again: all begin anew with the next call.
      await end();
      throw error;
    } finally {
      open -= 1;
      if (open === 0) idle = setTimeout(() => void end(), options.idleMsMax ?? idleMsDefault).unref();
    }
  };
  return { verifyMany, close: end };
}

function startThread(): Thread {
  const worker = new Worker(programFile('src/platform/nodejs/signature-worker'));
  // A process may end with threads that have nothing to do.
  worker.unref();
  const waiting: PromiseWithResolvers<readonly boolean[]>[] = [];
  let failure: Error | undefined;
  const fail = (error: Error) => {
    failure ??= error;
    for (const { reject } of waiting.splice(0)) reject(failure);
  };
  // In the order of the parts: a thread answers one after another.
  worker.on('message', (verdicts: Uint8Array) => {
    waiting.shift()!.resolve(Array.from(verdicts, (verdict) => verdict === 1));
    if (waiting.length === 0) worker.unref();
  });
  worker.on('error', fail);
  worker.on('exit', () => fail(new Error('the thread ended')));
  return {
    verify: (part) => {
      if (failure) return Promise.reject(failure);
      const answer = Promise.withResolvers<readonly boolean[]>();
      waiting.push(answer);
      worker.ref();
      const records = packRecords(part);
      worker.postMessage(records, [records.buffer]);
      return answer.promise;
    },
    end: () => worker.terminate(),
  };
}
