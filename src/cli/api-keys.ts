/** The keys that clients of a node's `/v1` must show: from the command line or a file, and when they are needed. */
import { readFileSync, statSync } from 'node:fs';
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
export function apiKeysOf({ host, apiKey = [], apiKeyFile }: ApiKeyOptions): readonly string[] {
  const keys = [...apiKey, ...(apiKeyFile === undefined ? [] : readKeys(apiKeyFile))];
  for (const key of keys) {
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

/** One key a line; empty lines and lines that begin with `#` are left out. */
function readKeys(path: string): readonly string[] {
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
  const keys = text
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '' && !line.startsWith('#'));
  if (keys.length === 0) throw new CodedError('no-api-key', `${path} holds no key`);
  return keys;
}

function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || /^127\.\d+\.\d+\.\d+$/.test(host);
}
