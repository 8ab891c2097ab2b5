import assert from 'node:assert/strict';
import { test } from 'node:test';
import { utf8 } from '../std/bytes.ts';
import { createInterpreter } from '../tensor/interpreter.ts';
import type { ModelConfig } from './config.ts';
import { createDecoder, type FinishReason, type GenerateOptions } from './generate.ts';
import { initialParameter } from './initialize.ts';
import { parameterList, type StageSpec, wholeModel } from './parameters.ts';
import { greedy, samplingRandom } from './sampler.ts';
import { createStageDecoder, type StageDecoder } from './stage-decoder.ts';
import { buildForwardGraph } from './stage-graph.ts';

const config: ModelConfig = {
  layers: 2,
  width: 16,
  heads: 4,
  kvHeads: 2,
  headWidth: 4,
  ffn: 24,
  vocabulary: 31,
  context: 20,
  ropeTheta: 10_000,
  normEpsilon: 1e-5,
  tiedEmbeddings: false,
};
const engine = createInterpreter();
const weights = new Map(
  parameterList(config, wholeModel(config)).map(({ name, shape, kind }) => {
    const values = initialParameter(utf8('seed'), name, shape, config);
    return [name, kind === 'matrix' ? values.map((value) => value * 12) : values];
  }),
);
const parameters = (name: string) => weights.get(name)!;
const prompt = [3, 14, 15, 9, 26, 5, 30];

/** Logits after each position of `tokens`, by the forward graph. */
async function forwardLogits(tokens: readonly number[]): Promise<Float32Array[]> {
  const program = await engine.compile(
    buildForwardGraph(config, wholeModel(config), { batch: 1, sequence: tokens.length }),
  );
  const logits = new Float32Array(tokens.length * config.vocabulary);
  await program.run({ ...Object.fromEntries(weights), tokens: Int32Array.from(tokens) }, { logits });
  return tokens.map((_, i) => logits.subarray(i * config.vocabulary, (i + 1) * config.vocabulary));
}

function assertNear(actual: Float32Array, expected: Float32Array, what: string): void {
  assert.equal(actual.length, expected.length);
  for (const [i, value] of actual.entries())
    assert(Math.abs(value - expected[i]!) < 1e-5, `${what}, element ${i}`);
}

async function collect(stream: AsyncGenerator<number, FinishReason, void>) {
  const tokens: number[] = [];
  for (;;) {
    const next = await stream.next();
    if (next.done) return { tokens, reason: next.value };
    tokens.push(next.value);
  }
}

function request(more: Partial<GenerateOptions> = {}): GenerateOptions {
  return { prompt, sampling: greedy, random: samplingRandom(1), maxTokens: 8, ...more };
}

test('decoding with the cache gives the logits of the full forward pass, however the prompt is cut', async () => {
  const expected = await forwardLogits(prompt);
  for (const prefillChunk of [1, 3, 7, 20]) {
    const decoder = await createDecoder({ engine, config, parameters, prefillChunk });
    const atOnce = decoder.session();
    assertNear(await atOnce.append(Int32Array.from(prompt)), expected.at(-1)!, `chunks of ${prefillChunk}`);
    const inPieces = decoder.session();
    for (const [start, end] of [
      [0, 1],
      [1, 5],
      [5, 7],
    ] as const) {
      const logits = await inPieces.append(Int32Array.from(prompt.slice(start, end)));
      assertNear(logits, expected[end - 1]!, `chunks of ${prefillChunk}, up to ${end}`);
      assert.equal(inPieces.length, end);
    }
    await decoder.close();
  }
});

test('a model cut into stages decodes like the whole', async () => {
  const stages: StageSpec[] = [
    { firstLayer: 0, endLayer: 0, embedding: true, head: false },
    { firstLayer: 0, endLayer: 1, embedding: false, head: false },
    { firstLayer: 1, endLayer: 2, embedding: false, head: true },
  ];
  const decoders: StageDecoder[] = [];
  for (const stage of stages) {
    decoders.push(await createStageDecoder({ engine, config, stage, parameters, prefillChunk: 2 }));
  }
  const sessions = decoders.map((decoder) => decoder.session());
  const expected = await forwardLogits(prompt);
  for (const [start, end] of [
    [0, 5],
    [5, 6],
    [6, 7],
  ] as const) {
    let entry: Int32Array | Float32Array = Int32Array.from(prompt.slice(start, end));
    for (const session of sessions) entry = await session.append(entry);
    assertNear(entry as Float32Array, expected[end - 1]!, `up to ${end}`);
  }
});

test('greedy generation follows the full forward pass, and sessions do not disturb each other', async () => {
  const decoder = await createDecoder({ engine, config, parameters, prefillChunk: 4 });
  const sequence = prompt.slice();
  for (let made = 0; made < 8; made++) {
    const logits = (await forwardLogits(sequence)).at(-1)!;
    sequence.push(logits.indexOf(Math.max(...logits)));
  }
  const both = await Promise.all([
    collect(decoder.generate(request())),
    collect(decoder.generate(request())),
  ]);
  for (const result of both)
    assert.deepEqual(result, { tokens: sequence.slice(prompt.length), reason: 'length' });
});

test('a seed replays, another does not', async () => {
  const decoder = await createDecoder({ engine, config, parameters });
  const sampling = { temperature: 3, topK: 0, topP: 1 };
  const draw = async (seed: number) =>
    (await collect(decoder.generate(request({ sampling, random: samplingRandom(seed) })))).tokens;
  assert.deepEqual(await draw(5), await draw(5));
  assert.notDeepEqual(await draw(5), await draw(6));
});

test('generation ends at a stop sequence, at maxTokens or at the end of the context', async () => {
  const decoder = await createDecoder({ engine, config, parameters });
  const { tokens } = await collect(decoder.generate(request({ maxTokens: 1000 })));
  assert.equal(tokens.length, config.context - prompt.length);
  assert.deepEqual(await collect(decoder.generate(request({ maxTokens: 3 }))), {
    tokens: tokens.slice(0, 3),
    reason: 'length',
  });
  const firstSeen = (token: number, at: number) => tokens.indexOf(token) === at;
  const at = tokens.findIndex((token, i) => i >= 2 && firstSeen(token, i));
  const stop = [[tokens[at - 1]!, tokens[at]!], [99]];
  assert.deepEqual(await collect(decoder.generate(request({ stop }))), {
    tokens: tokens.slice(0, at - 1),
    reason: 'stop',
  });
  // A beginning that leads to no stop is held back, then given.
  const unfinished = [[tokens[2]!, 99]];
  assert.deepEqual(
    (await collect(decoder.generate(request({ stop: unfinished, maxTokens: 3 })))).tokens,
    tokens.slice(0, 3),
  );
});

test('bad requests give coded errors and leave the decoder usable', async () => {
  const decoder = await createDecoder({ engine, config, parameters, capacity: 10 });
  assert.equal(decoder.capacity, 10);
  const codes: [Partial<GenerateOptions>, string][] = [
    [{ prompt: [] }, 'empty-prompt'],
    [{ prompt: new Array(10).fill(1) }, 'context-full'],
    [{ prompt: [31] }, 'bad-token'],
    [{ prompt: [-1] }, 'bad-token'],
    [{ prompt: [0.5] }, 'bad-token'],
    [{ stop: [[]] }, 'bad-sampling'],
  ];
  for (const [more, code] of codes) await assert.rejects(collect(decoder.generate(request(more))), { code });
  const session = decoder.session();
  await session.append(Int32Array.from(prompt));
  await assert.rejects(session.append(Int32Array.from(prompt)), { code: 'context-full' });
  assert.equal(session.length, prompt.length);
  assert.equal((await collect(decoder.generate(request()))).tokens.length, 3);
});

test('an aborted generation stops with the reason of its signal', async () => {
  const decoder = await createDecoder({ engine, config, parameters });
  const controller = new AbortController();
  const tokens: number[] = [];
  await assert.rejects(async () => {
    for await (const token of decoder.generate(request({ signal: controller.signal }))) {
      tokens.push(token);
      if (tokens.length === 2) controller.abort(new Error('enough'));
    }
  }, /enough/);
  assert.equal(tokens.length, 2);
});
