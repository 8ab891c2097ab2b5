/**
 * The keys that clients of a node's `/v1` must show, and what each may use: from the command line or a file, and when they
 * are needed.
 */
import { readFileSync, statSync } from 'node:fs';
import type { ApiKey } from '../api/key-accounts.ts';
import { parseNeuro } from '../ledger/neuro.ts';
import { CodedError } from '../std/outcome.ts';
import { UsageError } from './errors.ts';

export interface ApiKeyOptions {
  readonly host: string;
  readonly apiKey?: readonly string[];
  readonly apiKeyFile?: string;
}

const keyLengthMin = 16;
const fileBytesMax = 64 * 1024;

/** Throws UsageError, or CodedError for a file that cannot be read. */
export function apiKeysOf({ host, apiKey = [], apiKeyFile }: ApiKeyOptions): readonly ApiKey[] {
  const named = apiKey.map((key): ApiKey => ({ key }));
  const keys = [...named, ...(apiKeyFile === undefined ? [] : readKeys(apiKeyFile))];
  if (new Set(keys.map(({ key }) => key)).size < keys.length)
    throw new UsageError('bad-api-key', 'an API key is given twice');
  for (const { key } of keys) {
    if (key.length < keyLengthMin || !/^[\x21-\x7e]+$/.test(key)) {
      const form = `an API key has at least ${keyLengthMin} printable characters and no spaces`;
      throw new UsageError('bad-api-key', form);
    }
  }
  if (keys.length === 0 && !isLoopback(host)) {
    const advice = 'give the key that clients must show with --api-key-file or --api-key';
    throw new UsageError('missing-api-key', `--host ${host} lets other machines use this node: ${advice}`);
  }
  return keys;
}

/** One key a line, and what it may use; empty lines and lines that begin with `#` are left out. */
function readKeys(path: string): readonly ApiKey[] {
  let text: string;
  try {
    if (statSync(path).size > fileBytesMax)
      throw new CodedError('too-large', `${path} is larger than ${fileBytesMax} bytes`);
    text = readFileSync(path, 'utf8');
  } catch (error) {
    if (error instanceof CodedError) throw error;
    const detail = error instanceof Error ? error.message : String(error);
    throw new CodedError('unreadable', `cannot read ${path}: ${detail}`, { cause: error });
  }
  const lines = text.split('\n').map((line) => line.trim());
  const keys = lines.flatMap((line, i) =>
    line === '' || line.startsWith('#') ? [] : readKey(line, `${path}, line ${i + 1}`),
  );
  if (keys.length === 0) throw new CodedError('no-api-key', `${path} holds no key`);
  return keys;
}

/** `KEY name=… tokens=… neuro=…`, all but the key optional. */
function readKey(line: string, where: string): ApiKey {
  const [key, ...fields] = line.split(/\s+/);
  const wrong = (field: string) =>
    new CodedError('bad-api-key', `${where}: '${field}' is not name=, tokens= or neuro=`);
  const given = fields.map((field): Partial<ApiKey> => {
    const [, name, value] = /^(name|tokens|neuro)=([\x21-\x7e]{1,64})$/.exec(field) ?? [];
    if (name === 'name') return { name: value! };
    if (name === 'tokens' && /^\d{1,15}$/.test(value!)) return { tokensMax: Number(value) };
    const amount = name === 'neuro' ? parseNeuro(value!) : undefined;
    if (!amount?.ok) throw wrong(field);
    return { neuroMax: amount.value };
  });
  return Object.assign({ key: key! }, ...given) as ApiKey;
}

function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || /^127\.\d+\.\d+\.\d+$/.test(host);
}
