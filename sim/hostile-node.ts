/**
 * A hostile member as a process of its own: the product's node with another step in the place of its contribution (or
 * of its batches). It keeps to every other rule, so that what is tested is the aggregation. Started by `swarm`.
 */
import type { Command } from 'commander';
import { action, type CommandRun, commandGroup } from '../src/cli/command.ts';
import { type NodeStartOptions, nodeStartCommand, runOptionsOf } from '../src/cli/node.ts';
import { runNode } from '../src/cli/node-run.ts';
import { sendToParent } from '../src/cli/parent-process.ts';
import { decimal, oneOf } from '../src/cli/parse.ts';
import { runMain } from '../src/cli/run-main.ts';
import { type AttackName, attackNames } from '../src/cli/shared-options.ts';
import { createBlob, decodeRange, encodeRange } from '../src/diloco/compression/blob.ts';
import type { CodecName } from '../src/diloco/compression/codec.ts';
import type { Contribution } from '../src/diloco/replica.ts';
import type { Announcement } from '../src/ledger/announcement.ts';
import type { Peer, PeerSteps } from '../src/peer/peer.ts';
import { utf8 } from '../src/std/bytes.ts';
import { sleep } from '../src/std/clock.ts';
import { sha256, sha256Hex } from '../src/std/hash.ts';
import { seededRandom } from '../src/std/random.ts';
import { createKernelMemory } from '../src/tensor/kernels/wasm.ts';
import { attacks, defaultFactor, omniscient } from './attacks.ts';

interface HostileOptions extends NodeStartOptions {
  readonly attack: AttackName;
  readonly attackFactor?: number;
  /** How many members collude, this one included. */
  readonly hostileMembers: number;
}

const pollMs = 50;
/** How long it waits for the honest contributions before it uses those that have come. */
const waitMsMax = 60_000;

export function hostileSteps(options: Pick<HostileOptions, 'attack' | 'attackFactor' | 'hostileMembers'>) {
  const factor = options.attackFactor ?? defaultFactor[options.attack];
  return (peer: Peer): Partial<PeerSteps> => {
    const honest = peer.steps;
    if (options.attack === 'label-flip') {
      const last = peer.options.network.model.vocabulary - 1;
      return {
        batch: async (round, step, index) => {
          const batch = await honest.batch(round, step, index);
          return { ...batch, labels: batch.labels.map((label) => last - label) };
        },
      };
    }
    return { contribute: (round) => contributeHostile(peer, honest, round, { ...options, factor }) };
  };
}

async function contributeHostile(
  peer: Peer,
  honest: PeerSteps,
  round: number,
  options: { readonly attack: AttackName; readonly factor: number; readonly hostileMembers: number },
): Promise<Contribution> {
  const own = await honest.contribute(round);
  const wanted = peer.options.network.members.length - options.hostileMembers;
  const others = omniscient.has(options.attack) ? await honestContributions(peer, round, wanted) : [];
  const blobs = others.map((one) => peer.shelf.get(one.blobHash)).filter((blob) => blob !== undefined);
  if (options.attack === 'copycat') {
    const copied = blobs[0];
    return copied ? { blob: copied, blobHash: sha256Hex(copied) } : own;
  }
  if (options.attack === 'label-flip') return own;
  const codec = codecTools(
    peer.options.network.outer.compression,
    (await peer.options.replica.info()).flatLength,
  );
  const vector = attacks[options.attack]({
    own: codec.decode(own.blob),
    honest: blobs.map(codec.decode),
    members: peer.options.network.members.length,
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

async function start(options: HostileOptions, run: CommandRun): Promise<undefined> {
  const base = runOptionsOf(options, sendToParent);
  await runNode({ ...base, steps: hostileSteps(options) }, run.signal);
  return undefined;
}

function register(program: Command): void {
  nodeStartCommand(commandGroup(program, 'node', 'a hostile node'))
    .requiredOption('--attack <name>', attackNames.join(', '), oneOf('attack', attackNames))
    .option('--attack-factor <number>', 'strength of the attack', decimal('--attack-factor'))
    .option('--hostile-members <count>', 'how many collude', Number, 1)
    .action(action<HostileOptions>(start));
}

await runMain([register]);
