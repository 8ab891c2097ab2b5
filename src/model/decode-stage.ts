/**
 * Many sequences decoded through one stage at once: sessions that own a slot of the key/value cache, and calls that are
 * run together when they stand next to each other. Call shapes are few and fixed, so that a sequence can be computed
 * again elsewhere bit for bit. It knows no network, no time, no sampling and no other stage.
 */
import { assert, must } from '../std/assert.ts';
import { accept, type Outcome, type Rejection, reject } from '../std/outcome.ts';
import type { Engine, Program } from '../tensor/engine.ts';
import type { TensorData } from '../tensor/graph.ts';
import type { ModelConfig } from './config.ts';
import { createDecodeCache, type DecodeCache, sessionCacheBytes, slotsOf } from './decode-cache.ts';
import { allFinite, chunkTokens, type DecodeCall, type DecodeResult } from './decode-call.ts';
import { buildDecodeGraph, maskedScore } from './decode-graph.ts';
import { type DecodeShape, type PlannedRun, planCalls, sequencesOf } from './decode-plan.ts';
import type { StageSpec } from './parameters.ts';

export interface DecodeStageOptions {
  readonly engine: Engine;
  readonly config: ModelConfig;
  readonly stage: StageSpec;
  /** Views of w_r by name, read anew for every call; undefined when that round is not kept (any more). */
  readonly parameters: (round: number) => Readonly<Record<string, Float32Array>> | undefined;
  /** For the caches of all sessions together. */
  readonly cacheBytesMax: number;
  /** Longest sequence, at most the model's context, which is the default. */
  readonly capacity?: number;
}

export interface DecodeStage {
  readonly capacity: number;
  /** Sessions that the memory allows. */
  readonly sessionsMax: number;
  /** `duplicate-session`, `round-gone` (its weights are not here), `cache-full`. */
  open(call: { readonly session: string; readonly round: number }): Outcome<void>;
  /**
   * Runs the calls, those of one position together, and answers each. A rejected call changes nothing: `unknown-session`,
   * `out-of-order` (also for the second call of a session in one run), `wrong-shape`, `bad-token`, `not-finite`,
   * `context-full`, `shape-unavailable` (this stage's memory has no room for a batch of that width), and `round-gone`,
   * which ends the session. Results depend on the session and the shape alone, not on what runs beside it.
   */
  run(calls: readonly DecodeCall[]): Promise<readonly Outcome<DecodeResult>[]>;
  close(session: string): void;
  closeAll(): void;
  /** Rounds that open sessions are pinned to. */
  rounds(): readonly number[];
  sessions(): number;
  /** Releases graphs and caches; sessions end with it. */
  release(): Promise<void>;
}

interface Session {
  readonly round: number;
  readonly slot: number;
  /** Positions in the cache. */
  length: number;
}

/** A call that may run: what it appends to which session. */
export interface CheckedCall {
  readonly index: number;
  readonly session: Session;
  readonly rows: Int32Array | Float32Array;
  readonly count: number;
  readonly shape: DecodeShape | undefined;
}

interface Context {
  readonly options: DecodeStageOptions;
  readonly capacity: number;
  readonly cache: DecodeCache;
  readonly sessions: Map<string, Session>;
  readonly programs: Map<DecodeShape, Promise<ShapedProgram>>;
}

export function createDecodeStage(options: DecodeStageOptions): DecodeStage {
  const { config, stage, parameters } = options;
  const capacity = Math.min(options.capacity ?? config.context, config.context);
  const { slots, width } = slotsOf(options.cacheBytesMax, sessionCacheBytes(config, stage, capacity));
  const cache = createDecodeCache({ config, stage, capacity, slots, width });
  const sessions = new Map<string, Session>();
  const context: Context = { options, capacity, cache, sessions, programs: new Map() };
  let running = false;
  const close = (name: string) => {
    const session = sessions.get(name);
    if (session) cache.free(session.slot);
    sessions.delete(name);
  };
  const closeAll = () => {
    for (const name of [...sessions.keys()]) close(name);
  };
  return {
    capacity,
    sessionsMax: slots,
    open({ session, round }) {
      if (sessions.has(session)) return reject('duplicate-session');
      if (!parameters(round)) return reject('round-gone', `the weights of round ${round} are not kept`);
      if (sessions.size >= slots)
        for (const [name, other] of sessions) if (!parameters(other.round)) close(name);
      if (sessions.size >= slots) return reject('cache-full', `${sessions.size} sessions`);
      sessions.set(session, { round, slot: cache.take(), length: 0 });
      return accept(undefined);
    },
    async run(calls) {
      assert(!running, 'a decode stage runs one list of calls at a time');
      running = true;
      try {
        return await runCalls(context, calls, close);
      } finally {
        running = false;
      }
    },
    close,
    closeAll,
    rounds: () => [...new Set([...sessions.values()].map(({ round }) => round))].sort((a, b) => a - b),
    sessions: () => sessions.size,
    async release() {
      closeAll();
      for (const compiled of context.programs.values()) await (await compiled).program.release();
      context.programs.clear();
    },
  };
}

async function runCalls(
  context: Context,
  calls: readonly DecodeCall[],
  close: (session: string) => void,
): Promise<readonly Outcome<DecodeResult>[]> {
  const outcomes: Outcome<DecodeResult>[] = new Array(calls.length);
  const byRound = new Map<number, CheckedCall[]>();
  const taken = new Set<string>();
  for (const [index, call] of calls.entries()) {
    const checked = taken.has(call.session) ? reject('out-of-order', 'twice at once') : check(context, call);
    taken.add(call.session);
    if (!checked.ok) {
      outcomes[index] = checked;
      if (checked.code === 'round-gone') close(call.session);
      continue;
    }
    const { round } = checked.value.session;
    byRound.set(round, [...(byRound.get(round) ?? []), { ...checked.value, index }]);
  }
  for (const [round, checked] of byRound) {
    const weights = must(context.options.parameters(round), 'weights of a checked round');
    for (const planned of planCalls(checked, context.cache.width)) {
      const outputs = await runPlanned(context, weights, planned);
      for (const [i, { index }] of planned.calls.entries())
        outcomes[index] = accept({ output: outputs[i]!, shape: planned.shape });
    }
  }
  return outcomes;
}

function check(context: Context, call: DecodeCall): Outcome<Omit<CheckedCall, 'index'>> {
  const { config, stage, parameters } = context.options;
  const { position, entry, shape } = call;
  const session = context.sessions.get(call.session);
  if (!session) return reject('unknown-session');
  if (!parameters(session.round)) return reject('round-gone', `round ${session.round}`);
  if (position !== session.length) return reject('out-of-order', `${position}, expected ${session.length}`);
  const rowWidth = stage.embedding ? 1 : config.width;
  const count = entry.length / rowWidth;
  if (stage.embedding !== entry instanceof Int32Array || !Number.isInteger(count))
    return reject('wrong-shape', `an entry of ${entry.length}`);
  const most = shape === undefined || shape === '1x32' ? Math.min(chunkTokens, context.capacity) : 1;
  if (count < 1 || count > most) return reject('wrong-shape', `${count} positions at once`);
  if (position + count > context.capacity)
    return reject('context-full', `${position + count} tokens, at most ${context.capacity}`);
  const unsound = checkEntry(entry, config.vocabulary);
  if (unsound) return unsound;
  if (shape !== undefined && sequencesOf(shape) > context.cache.width)
    return reject('shape-unavailable', shape);
  return accept({ session, rows: entry, count, shape });
}

function checkEntry(entry: Int32Array | Float32Array, vocabulary: number): Rejection | undefined {
  if (entry instanceof Int32Array) {
    const wrong = entry.find((token) => token < 0 || token >= vocabulary);
    return wrong === undefined ? undefined : reject('bad-token', `token ${wrong} of ${vocabulary}`);
  }
  return allFinite(entry) ? undefined : reject('not-finite');
}

/** One compiled decode graph with the buffers of its calls. */
interface ShapedProgram {
  readonly program: Program;
  readonly sequences: number;
  readonly newTokens: number;
  readonly tokens: Int32Array;
  readonly rows: Float32Array;
  readonly positions: Int32Array;
  /** [sequences · newTokens, capacity + newTokens]. */
  readonly mask: Float32Array;
  readonly last: Int32Array;
  readonly output: Float32Array;
  /** New keys and values by the graph's names. */
  readonly fresh: Readonly<Record<string, Float32Array>>;
}

async function compileShape(context: Context, shape: DecodeShape): Promise<ShapedProgram> {
  const { engine, config, stage } = context.options;
  const { capacity } = context;
  const sequences = sequencesOf(shape);
  const newTokens = shape === '1x32' ? Math.min(chunkTokens, capacity) : 1;
  const rows = sequences * newTokens;
  return {
    program: await engine.compile(buildDecodeGraph(config, stage, { sequences, newTokens, capacity })),
    sequences,
    newTokens,
    tokens: new Int32Array(stage.embedding ? rows : 0),
    rows: new Float32Array(stage.embedding ? 0 : rows * config.width),
    positions: new Int32Array(rows),
    mask: new Float32Array(rows * (capacity + newTokens)),
    last: new Int32Array(sequences),
    output: new Float32Array(stage.head ? sequences * config.vocabulary : rows * config.width),
    fresh: context.cache.freshRows(sequences, newTokens),
  };
}

function programOf(context: Context, shape: DecodeShape): Promise<ShapedProgram> {
  let compiled = context.programs.get(shape);
  if (!compiled) {
    compiled = compileShape(context, shape);
    context.programs.set(shape, compiled);
  }
  return compiled;
}

/** Runs one graph over a range of slots, keeps the new keys and values, and gives the calls' outputs in order. */
async function runPlanned(
  context: Context,
  weights: Readonly<Record<string, Float32Array>>,
  { shape, firstSlot, calls }: PlannedRun<CheckedCall>,
): Promise<Float32Array[]> {
  const { config, stage } = context.options;
  const shaped = await programOf(context, shape);
  const { newTokens, fresh, output } = shaped;
  fillInputs(context, shaped, firstSlot, calls);
  const feeds: Record<string, TensorData> = { ...weights };
  if (stage.embedding) feeds.tokens = shaped.tokens;
  else feeds.x = shaped.rows;
  if (stage.firstLayer < stage.endLayer) {
    feeds.positions = shaped.positions;
    feeds.mask = shaped.mask;
    Object.assign(feeds, context.cache.views(firstSlot, shaped.sequences));
  }
  if (stage.head) feeds.last = shaped.last;
  await shaped.program.run(feeds, { ...fresh, [stage.head ? 'logits' : 'y']: output });
  for (const { session, count } of calls) {
    const sequence = session.slot - firstSlot;
    context.cache.store({ fresh, sequence, newTokens, slot: session.slot, position: session.length, count });
    session.length += count;
  }
  const perSequence = stage.head ? config.vocabulary : newTokens * config.width;
  const lengths = calls.map(({ count }) => (stage.head ? config.vocabulary : count * config.width));
  // One array for all, in their order: as it stands, it is what goes to another thread.
  const outputs = new Float32Array(lengths.reduce((sum, length) => sum + length, 0));
  let end = 0;
  return calls.map(({ session }, i) => {
    const start = (session.slot - firstSlot) * perSequence;
    outputs.set(output.subarray(start, start + lengths[i]!), end);
    end += lengths[i]!;
    return outputs.subarray(end - lengths[i]!, end);
  });
}

/** Writes the calls into the graph's inputs. Rows of no call see only themselves, and nobody reads their results. */
function fillInputs(
  context: Context,
  shaped: ShapedProgram,
  firstSlot: number,
  calls: readonly CheckedCall[],
): void {
  const { config, stage } = context.options;
  const { capacity } = context;
  const { sequences, newTokens, mask, last, positions } = shaped;
  const columns = capacity + newTokens;
  const entries = stage.embedding ? shaped.tokens : shaped.rows;
  const rowWidth = stage.embedding ? 1 : config.width;
  entries.fill(0);
  positions.fill(0);
  mask.fill(maskedScore);
  for (let row = 0; row < sequences * newTokens; row++) {
    const own = row * columns + capacity;
    mask.fill(0, own, own + (row % newTokens) + 1);
  }
  for (let sequence = 0; sequence < sequences; sequence++) last[sequence] = sequence * newTokens;
  for (const { session, rows, count } of calls) {
    const firstRow = (session.slot - firstSlot) * newTokens;
    entries.set(rows as never, firstRow * rowWidth);
    last[session.slot - firstSlot] = firstRow + count - 1;
    for (let i = 0; i < newTokens; i++) {
      positions[firstRow + i] = Math.min(session.length + i, config.context - 1);
      const start = (firstRow + i) * columns;
      mask.fill(0, start, start + session.length);
    }
  }
}
