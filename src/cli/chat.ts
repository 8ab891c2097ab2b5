/**
 * `chat`: talks to any node that answers prompts, through its HTTP API: a conversation at a terminal, one answer for a
 * prompt given as an argument or piped in.
 */
import type { Command } from 'commander';
import { type AnswerEnd, listModels, type Message, type NodeAddress, streamAnswer } from './chat-client.ts';
import { action, type CommandResult, type CommandRun, defineCommand } from './command.ts';
import { UsageError } from './errors.ts';
import { decimal, integer } from './parse.ts';

interface ChatOptions {
  readonly node: string;
  readonly model?: string;
  readonly system?: string;
  readonly maxTokens?: number;
  readonly temperature: number;
  readonly topP: number;
  readonly seed?: number;
  readonly apiKey?: string;
}

const promptBytesMax = 1 << 20;

export function register(program: Command): void {
  defineCommand(program, {
    name: 'chat',
    summary: 'talk to a running node',
    description:
      'Sends what you write to a node of a network, which answers from the model as it is trained so far. At a ' +
      'terminal it is a conversation (/reset forgets it, /quit leaves, Ctrl-C ends an answer); with a prompt, as an ' +
      'argument or piped in, one answer.',
    examples: [
      ['chat', 'a conversation with the node on this machine'],
      ['chat "What is a tariff?" --node http://203.0.113.5:8000', 'one answer, from another node'],
      ['chat --json --seed 1 < question.txt', 'for a program'],
    ],
  })
    .argument('[prompt]', 'what to say (default: what is piped in, else a conversation)')
    .option('--node <url>', "where the node's API listens", 'http://127.0.0.1:8000')
    .option('--model <name>', 'which of its models (default: its first)')
    .option('--system <text>', 'stands before the conversation')
    .option(
      '--max-tokens <count>',
      'new tokens at most (default: what the context holds)',
      integer('--max-tokens', { min: 1 }),
    )
    .option(
      '--temperature <number>',
      '0: always the likeliest token; 1: as the model says',
      decimal('--temperature', { min: 0, max: 2 }),
      0.8,
    )
    .option(
      '--top-p <share>',
      'only the likeliest that together have this probability',
      decimal('--top-p', { min: 1e-6, max: 1 }),
      1,
    )
    .option(
      '--seed <number>',
      'the same seed and weights give the same answer',
      integer('--seed', { min: 0 }),
    )
    .option('--api-key <key>', 'for nodes that want one (default: NEUROSHARD_API_KEY)')
    .action(action<ChatOptions>(chat));
}

async function chat(
  options: ChatOptions,
  run: CommandRun,
  argument?: string,
): Promise<CommandResult | undefined> {
  const apiKey = options.apiKey ?? process.env.NEUROSHARD_API_KEY;
  const node: NodeAddress = { url: nodeUrl(options.node), ...(apiKey && { apiKey }) };
  const isConversation = argument === undefined && process.stdin.isTTY === true;
  if (isConversation && run.json) {
    throw new UsageError('missing-prompt', '--json needs a prompt, as an argument or piped in');
  }
  const prompt = isConversation ? undefined : (argument ?? (await readAll(process.stdin)));
  if (prompt?.trim() === '') throw new UsageError('missing-prompt', 'there is no prompt to answer');
  const models = await listModels(node, run.signal);
  const model = options.model ?? models[0]!;
  const { temperature, topP, maxTokens, seed } = options;
  const settings = {
    model,
    temperature,
    topP,
    ...(maxTokens !== undefined && { maxTokens }),
    ...(seed !== undefined && { seed }),
  };
  const answer = (messages: readonly Message[], signal: AbortSignal) =>
    streamAnswer(node, messages, settings, signal);
  if (prompt !== undefined) return answerOnce({ node, model, prompt, system: options.system, answer, run });
  const { converse } = await import('./chat-session.ts');
  run.log(`${model} at ${node.url}; /reset forgets, /quit leaves`);
  const { stdin: input, stdout: output } = process;
  await converse({ input, output, system: options.system, answer, signal: run.signal });
  return undefined;
}

interface OnePrompt {
  readonly node: NodeAddress;
  readonly model: string;
  readonly prompt: string;
  readonly system: string | undefined;
  readonly answer: (
    messages: readonly Message[],
    signal: AbortSignal,
  ) => AsyncGenerator<string, AnswerEnd, void>;
  readonly run: CommandRun;
}

async function answerOnce({
  node,
  model,
  prompt,
  system,
  answer,
  run,
}: OnePrompt): Promise<CommandResult | undefined> {
  const messages: readonly Message[] = [
    ...(system === undefined ? [] : [{ role: 'system' as const, content: system }]),
    { role: 'user', content: prompt },
  ];
  const { printable } = await import('./chat-session.ts');
  const show = run.screen.isTTY ? printable : (text: string) => text;
  let text = '';
  const pieces = answer(messages, run.signal);
  try {
    for (;;) {
      const next = await pieces.next();
      if (next.done)
        return run.json ? { json: { node: node.url, model, prompt, text, ...next.value }, text } : undefined;
      text += next.value;
      if (!run.json) run.screen.write(show(next.value));
    }
  } finally {
    // A stream that ends without a newline leaves the shell's prompt on its line.
    if (!run.json && text !== '' && !text.endsWith('\n')) run.screen.write('\n');
  }
}

function nodeUrl(text: string): string {
  const url = URL.parse(text);
  if (!url || !['http:', 'https:'].includes(url.protocol)) {
    throw new UsageError('bad-address', `--node is an address like http://127.0.0.1:8000, not '${text}'`);
  }
  return `${url.origin}${url.pathname}`.replace(/\/+$/, '').replace(/\/v1$/, '');
}

async function readAll(input: NodeJS.ReadStream): Promise<string> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of input as AsyncIterable<Buffer>) {
    chunks.push(chunk);
    if ((bytes += chunk.length) > promptBytesMax)
      throw new UsageError('prompt-too-long', `a prompt has at most ${promptBytesMax} bytes`);
  }
  return Buffer.concat(chunks).toString('utf8');
}
