/**
 * Which stage a node of this machine holds: a member's by the manifest; of anyone else the one it was given when it first
 * started, kept in its folder. It starts no compute.
 */
import { join } from 'node:path';
import { z } from 'zod';
import type { KeyPair } from '../identity/keys.ts';
import type { Transport } from '../net/transport.ts';
import type { EventSink } from '../peer/events.ts';
import type { NetworkManifest } from '../peer/network.ts';
import { chooseStage } from '../peer/newcomer.ts';
import { stageBytes } from '../peer/plan.ts';
import { readFileBounded, writeFileAtomic } from '../platform/nodejs/files.ts';
import { must } from '../std/assert.ts';
import { utf8 } from '../std/bytes.ts';
import type { Clock } from '../std/clock.ts';
import { CodedError } from '../std/outcome.ts';
import type { Random } from '../std/random.ts';
import { formatBytes } from './progress.ts';

export interface NodeStageOptions {
  readonly network: NetworkManifest;
  readonly key: KeyPair;
  /** The node's data folder. */
  readonly directory: string;
  /** What this node may use. */
  readonly memoryBytes: number;
  /** Called only where a stage is to be chosen. */
  readonly transport: () => Promise<Transport>;
  readonly clock: Clock;
  readonly random: Random;
  readonly events: EventSink;
}

const stageFile = 'stage.json';
const stageFileBytesMax = 4096;
const stageSchema = z.strictObject({ stage: z.number().int().min(0) });

/**
 * The stage, counted from 0. A member, and a node that has its stage already, is only warned when it may be too large
 * (`memory-short`): the bill is an estimate, and no other stage is theirs. Throws CodedError `no-stage-fits` for a
 * newcomer, `stage-damaged`, or the signal's reason.
 */
export async function stageOfNode(options: NodeStageOptions, signal: AbortSignal): Promise<number> {
  const { network, key, directory, memoryBytes, events } = options;
  const bytes = stageBytes(network);
  const held = network.members.find((member) => member.nodeId === key.nodeId)?.stage;
  const given = held ?? (network.training.stages === 1 ? 0 : await readStage(directory, network));
  if (given !== undefined) {
    const needed = must(bytes[given], `stage ${given}`);
    if (needed > memoryBytes) {
      const place = bytes.length === 1 ? 'the model' : `stage ${given + 1} of ${bytes.length}`;
      const detail = `${place} takes about ${formatBytes(needed)}, and ${formatBytes(memoryBytes)} may be used (--memory)`;
      events({ type: 'warning', code: 'memory-short', detail });
    }
    return given;
  }
  const smallest = Math.min(...bytes);
  if (smallest > memoryBytes) {
    const detail = `the smallest of ${bytes.length} takes about ${formatBytes(smallest)}, and ${formatBytes(memoryBytes)} may be used`;
    throw new CodedError('no-stage-fits', `no stage of this network fits: ${detail} (--memory)`);
  }
  const chosen = await chooseStage({ ...options, transport: await options.transport() }, signal);
  if (!chosen.ok) throw new CodedError(chosen.code, chosen.detail);
  await writeFileAtomic(join(directory, stageFile), utf8(`${JSON.stringify({ stage: chosen.value })}\n`));
  return chosen.value;
}

async function readStage(directory: string, network: NetworkManifest): Promise<number | undefined> {
  const path = join(directory, stageFile);
  let bytes: Uint8Array;
  try {
    bytes = await readFileBounded(path, stageFileBytesMax);
  } catch (error) {
    if (error instanceof CodedError && error.code === 'not-found') return undefined;
    throw error;
  }
  try {
    const { stage } = stageSchema.parse(JSON.parse(new TextDecoder().decode(bytes)));
    if (stage < network.training.stages) return stage;
  } catch {
    // Said below.
  }
  const hint = 'without it and the snapshots beside it, the node is given a stage anew';
  throw new CodedError('stage-damaged', `${path} names no stage of this network: ${hint}`);
}
