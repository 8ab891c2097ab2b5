/** `api-keys`: makes keys for the clients of a node, and shows what each has used. What a key may use stands in the file. */
import { randomBytes } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import type { Command } from 'commander';
import { z } from 'zod';
import type { KeyDocument, KeyReceipt } from '../api/key-accounts.ts';
import { formatNeuro } from '../ledger/neuro.ts';
import { CodedError } from '../std/outcome.ts';
import { action, type CommandResult, type CommandRun, commandGroup, defineCommand } from './command.ts';
import { UsageError } from './errors.ts';
import { integer, neuroAmount, port } from './parse.ts';

interface NewOptions {
  readonly name?: string;
  readonly tokens?: number;
  readonly neuro?: number;
}

interface ReadOptions {
  readonly data: string;
  readonly host: string;
  readonly port: number;
}

interface ReceiptOptions extends ReadOptions {
  readonly limit: number;
  readonly before?: number;
}

const timeoutMs = 10_000;

export function register(program: Command): void {
  const group = commandGroup(
    program,
    'api-keys',
    'keys for the OpenAI clients of a node, and what they used',
  );
  defineCommand(group, {
    name: 'new',
    summary: 'make a key: a line for the file of --api-key-file',
    description:
      'Prints a new key with what it may use in all, as a line for the file that node start --api-key-file reads. Without ' +
      'limits it may use as much as it likes.',
    examples: [['api-keys new --name alice --neuro 5 >> keys.txt', 'a key that may spend 5 NEURO']],
  })
    .option('--name <name>', 'for people: shown beside what it used')
    .option(
      '--tokens <count>',
      'tokens of prompts and answers',
      integer('--tokens', { min: 1, max: 1e15 - 1 }),
    )
    .option('--neuro <amount>', 'NEURO, at the price of the network', neuroAmount('--neuro'))
    .action(action<NewOptions>(async (options) => newKey(options)));
  nodeOptions(
    defineCommand(group, {
      name: 'list',
      summary: 'what each key has used, and what it has left',
      description: 'Asks the running node of a data folder, on this machine, whose token is there.',
      examples: [['api-keys list', 'of the node of the usual data folder']],
    }),
  ).action(action<ReadOptions>(listKeys));
  nodeOptions(
    defineCommand(group, {
      name: 'receipts',
      summary: 'what a key was charged, request by request',
      description: 'The receipts of a key, newest first; its id is what api-keys list shows.',
      examples: [['api-keys receipts 1f00c3a2b4d5e6f7', 'the newest twenty']],
    }),
  )
    .argument('<id>', 'of the key')
    .option('--limit <count>', 'so many', integer('--limit', { min: 1, max: 100 }), 20)
    .option(
      '--before <number>',
      'older ones: the last number of the page before',
      integer('--before', { min: 1 }),
    )
    .action(action<ReceiptOptions>((options, run, id) => listReceipts(options, run, id!)));
}

function nodeOptions(command: Command): Command {
  return command
    .option('--data <folder>', 'data folder of the node', join(homedir(), '.neuroshard'))
    .option('--host <address>', "where the node's API listens", '127.0.0.1')
    .option('--port <port>', 'and on which port', port, 8000);
}

function newKey({ name, tokens, neuro }: NewOptions): CommandResult {
  if (name !== undefined && !/^[\x21-\x7e]{1,64}$/.test(name))
    throw new UsageError('bad-name', '--name has 1 to 64 printable characters and no spaces');
  if (neuro === 0) throw new UsageError('zero-amount', '--neuro is more than nothing');
  const key = `ns-${randomBytes(24).toString('base64url')}`;
  const fields = [
    ...(name === undefined ? [] : [`name=${name}`]),
    ...(tokens === undefined ? [] : [`tokens=${tokens}`]),
    ...(neuro === undefined ? [] : [`neuro=${formatNeuro(BigInt(neuro))}`]),
  ];
  const line = [key, ...fields].join(' ');
  return { json: { key, line }, text: line };
}

const amount = z.string().regex(/^\d{1,20}$/);
const count = z.number().int().min(0);
const listSchema = z.object({
  keys: z.array(
    z.object({
      ...{ id: z.string(), name: z.string().nullable(), requests: count, promptTokens: count },
      ...{ completionTokens: count, spent: amount, tokensMax: count.nullable(), neuroMax: amount.nullable() },
      tokensLeft: count.nullable(),
    }),
  ),
}) satisfies z.ZodType<{ keys: KeyDocument[] }>;
const receiptsSchema = z.object({
  receipts: z.array(
    z.object({
      ...{ number: count, timeMs: count, request: z.string(), promptTokens: count, completionTokens: count },
      ...{ amount, signature: z.string() },
    }),
  ),
  next: z.string().nullable(),
}) satisfies z.ZodType<{ receipts: KeyReceipt[]; next: string | null }>;

async function listKeys(options: ReadOptions, { signal }: CommandRun): Promise<CommandResult> {
  const { keys } = await ask(listSchema, options, '', signal);
  const lines = keys.map(({ id, name, requests, promptTokens, completionTokens, spent, tokensLeft }) => {
    const used = `${promptTokens} + ${completionTokens} tokens, ${formatNeuro(BigInt(spent))} NEURO`;
    const left = tokensLeft === null ? 'no limit' : `${tokensLeft} tokens left`;
    return `${id}  ${printable(name ?? '-').padEnd(16)}  ${requests} requests, ${used}, ${left}`;
  });
  return { json: { keys }, text: lines.join('\n') || 'this node has no API keys' };
}

async function listReceipts(
  { limit, before, ...node }: ReceiptOptions,
  { signal }: CommandRun,
  id: string,
): Promise<CommandResult> {
  if (!/^[0-9a-f]{16}$/.test(id)) throw new UsageError('bad-key-id', `an id has 16 hex digits, not '${id}'`);
  const query = new URLSearchParams({ limit: String(limit), ...(before && { before: String(before) }) });
  const page = await ask(receiptsSchema, node, `/${id}/receipts?${query}`, signal);
  const lines = page.receipts.map(({ number, timeMs, request, promptTokens, completionTokens, amount }) => {
    const time = `${new Date(timeMs).toISOString().slice(0, 19)}Z`;
    const used = `${promptTokens} + ${completionTokens} tokens`.padStart(20);
    return `${String(number).padStart(6)}  ${time}  ${used}  ${formatNeuro(BigInt(amount)).padStart(12)}  ${printable(request)}`;
  });
  if (page.next !== null) lines.push(`more: --before ${page.next}`);
  return { json: { id, ...page }, text: lines.join('\n') || 'nothing yet' };
}

/** A node's words may not steer a terminal. */
function printable(text: string): string {
  return text.replace(/[^\x20-\x7e]/g, '?').slice(0, 64);
}

/** Throws CodedError `no-node`, `not-a-node`, `no-token`, or the code of the node's refusal. */
async function ask<Schema extends z.ZodType>(
  schema: Schema,
  { data, host, port: apiPort }: ReadOptions,
  path: string,
  signal: AbortSignal,
): Promise<z.infer<Schema>> {
  const file = join(data, 'api.token');
  const token = await readFile(file, 'utf8').catch(() => {
    throw new CodedError('no-token', `${file} is not there: is a node of this data folder running?`);
  });
  const base = `http://${host.includes(':') ? `[${host}]` : host}:${apiPort}`;
  const headers = { Authorization: `Bearer ${token.trim()}` };
  const within = AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)]);
  let document: unknown;
  try {
    const response = await fetch(`${base}/api/keys${path}`, { headers, signal: within, redirect: 'error' });
    document = await response.json();
  } catch (error) {
    signal.throwIfAborted();
    throw new CodedError('no-node', `no node answers at ${base}: is it running?`, { cause: error });
  }
  const parsed = schema.safeParse(document);
  if (parsed.success) return parsed.data;
  const refused = z
    .object({ error: z.object({ code: z.string(), message: z.string() }) })
    .safeParse(document);
  if (!refused.success)
    throw new CodedError('not-a-node', `what answers at ${base} is no node of NeuroShard`);
  const { code, message } = refused.data.error;
  throw new CodedError(printable(code), `the node says: ${printable(message)}`);
}
