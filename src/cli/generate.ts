/**
 * `generate`: continues a prompt with a trained model, in this process. The text is streamed as it is made; nothing else
 * goes to stdout, so that it can be piped.
 */
import { randomInt } from 'node:crypto';
import { availableParallelism } from 'node:os';
import { setImmediate as yieldToLoop } from 'node:timers/promises';
import type { Command } from 'commander';
import { createDecoder, type FinishReason } from '../model/generate.ts';
import { samplingRandom, textStopMatcher } from '../model/sampler.ts';
import { CodedError } from '../std/outcome.ts';
import type { Engine } from '../tensor/engine.ts';
import { action, type CommandResult, type CommandRun, defineCommand } from './command.ts';
import { UsageError } from './errors.ts';
import { collect, decimal, integer } from './parse.ts';
import type { TextModel } from './text-model.ts';

interface GenerateCommandOptions {
  readonly model?: string;
  readonly data?: string;
  readonly network?: string;
  readonly dataset?: string;
  readonly prompt: string;
  readonly maxTokens: number;
  readonly temperature: number;
  readonly topK: number;
  readonly topP: number;
  readonly seed?: number;
  readonly stop?: readonly string[];
  readonly threads: number;
}

export function register(program: Command): void {
  defineCommand(program, {
    name: 'generate',
    summary: 'write text with a trained model',
    description:
      'Continues a prompt, as a stream of text on stdout. The model is a folder with config.json, model.safetensors and ' +
      'tokenizer.json (as train --out writes it, or a small Llama-family model of Hugging Face), or what a node of ' +
      'this machine has trained so far.',
    examples: [
      ['generate --model models/tiny --prompt "The people of"', 'with a model that train kept'],
      ['generate --data ~/.neuroshard --prompt "Peace" --max-tokens 40', "with a node's newest snapshot"],
      [
        'generate --model models/tiny --prompt "We" --temperature 0 --json',
        'always the likeliest token, for a program',
      ],
    ],
  })
    .option('--model <folder>', 'folder of the model')
    .option('--data <folder>', 'data folder of a node, instead of a model')
    .option('--network <file>', "with --data: the network manifest (default: the data folder's)")
    .option('--dataset <place>', 'with --data: the dataset whose tokenizer it is (default: the one shipped)')
    .requiredOption('--prompt <text>', 'what to continue; may be empty')
    .option(
      '--max-tokens <count>',
      'new tokens at most',
      integer('--max-tokens', { min: 1, max: 1_048_576 }),
      100,
    )
    .option(
      '--temperature <number>',
      '0: always the likeliest token; 1: as the model says',
      decimal('--temperature', { min: 0, max: 100 }),
      0.8,
    )
    .option(
      '--top-k <count>',
      'only the likeliest so many; 0: all',
      integer('--top-k', { min: 0, max: 4_194_304 }),
      50,
    )
    .option(
      '--top-p <share>',
      'only the likeliest that together have this probability',
      decimal('--top-p', { min: 1e-6, max: 1 }),
      1,
    )
    .option(
      '--seed <number>',
      'the same seed writes the same text (default: drawn)',
      integer('--seed', { min: 0 }),
    )
    .option('--stop <text>', 'ends the text, and is not part of it; repeatable', collect)
    .option(
      '--threads <count>',
      'threads of the tensor engine',
      integer('--threads', { min: 1, max: 256 }),
      availableParallelism(),
    )
    .action(action<GenerateCommandOptions>(generate));
}

async function generate(
  options: GenerateCommandOptions,
  run: CommandRun,
): Promise<CommandResult | undefined> {
  const { prompt, maxTokens, temperature, topK, topP, stop = [], threads } = options;
  if (stop.includes('')) throw new UsageError('bad-stop', '--stop needs a text');
  const model = await openModel(options);
  const seed = options.seed ?? randomInt(2 ** 32);
  const { createNativeEngine } = await import('../platform/nodejs/onnx-native.ts');
  const engine = createNativeEngine({ threads });
  const written: string[] = [];
  const write = (text: string) => {
    if (text === '') return;
    written.push(text);
    if (!run.json) run.screen.write(text);
  };
  try {
    const request = { prompt, maxTokens, sampling: { temperature, topK, topP }, seed, stop };
    const made = await writeText({ engine, model, write, signal: run.signal }, request);
    const json = { prompt, text: written.join(''), ...made, seed };
    if (run.json) return { json, text: '' };
    run.log(
      `${made.tokens} tokens, ${made.tokensPerSecond.toFixed(1)} tokens/s, ${made.finishReason}, seed ${seed}`,
    );
    return undefined;
  } finally {
    // A stream that ends without a newline leaves the shell's prompt on its line.
    if (!run.json && written.length > 0 && !written.at(-1)!.endsWith('\n')) run.screen.write('\n');
    await engine.close();
  }
}

async function openModel({ model, data, network, dataset }: GenerateCommandOptions): Promise<TextModel> {
  const { textModelOfFolder, textModelOfNode } = await import('./text-model.ts');
  if (model !== undefined && data === undefined) return textModelOfFolder(model);
  if (data === undefined || model !== undefined)
    throw new UsageError('missing-model', 'say which model: either --model FOLDER or --data FOLDER');
  return textModelOfNode({ data, ...(network && { network }), ...(dataset && { dataset }) });
}

export interface TextRequest {
  readonly prompt: string;
  readonly maxTokens: number;
  readonly sampling: { readonly temperature: number; readonly topK: number; readonly topP: number };
  readonly seed: number;
  readonly stop: readonly string[];
}

export interface TextMade {
  /** Tokens drawn, those of a stop text included. */
  readonly tokens: number;
  readonly finishReason: FinishReason;
  /** Decoding alone: from the first token to the last. */
  readonly tokensPerSecond: number;
}

interface Surroundings {
  readonly engine: Engine;
  readonly model: TextModel;
  readonly write: (text: string) => void;
  readonly signal: AbortSignal;
}

/** Decode graphs are compiled for a whole number of these positions, so that short texts do not pay for long ones. */
const capacityUnit = 128;

/** prompt → tokens → prefill → decode and sample → text → stop. Throws what `Decoder.generate` throws. */
export async function writeText(
  { engine, model, write, signal }: Surroundings,
  request: TextRequest,
): Promise<TextMade> {
  const { config, parameters, tokenizer, beginToken, endTokens } = model;
  const prompt = [...(beginToken === undefined ? [] : [beginToken]), ...tokenizer.encode(request.prompt)];
  if (prompt.length >= config.context) {
    const detail = `the prompt has ${prompt.length} tokens, the model reads at most ${config.context - 1}`;
    throw new CodedError('prompt-too-long', detail);
  }
  const capacity = Math.ceil((prompt.length + request.maxTokens) / capacityUnit) * capacityUnit;
  const decoder = await createDecoder({ engine, config, parameters, capacity });
  const stream = tokenizer.decoder();
  const matcher = textStopMatcher(request.stop);
  const tokens = decoder.generate({
    prompt,
    sampling: request.sampling,
    random: samplingRandom(request.seed),
    maxTokens: request.maxTokens,
    stop: endTokens.map((token) => [token]),
    signal,
  });
  let count = 0;
  let firstMs = 0;
  let lastMs = 0;
  const result = (finishReason: FinishReason): TextMade => {
    const seconds = Math.max(1e-6, (lastMs - firstMs) / 1000);
    return { tokens: count, finishReason, tokensPerSecond: count > 1 ? (count - 1) / seconds : 0 };
  };
  for (;;) {
    const next = await tokens.next();
    if (next.done) {
      const { emit, stopped } = matcher.push(stream.end());
      write(stopped ? emit : emit + matcher.flush());
      return result(stopped ? 'stop' : next.value);
    }
    lastMs = performance.now();
    if (count === 0) firstMs = lastMs;
    count += 1;
    const { emit, stopped } = matcher.push(stream.push(next.value));
    write(emit);
    if (stopped) return result('stop');
    // The engine never lets go by itself: signals and the output get their turn here.
    await yieldToLoop();
  }
}
