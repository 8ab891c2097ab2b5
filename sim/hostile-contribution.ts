/**
 * What hostile members contribute in the place of their pseudo-gradient, blob in and blob out: the attacks of the
 * literature on vectors, or another's blob as it is. They know all honest contributions of the round.
 */
import type { AttackName } from '../src/cli/shared-options.ts';
import { createBlob, decodeRange, encodeRange } from '../src/diloco/compression/blob.ts';
import type { CodecName } from '../src/diloco/compression/codec.ts';
import type { Contribution } from '../src/diloco/replica.ts';
import type { Announcement } from '../src/ledger/announcement.ts';
import type { Peer } from '../src/peer/peer.ts';
import { utf8 } from '../src/std/bytes.ts';
import { sleep } from '../src/std/clock.ts';
import { sha256, sha256Hex } from '../src/std/hash.ts';
import { seededRandom } from '../src/std/random.ts';
import { createKernelMemory } from '../src/tensor/kernels/wasm.ts';
import { attacks, omniscient } from './attacks.ts';

export interface HostileContribution {
  readonly attack: AttackName;
  readonly factor: number;
  /** How many members collude, this one included. */
  readonly hostileMembers: number;
}

const pollMs = 50;
/** How long it waits for the honest contributions before it uses those that have come. */
const waitMsMax = 60_000;

/** `own`: what honest work contributes. */
export async function contributeHostile(
  peer: Peer,
  own: Contribution,
  round: number,
  options: HostileContribution,
): Promise<Contribution> {
  const { members, outer } = peer.options.network;
  const ofStage = members.filter(({ stage }) => stage === peer.pipeline.stage);
  const wanted = Math.max(1, ofStage.length - options.hostileMembers);
  const others = omniscient.has(options.attack) ? await honestContributions(peer, round, wanted) : [];
  const blobs = others.map((one) => peer.shelf.get(one.blobHash)).filter((blob) => blob !== undefined);
  if (options.attack === 'copycat') {
    const copied = blobs[0];
    return copied ? { blob: copied, blobHash: sha256Hex(copied) } : own;
  }
  if (options.attack === 'label-flip') return own;
  const codec = codecTools(outer.compression, (await peer.options.replica.info()).flatLength);
  const vector = attacks[options.attack]({
    own: codec.decode(own.blob),
    honest: blobs.map(codec.decode),
    members: members.length,
    hostile: options.hostileMembers,
    factor: options.factor,
    random: seededRandom(sha256(utf8(`${options.attack}/${round}`))),
  });
  const blob = codec.encode(vector);
  return { blob, blobHash: sha256Hex(blob) };
}

/** Waits until the honest members of the round have contributed: colluders know them all. */
async function honestContributions(
  peer: Peer,
  round: number,
  wanted: number,
): Promise<readonly Announcement[]> {
  const { clock, transport } = peer.options;
  const untilMs = clock.nowMs() + waitMsMax;
  const here = () => peer.coordinator.contributions().filter((one) => one.nodeId !== transport.self);
  while (here().length < wanted && peer.position.round === round && clock.nowMs() < untilMs) {
    if (peer.coordinator.isDecided()) break;
    await sleep(clock, pollMs);
  }
  return here();
}

function codecTools(codec: CodecName, length: number) {
  const shape = { codec, length };
  const memory = createKernelMemory({ bytes: 4 * length + 1024 * 1024 });
  const flat = memory.allocF32(length);
  return {
    decode: (blob: Uint8Array) => {
      decodeRange(blob, shape, 0, flat, memory);
      return flat.slice();
    },
    encode: (vector: Float32Array) => {
      flat.set(vector);
      const blob = createBlob(codec, length);
      encodeRange(blob, shape, 0, flat, memory);
      return blob;
    },
  };
}
