/** Nodes joined by the in-memory hub in virtual time, with blobs small enough to make by hand: for protocol tests. */
import assert from 'node:assert/strict';
import { createVirtualClock, type VirtualClock } from '../sim/virtual-clock.ts';
import { type BlobShape, checkBlob, createBlob, headerBytes } from '../src/diloco/compression/blob.ts';
import type { Contribution, StageReplica } from '../src/diloco/replica.ts';
import type { KeyPair } from '../src/identity/keys.ts';
import { type Announcement, announce } from '../src/ledger/announcement.ts';
import type { LinkVerdict } from '../src/net/memory-link.ts';
import { createMemoryHub, type MemoryHub } from '../src/net/memory-transport.ts';
import type { Transport } from '../src/net/transport.ts';
import { bytesOf, utf8 } from '../src/std/bytes.ts';
import { type HashHex, sha256, sha256Hex } from '../src/std/hash.ts';
import { reject } from '../src/std/outcome.ts';
import { seededRandom } from '../src/std/random.ts';
import { testKeys } from './consensus-group.ts';

export const networkId = sha256(utf8('a network for tests'));
export const shape: BlobShape = { codec: 'f32', length: 4096 };
/** Of a network of two stages: the second holds more. */
export const shapes: readonly BlobShape[] = [shape, { codec: 'f32', length: 8192 }];

export interface VirtualNetwork {
  readonly clock: VirtualClock;
  readonly hub: MemoryHub;
  readonly keys: readonly KeyPair[];
  readonly ids: readonly string[];
  readonly transports: readonly Transport[];
  /** Judges every message once set. */
  link: ((from: string, to: string, bytes: number) => LinkVerdict) | undefined;
  run(ms: number): Promise<void>;
}

export function createVirtualNetwork(count: number): VirtualNetwork {
  const clock = createVirtualClock();
  const keys = testKeys(count);
  const ids = keys.map(({ nodeId }) => nodeId);
  const hub = createMemoryHub({
    clock,
    random: seededRandom(new Uint8Array(16).fill(1)),
    link: (from, to, bytes) => network.link?.(from, to, bytes) ?? { delayMs: 2, lost: false },
  });
  const network: VirtualNetwork = {
    clock,
    hub,
    keys,
    ids,
    transports: ids.map((id) => hub.join(id)),
    link: undefined,
    run: (ms) => clock.run(clock.nowMs() + ms),
  };
  return network;
}

/** The work's result, or what it throws; fails when it has not ended by then. */
export async function settle<T>(
  { clock }: Pick<VirtualNetwork, 'clock'>,
  work: Promise<T>,
  limitMs = 300_000,
): Promise<T> {
  let result: { value: T } | { error: unknown } | undefined;
  work.then(
    (value) => (result = { value }),
    (error) => (result = { error }),
  );
  await clock.run(clock.nowMs() + limitMs, () => result !== undefined);
  assert.ok(result, 'still waiting');
  if ('error' in result) throw result.error;
  return result.value;
}

/** The f32 blob of a vector of `value`, whatever it is: a hostile node's encoder refuses nothing. */
export function blobOf(value: number, { codec, length } = shape): Contribution {
  const blob = createBlob(codec, length);
  blob.set(bytesOf(new Float32Array(length).fill(value)), headerBytes);
  return named(blob);
}

export function named(blob: Uint8Array): Contribution {
  return { blob, blobHash: sha256Hex(blob) };
}

interface AnnouncedAs {
  readonly round?: number;
  readonly stage?: number;
  readonly base?: HashHex;
  readonly batches?: number;
  readonly blobBytes?: number;
}

export const testBase = sha256Hex(utf8('base'));

export function announced(
  key: KeyPair,
  { blob, blobHash }: Contribution,
  as: AnnouncedAs = {},
): Announcement {
  const { round = 0, stage = 0, base = testBase, batches = 4, blobBytes = blob.length } = as;
  return announce(networkId, { round, stage, base, blobHash, blobBytes, batches }, key);
}

/** A replica of which only the screening is asked, and that is the real one. */
export const screeningReplica = {
  screen: async (blob: Uint8Array, blobHash: HashHex, length = shape.length) =>
    sha256Hex(blob) === blobHash ? checkBlob(blob, { ...shape, length }) : reject('hash-mismatch'),
} as StageReplica;
