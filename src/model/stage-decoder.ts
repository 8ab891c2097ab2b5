/**
 * Extends sequences through one stage with a key/value cache: the compiled decode graphs of a stage, and sessions that
 * own a cache each. Prompts go through in chunks of one shape. It knows no sampling, no text and no other stage.
 */
import { assert } from '../std/assert.ts';
import { CodedError } from '../std/outcome.ts';
import type { Engine, Program } from '../tensor/engine.ts';
import type { TensorData } from '../tensor/graph.ts';
import type { ModelConfig } from './config.ts';
import { buildDecodeGraph, cacheNames, maskedScore } from './decode-graph.ts';
import { parameterList, type StageSpec } from './parameters.ts';

export interface StageDecoderOptions {
  readonly engine: Engine;
  readonly config: ModelConfig;
  readonly stage: StageSpec;
  /** Views of the stage's parameters by name, read anew in every call; whoever changes them must pause sessions. */
  readonly parameters: (name: string) => Float32Array;
  /** Longest sequence, at most the model's context, which is the default. */
  readonly capacity?: number;
  /** Tokens per prefill call; 32 by default. */
  readonly prefillChunk?: number;
}

export interface StageSession {
  /** Positions in the cache. */
  readonly length: number;
  /**
   * Appends tokens (a stage with the embedding) or rows [n·width] of the residual stream (any other) and returns the
   * last position's logits [V] (with the head) or the stage's output rows [n·width]. Throws CodedError `context-full`
   * before anything runs when they do not fit, `bad-token` for an id outside the vocabulary, and the signal's reason
   * when aborted between chunks (the session must then be dropped). One call at a time.
   */
  append(entry: Int32Array | Float32Array, signal?: AbortSignal): Promise<Float32Array>;
}

export interface StageDecoder {
  readonly capacity: number;
  session(): StageSession;
  /** Releases the compiled graphs; sessions end with it. */
  close(): Promise<void>;
}

/** One compiled decode graph with the buffers of a call that do not outlive it. */
interface Step {
  readonly program: Program;
  readonly newTokens: number;
}

interface Context {
  readonly config: ModelConfig;
  readonly stage: StageSpec;
  readonly capacity: number;
  readonly parameters: (name: string) => Float32Array;
  readonly names: readonly string[];
  readonly single: Step;
  readonly chunk: Step;
}

export async function createStageDecoder(options: StageDecoderOptions): Promise<StageDecoder> {
  const { engine, config, stage, parameters } = options;
  const capacity = Math.min(options.capacity ?? config.context, config.context);
  const newTokens = Math.min(options.prefillChunk ?? 32, capacity);
  assert(newTokens >= 1, 'prefill chunk of nothing');
  const compile = async (count: number): Promise<Step> => ({
    program: await engine.compile(buildDecodeGraph(config, stage, { newTokens: count, capacity })),
    newTokens: count,
  });
  const single = await compile(1);
  const chunk = newTokens === 1 ? single : await compile(newTokens);
  const names = parameterList(config, stage).map(({ name }) => name);
  const context: Context = { config, stage, capacity, parameters, names, single, chunk };
  return {
    capacity,
    session: () => openSession(context),
    async close() {
      await single.program.release();
      if (chunk !== single) await chunk.program.release();
    },
  };
}

/** Keys and values of the session's positions, by the names of the graph's inputs: [KV, capacity, headWidth] each. */
function emptyCache({ config, stage, capacity }: Context): Map<string, Float32Array> {
  const size = config.kvHeads * capacity * config.headWidth;
  const cache = new Map<string, Float32Array>();
  for (let layer = stage.firstLayer; layer < stage.endLayer; layer++) {
    const names = cacheNames(layer);
    cache.set(names.pastKey, new Float32Array(size)).set(names.pastValue, new Float32Array(size));
  }
  return cache;
}

function openSession(context: Context): StageSession {
  const { config, stage, capacity } = context;
  const cache = emptyCache(context);
  const rowWidth = stage.embedding ? 1 : config.width;
  let length = 0;
  let running = false;
  return {
    get length() {
      return length;
    },
    async append(entry, signal) {
      assert(!running, 'a session takes one call at a time');
      assert(
        stage.embedding === entry instanceof Int32Array,
        'tokens for the embedding, rows for other stages',
      );
      assert(entry.length > 0 && entry.length % rowWidth === 0, `entry of ${entry.length} elements`);
      const total = entry.length / rowWidth;
      if (length + total > capacity) {
        throw new CodedError('context-full', `${length + total} tokens, but the context holds ${capacity}`);
      }
      if (entry instanceof Int32Array) checkTokens(entry, config.vocabulary);
      running = true;
      try {
        const results: Float32Array[] = [];
        for (let done = 0; done < total; ) {
          signal?.throwIfAborted();
          const step = total === 1 ? context.single : context.chunk;
          const count = Math.min(step.newTokens, total - done);
          const rows = entry.subarray(done * rowWidth, (done + count) * rowWidth);
          results.push(await runStep(context, step, cache, { rows, count, position: length }));
          length += count;
          done += count;
        }
        return stage.head ? results.at(-1)! : joinRows(results);
      } finally {
        running = false;
      }
    },
  };
}

function checkTokens(tokens: Int32Array, vocabulary: number): void {
  for (const token of tokens) {
    if (token < 0 || token >= vocabulary)
      throw new CodedError('bad-token', `token ${token} of ${vocabulary}`);
  }
}

function joinRows(parts: readonly Float32Array[]): Float32Array {
  if (parts.length === 1) return parts[0]!;
  const joined = new Float32Array(parts.reduce((sum, part) => sum + part.length, 0));
  let offset = 0;
  for (const part of parts) {
    joined.set(part, offset);
    offset += part.length;
  }
  return joined;
}

interface StepCall {
  /** Tokens or rows of this call, unpadded. */
  readonly rows: Int32Array | Float32Array;
  readonly count: number;
  /** Of the first of them. */
  readonly position: number;
}

/** Runs one decode graph, padding the call to its shape, and writes the new rows into the cache. */
async function runStep(
  context: Context,
  step: Step,
  cache: ReadonlyMap<string, Float32Array>,
  call: StepCall,
): Promise<Float32Array> {
  const { config, stage, capacity, parameters, names } = context;
  const { newTokens } = step;
  const feeds: Record<string, TensorData> = {};
  for (const name of names) feeds[name] = parameters(name);
  if (stage.embedding) {
    const tokens = new Int32Array(newTokens);
    tokens.set(call.rows);
    feeds.tokens = tokens;
  } else {
    const rows = new Float32Array(newTokens * config.width);
    rows.set(call.rows);
    feeds.x = rows;
  }
  const fetches: Record<string, Float32Array> = {};
  if (stage.firstLayer < stage.endLayer) {
    feeds.positions = Int32Array.from({ length: newTokens }, (_, i) =>
      Math.min(call.position + i, config.context - 1),
    );
    feeds.mask = decodeMask(newTokens, capacity, call.position);
    for (const [name, values] of cache) feeds[name] = values;
    for (let layer = stage.firstLayer; layer < stage.endLayer; layer++) {
      const { newKey, newValue } = cacheNames(layer);
      fetches[newKey] = new Float32Array(config.kvHeads * newTokens * config.headWidth);
      fetches[newValue] = new Float32Array(config.kvHeads * newTokens * config.headWidth);
    }
  }
  if (stage.head) feeds.last = Int32Array.of(call.count - 1);
  const output = stage.head ? 'logits' : 'y';
  fetches[output] = new Float32Array(stage.head ? config.vocabulary : newTokens * config.width);
  await step.program.run(feeds, fetches);
  for (let layer = stage.firstLayer; layer < stage.endLayer; layer++) {
    const { pastKey, pastValue, newKey, newValue } = cacheNames(layer);
    store(context, cache.get(pastKey)!, fetches[newKey]!, newTokens, call);
    store(context, cache.get(pastValue)!, fetches[newValue]!, newTokens, call);
  }
  const result = fetches[output]!;
  return stage.head ? result : result.subarray(0, call.count * config.width);
}

/** [newTokens, capacity + newTokens]: row i sees the cache's first `position` columns and new rows 0 to i. */
function decodeMask(newTokens: number, capacity: number, position: number): Float32Array {
  const columns = capacity + newTokens;
  const mask = new Float32Array(newTokens * columns).fill(maskedScore);
  for (let row = 0; row < newTokens; row++) {
    const start = row * columns;
    mask.fill(0, start, start + position);
    mask.fill(0, start + capacity, start + capacity + row + 1);
  }
  return mask;
}

/** Copies the call's unpadded rows of [KV, newTokens, hd] into the cache [KV, capacity, hd] at its position. */
function store(
  context: Context,
  cache: Float32Array,
  rows: Float32Array,
  newTokens: number,
  call: StepCall,
): void {
  const { headWidth, kvHeads } = context.config;
  for (let head = 0; head < kvHeads; head++) {
    const from = head * newTokens * headWidth;
    const to = (head * context.capacity + call.position) * headWidth;
    cache.set(rows.subarray(from, from + call.count * headWidth), to);
  }
}
