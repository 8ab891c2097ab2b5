/**
 * The sessions of one node's stage and who may use them: calls of different sessions that wait are run together, idle
 * sessions end, and every owner has a bound. It does not know whether an owner is a peer or this node itself.
 */
import { packCalls, unpackResults } from '../model/decode-batch.ts';
import type { DecodeCall, DecodeResult } from '../model/decode-call.ts';
import type { DecodeHost, OpenedSession } from '../model/decode-host.ts';
import type { Clock } from '../std/clock.ts';
import { accept, type Outcome, type Rejection, reject } from '../std/outcome.ts';
import { createGather, type Gather } from './gather.ts';

export interface DecodeServiceOptions {
  readonly host: DecodeHost;
  readonly clock: Clock;
  /** Elements of an entry for each position: 1 with the embedding, else the width. */
  readonly positionLength: number;
  /** Takes the work in its turn among other work of the node; at once by default. `busy` refuses it. */
  readonly schedule?: <T>(task: () => Promise<T>) => Promise<Outcome<T>>;
}

export interface DecodeService {
  /** `busy` (too many sessions of this owner), or the stage's own codes. */
  open(
    owner: string,
    call: { readonly session: string; readonly round?: number },
  ): Promise<Outcome<OpenedSession>>;
  /** Calls of one session run in the order given, and not beyond the first that is refused. */
  run(
    owner: string,
    calls: readonly DecodeCall[],
    options?: { readonly signal?: AbortSignal; readonly moved?: () => void },
  ): Promise<readonly Outcome<DecodeResult>[]>;
  close(owner: string, sessions: readonly string[]): Promise<void>;
  /** Its peer is gone. */
  closeOwner(owner: string): Promise<void>;
  stats(): DecodeServiceStats;
  /** Ends all sessions; nothing is served any more. */
  stop(): Promise<void>;
}

export interface DecodeServiceStats {
  readonly sessions: number;
  /** Calls that wait for their turn. */
  readonly waiting: number;
  /** Positions computed. */
  readonly positions: number;
  /** Lists of calls that were run together. */
  readonly runs: number;
}

/** A session nobody used for so long ends. */
export const idleMsMax = 60_000;
const sweepMs = 5_000;
export const ownerSessionsMax = 64;
/** Calls of one run: as many single positions as the widest batch takes, twice. */
const runCallsMax = 64;
/** Prefill chunks of one run, so that those who write are not kept waiting by those who read in. */
const runChunksMax = 2;
/** About as long as it takes those of one batch to come back with their next positions. */
const gatherMs = 1;

interface Session {
  readonly owner: string;
  readonly name: string;
  usedMs: number;
  /** Ends after the call under way. */
  busy: Promise<unknown>;
}

interface WaitingCall {
  readonly call: DecodeCall;
  readonly isChunk: boolean;
  readonly signal: AbortSignal | undefined;
  readonly settle: (outcome: Outcome<DecodeResult>) => void;
  readonly fail: (error: unknown) => void;
}

interface ServiceState {
  readonly options: DecodeServiceOptions;
  readonly sessions: Map<string, Session>;
  readonly gather: Gather<WaitingCall>;
  readonly counts: { positions: number; runs: number };
  isStopped: boolean;
  cancelSweep: (() => void) | undefined;
}

export function createDecodeService(options: DecodeServiceOptions): DecodeService {
  const counts = { positions: 0, runs: 0 };
  const state: ServiceState = {
    options,
    sessions: new Map(),
    gather: createGather({
      clock: options.clock,
      take: takeBatch,
      run: (batch) => runBatch({ options, counts }, batch),
      windowMs: gatherMs,
    }),
    counts,
    isStopped: false,
    cancelSweep: undefined,
  };
  const closeAll = async (which: (session: Session) => boolean) => {
    await Promise.all([...state.sessions.values()].filter(which).map((session) => end(state, session)));
  };
  return {
    open: (owner, call) => open(state, owner, call),
    run: (owner, calls, { signal, moved = () => {} } = {}) => runCalls(state, owner, calls, signal, moved),
    close: (owner, sessions) => {
      const names = new Set(sessions.map((session) => nameOf(owner, session)));
      return closeAll(({ name }) => names.has(name));
    },
    closeOwner: (owner) => closeAll((session) => session.owner === owner),
    stats: () => ({
      sessions: state.sessions.size,
      waiting: state.gather.waiting(),
      ...counts,
    }),
    stop: async () => {
      state.isStopped = true;
      state.cancelSweep?.();
      for (const { settle } of state.gather.clear()) settle(reject('aborted'));
      await closeAll(() => true);
    },
  };
}

function nameOf(owner: string, session: string): string {
  return `${owner}/${session}`;
}

async function open(
  state: ServiceState,
  owner: string,
  { session, round }: { readonly session: string; readonly round?: number },
): Promise<Outcome<OpenedSession>> {
  const { host, clock } = state.options;
  const name = nameOf(owner, session);
  if (state.isStopped) return reject('aborted');
  if (state.sessions.has(name)) return reject('duplicate-session');
  const owned = [...state.sessions.values()].filter((other) => other.owner === owner);
  if (owned.length >= ownerSessionsMax) return reject('busy', `${owned.length} sessions of one owner`);
  const entry: Session = { owner, name, usedMs: clock.nowMs(), busy: Promise.resolve() };
  state.sessions.set(name, entry);
  const opening = host.openSession({ session: name, ...(round !== undefined && { round }) });
  entry.busy = opening.catch(() => undefined);
  try {
    const opened = await opening;
    if (!opened.ok) state.sessions.delete(name);
    else sweepLater(state);
    return opened;
  } catch (error) {
    state.sessions.delete(name);
    throw error;
  }
}

/** The session is gone for its owner at once, and its memory is free after the call under way. */
async function end(state: ServiceState, session: Session): Promise<void> {
  state.sessions.delete(session.name);
  await session.busy;
  await state.options.host.closeSession(session.name);
}

function sweepLater(state: ServiceState): void {
  if (state.cancelSweep || state.isStopped || state.sessions.size === 0) return;
  state.cancelSweep = state.options.clock.setTimer(sweepMs, () => {
    state.cancelSweep = undefined;
    const oldestMs = state.options.clock.nowMs() - idleMsMax;
    // What cannot be ended (the compute worker is gone) is gone already.
    for (const session of [...state.sessions.values()])
      if (session.usedMs < oldestMs) end(state, session).catch(() => undefined);
    sweepLater(state);
  });
}

async function runCalls(
  state: ServiceState,
  owner: string,
  calls: readonly DecodeCall[],
  signal: AbortSignal | undefined,
  moved: () => void,
): Promise<readonly Outcome<DecodeResult>[]> {
  if (calls.length === 1) {
    const [call] = calls as [DecodeCall];
    return [await runOne(state, nameOf(owner, call.session), call, signal)];
  }
  const outcomes: Outcome<DecodeResult>[] = new Array(calls.length);
  const bySession = new Map<string, number[]>();
  for (const [i, { session }] of calls.entries())
    bySession.set(session, [...(bySession.get(session) ?? []), i]);
  await Promise.all(
    [...bySession].map(async ([id, indices]) => {
      let refused: Outcome<DecodeResult> | undefined;
      for (const i of indices) {
        outcomes[i] = refused ?? (await runOne(state, nameOf(owner, id), calls[i]!, signal));
        if (!outcomes[i].ok) refused = outcomes[i];
        moved();
      }
    }),
  );
  return outcomes;
}

async function runOne(
  state: ServiceState,
  name: string,
  call: DecodeCall,
  signal: AbortSignal | undefined,
): Promise<Outcome<DecodeResult>> {
  const session = state.sessions.get(name);
  if (!session) return reject('unknown-session');
  session.usedMs = state.options.clock.nowMs();
  const turn = session.busy;
  let done = () => {};
  session.busy = new Promise<void>((resolve) => {
    done = resolve;
  });
  try {
    await turn;
    if (signal?.aborted) return reject('aborted');
    if (state.sessions.get(name) !== session) return reject('unknown-session');
    const outcome = await enqueue(state, { ...call, session: name }, signal);
    session.usedMs = state.options.clock.nowMs();
    // The stage has ended it by itself.
    if (!outcome.ok && (outcome.code === 'round-gone' || outcome.code === 'unknown-session'))
      state.sessions.delete(name);
    return outcome;
  } finally {
    done();
  }
}

function enqueue(
  state: ServiceState,
  call: DecodeCall,
  signal: AbortSignal | undefined,
): Promise<Outcome<DecodeResult>> {
  return new Promise((settle, fail) => {
    // A shape of several sequences is for one position each, whatever the entry says.
    const isChunk =
      call.shape === '1x32' || (call.shape === undefined && call.entry.length > state.options.positionLength);
    state.gather.push({ call, isChunk, signal, settle, fail });
  });
}

/** Runs a batch at the stage and answers each of its calls. */
async function runBatch(
  { options, counts }: Pick<ServiceState, 'options' | 'counts'>,
  batch: readonly WaitingCall[],
): Promise<void> {
  const { host, schedule = async (task) => accept(await task()) } = options;
  try {
    const packed = packCalls(batch.map(({ call }) => call));
    const ran = await schedule(() => host.decode(packed));
    const outcomes = ran.ok ? unpackResults(ran.value) : undefined;
    counts.runs += 1;
    for (const [i, { settle, call }] of batch.entries()) {
      const outcome = outcomes?.[i] ?? (ran as Rejection);
      if (outcome.ok) counts.positions += call.entry.length / options.positionLength;
      settle(outcome);
    }
  } catch (error) {
    for (const { fail } of batch) fail(error);
  }
}

/** The oldest calls that fit in one run; those whose callers have gone are refused on the way. */
function takeBatch(waiting: WaitingCall[]): WaitingCall[] {
  const batch: WaitingCall[] = [];
  const left: WaitingCall[] = [];
  let chunks = 0;
  for (const one of waiting.splice(0)) {
    if (one.signal?.aborted) one.settle(reject('aborted'));
    else if (batch.length < runCallsMax && (!one.isChunk || chunks < runChunksMax)) {
      batch.push(one);
      if (one.isChunk) chunks += 1;
    } else left.push(one);
  }
  waiting.push(...left);
  return batch;
}
