import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import {
  compilingOnce,
  createDecodeNetwork,
  type DecodeNetwork,
  type DecodeNetworkOptions,
  decodeConfig,
  decodeWeights,
} from '../../test/decode-network.ts';
import { createDecoder } from '../model/generate.ts';
import { samplingRandom } from '../model/sampler.ts';
import { createNativeEngine } from '../platform/nodejs/onnx-native.ts';
import { must } from '../std/assert.ts';
import { concatBytes, utf8 } from '../std/bytes.ts';
import { createTextGenerator } from './generate.ts';
import type { GenerationEnd, GenerationPart, TextGenerator, TextRequest } from './text-generator.ts';

const native = createNativeEngine({ threads: 1 });
const engine = compilingOnce(native);
after(() => native.close());

const endOfText = 0;
/** Ids from 1 to 255 are bytes, those above are syllables. */
const tokenBytes = (id: number) =>
  id === endOfText ? new Uint8Array(0) : id < 256 ? Uint8Array.of(id) : utf8(`é${id}`);
const tokenizer = {
  endOfText,
  tokenBytes,
  encode: (text: string) => [...utf8(text)],
  decode: (ids: Iterable<number>) => new TextDecoder().decode(concatBytes(...[...ids].map(tokenBytes))),
  decoder: () => {
    const decoder = new TextDecoder();
    return {
      push: (id: number) => decoder.decode(tokenBytes(id), { stream: true }),
      end: () => decoder.decode(),
    };
  },
};

function textNetwork(more: Partial<DecodeNetworkOptions> = {}): DecodeNetwork & { text: TextGenerator } {
  const network = createDecodeNetwork({ engine, stages: 3, replicas: 2, ...more });
  const { client } = network;
  const text = createTextGenerator({
    model: 'test',
    config: decodeConfig,
    client,
    tokenizer,
    generationsMax: 3,
  });
  return { ...network, text };
}

const request: TextRequest = {
  prompt: [endOfText, 72, 101, 108, 108, 111],
  maxTokens: 20,
  temperature: 0.9,
  topP: 0.95,
  seed: 5,
  stop: [],
};

interface Answer {
  readonly parts: readonly GenerationPart[];
  readonly tokens: readonly number[];
  readonly text: string;
  readonly end: GenerationEnd;
}

async function collect(
  network: DecodeNetwork,
  stream: AsyncIterable<GenerationPart>,
  each: (made: number) => void = () => {},
): Promise<Answer> {
  const parts: GenerationPart[] = [];
  const read = async () => {
    for await (const part of stream) {
      parts.push(part);
      each(parts.length);
    }
  };
  await network.finish(read());
  const end = parts.at(-1)!;
  assert(end.kind === 'end' && parts.slice(0, -1).every(({ kind }) => kind === 'token'));
  const tokens = parts.flatMap((part) => (part.kind === 'token' ? [part.token] : []));
  return { parts, tokens, end, text: parts.map(({ text }) => text).join('') };
}

async function write(more: Partial<TextRequest> = {}, network = textNetwork()): Promise<Answer> {
  return collect(network, network.text.generate({ ...request, ...more }));
}

function sessionsOf(network: DecodeNetwork): number {
  return network.nodes.flat().reduce((sum, { decoder }) => sum + decoder.sessions(), 0);
}

test('the stages together write what the whole model writes alone, with the same seed', async () => {
  const decoder = await createDecoder({
    engine: native,
    config: decodeConfig,
    parameters: (name) => must(decodeWeights[name], name),
  });
  const { temperature, topP, seed, prompt, maxTokens } = request;
  const sampling = { temperature, topP, topK: 0 };
  const expected: number[] = [];
  const random = samplingRandom(seed);
  for await (const token of decoder.generate({ prompt, sampling, random, maxTokens, stop: [[endOfText]] }))
    expected.push(token);
  const network = textNetwork();
  const answer = await write({}, network);
  assert.deepEqual(answer.tokens, expected);
  assert.equal(answer.text, tokenizer.decode(expected));
  assert.deepEqual(answer.end.usage, { promptTokens: prompt.length, completionTokens: expected.length });
  assert.equal(answer.end.finishReason, 'length');
  await network.clock.advance(100);
  assert.equal(sessionsOf(network), 0);
  await decoder.close();
});

test('a replica that dies in the middle of a text is noticed only in the counters', async () => {
  const undisturbed = await write();
  for (const stage of [0, 1, 2]) {
    const network = textNetwork({ seed: stage });
    const answer = await collect(network, network.text.generate(request), (made) => {
      if (made !== 8) return;
      for (const { id, decoder } of network.nodes[stage]!) if (decoder.sessions() > 0) network.hub.crash(id);
    });
    assert.deepEqual(answer, undisturbed);
    assert.deepEqual(
      network.failovers.map((failover) => [failover.stage, failover.exact]),
      [[stage, true]],
    );
  }
});

test('when the weights of its round are gone everywhere, the text goes on with newer ones', async () => {
  const network = textNetwork({ replicas: 1 });
  const answer = await collect(network, network.text.generate(request), (made) => {
    if (made === 8) for (const node of network.nodes.flat()) node.rounds = [1];
  });
  assert.deepEqual(answer.tokens, (await write()).tokens, 'the weights are equal in all rounds here');
  assert.deepEqual(answer.end.usage, { promptTokens: 6, completionTokens: 20 });
});

test('a stop sequence ends the text before it, wherever tokens divide it', async () => {
  const whole = await write({ temperature: 0 });
  const characters = Array.from(whole.text);
  const from = 7;
  const stop = characters.slice(from, from + 3).join('');
  const before = whole.text.slice(0, whole.text.indexOf(stop));
  const answer = await write({ temperature: 0, stop: ['not in it', stop] });
  assert.equal(answer.text, before);
  assert.equal(answer.end.finishReason, 'stop');
  assert.equal(answer.end.usage.completionTokens, answer.tokens.length);
  assert.deepEqual(answer.tokens, whole.tokens.slice(0, answer.tokens.length));
  const unfinished = await write({ temperature: 0, stop: [`${characters.at(-1)}never`] });
  assert.equal(unfinished.text, whole.text, 'what began like a stop sequence is given at the end');
});

test('the end of the context ends the text', async () => {
  const prompt = Array.from({ length: decodeConfig.context - 3 }, (_, i) => 1 + (i % 99));
  const answer = await write({ prompt, maxTokens: 50 });
  assert.equal(answer.end.finishReason, 'length');
  assert.equal(answer.end.usage.completionTokens, 3);
});

test('log probabilities are told when asked for, and of the model, not of the sampling', async () => {
  const answer = await write({ logprobs: 4, temperature: 0.2, topK: 1 });
  for (const part of answer.parts) {
    if (part.kind === 'end') continue;
    assert.equal(part.top?.length, 4);
    assert.deepEqual(part.top[0], part.chosen, 'top-k 1 takes the likeliest');
    assert(part.top.every(({ logprob }, i) => logprob <= (part.top?.[i - 1]?.logprob ?? 0)));
    assert.deepEqual(part.chosen?.bytes, tokenBytes(part.token));
  }
  const [none] = (await write({})).parts;
  assert(none?.kind === 'token' && none.top === undefined && none.chosen === undefined);
  const [bare] = (await write({ logprobs: 0 })).parts;
  assert(bare?.kind === 'token' && bare.top?.length === 0 && bare.chosen !== undefined);
});

test('a reader that leaves and a signal that aborts end the sessions at every stage', async () => {
  const network = textNetwork();
  const leave = async () => {
    for await (const part of network.text.generate(request)) if (part.kind === 'token') return;
  };
  await network.finish(leave());
  await network.clock.advance(100);
  assert.equal(sessionsOf(network), 0);
  const controller = new AbortController();
  const stream = network.text.generate(request, controller.signal);
  const aborting = collect(network, stream, (made) => {
    if (made === 3) controller.abort(new Error('the client has gone'));
  });
  await assert.rejects(aborting, /the client has gone/);
  await network.clock.advance(100);
  assert.equal(sessionsOf(network), 0);
});

test('requests that cannot be served get a code, and no session is opened for them', async () => {
  const network = textNetwork();
  const cases: [Partial<TextRequest>, string][] = [
    [{ prompt: [] }, 'empty-prompt'],
    [{ prompt: new Array(decodeConfig.context).fill(1) }, 'context-full'],
    [{ prompt: [decodeConfig.vocabulary] }, 'bad-token'],
    [{ prompt: [1.5] }, 'bad-token'],
    [{ temperature: -1 }, 'bad-sampling'],
    [{ temperature: Number.NaN }, 'bad-sampling'],
    [{ topP: 0 }, 'bad-sampling'],
    [{ maxTokens: 0 }, 'bad-sampling'],
    [{ stop: [''] }, 'bad-sampling'],
    [{ stop: new Array(17).fill('x') }, 'bad-sampling'],
    [{ logprobs: 21 }, 'bad-sampling'],
  ];
  for (const [more, code] of cases) await assert.rejects(write(more, network), { code });
  assert.equal(network.caller.traffic().bytesSent, 0);
});

test('more texts than there is room for are refused, and room comes back', async () => {
  const network = textNetwork();
  const streams = Array.from({ length: 4 }, () => network.text.generate(request));
  const results = await network.finish(
    Promise.allSettled(
      streams.map(async (stream) => {
        for await (const _ of stream);
      }),
    ),
  );
  const codes = results.map((result) => (result.status === 'fulfilled' ? 'done' : result.reason.code));
  assert.deepEqual(codes, ['done', 'done', 'done', 'busy']);
  assert.equal((await write({}, network)).end.finishReason, 'length');
});
