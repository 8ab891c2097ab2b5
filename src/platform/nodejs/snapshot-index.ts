/**
 * The index of one snapshot: what it belongs to and the size and hash of each of its files, as JSON that carries the
 * hash of its own content. Knows no folder.
 */
import { createHash } from 'node:crypto';
import { z } from 'zod';
import type { Position } from '../../diloco/replica.ts';
import type { DailyWrites } from '../../peer/checkpoint.ts';
import { utf8 } from '../../std/bytes.ts';

export interface FileEntry {
  readonly name: string;
  readonly bytes: number;
  /** Hex. */
  readonly sha256: string;
}

export interface SnapshotIndex {
  /** Of the index file itself. */
  readonly name: string;
  readonly position: Position;
  readonly contributed: boolean;
  readonly writes: DailyWrites;
  /** Written for this snapshot; a file taken over from an older one does not count. */
  readonly bytes: number;
  readonly local: FileEntry;
  readonly round: FileEntry;
}

export const indexBytesMax = 256 * 1024;

const count = z.number().int().min(0);
const hash = z.string().regex(/^[0-9a-f]{64}$/);
/** A plain name inside the folder: an index never leads out of it. */
const file = (part: string) =>
  z.strictObject({
    name: z.string().regex(new RegExp(`^${part}-\\d{12}\\.safetensors$`)),
    bytes: count,
    sha256: hash,
  });

const contentSchema = z.strictObject({
  format: z.literal(1),
  position: z.strictObject({ round: count, step: count, optimizerSteps: count, stateHash: z.string() }),
  contributed: z.boolean(),
  writes: z.strictObject({ startMs: z.number(), bytes: count }),
  bytes: count,
  local: file('local'),
  round: file('round'),
});

function hashOf(content: unknown): string {
  return createHash('sha256').update(JSON.stringify(content)).digest('hex');
}

export function encodeIndex({ name: _, ...index }: SnapshotIndex): Uint8Array {
  const content = { format: 1, ...index };
  return utf8(`${JSON.stringify({ content, sha256: hashOf(content) }, null, 2)}\n`);
}

/** Throws an error with one line saying what is wrong. */
export function parseIndex(name: string, bytes: Uint8Array): SnapshotIndex {
  let json: unknown;
  try {
    json = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch {
    throw new Error('not JSON');
  }
  const outer = z.strictObject({ content: z.unknown(), sha256: hash }).safeParse(json);
  if (!outer.success) throw new Error('not the index of a snapshot');
  if (hashOf(outer.data.content) !== outer.data.sha256)
    throw new Error('its hash is not that of its content');
  const parsed = contentSchema.safeParse(outer.data.content);
  if (!parsed.success) {
    const issue = parsed.error.issues[0]!;
    throw new Error(`${issue.path.join('.')}: ${issue.message}`);
  }
  const { format: _, ...index } = parsed.data;
  return { name, ...index };
}
