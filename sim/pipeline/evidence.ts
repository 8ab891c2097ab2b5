/**
 * Whether what an honest stage has kept of its steps is what it has made: each step of the round in its own order, signed by
 * its neighbours, and the rows, from which others could make it again. It looks on from outside and decides nothing.
 */
import type { NodeId } from '../../src/net/transport.ts';
import type { StageEntry, StageTarget, SummedMicrobatch } from '../../src/optim/pipeline-stage.ts';
import type { NetworkManifest } from '../../src/peer/network.ts';
import type { Pipeline } from '../../src/peer/pipeline.ts';
import { decodeRows } from '../../src/pipeline/row-codec.ts';
import { checkStepEvidence, type StepEvidence } from '../../src/pipeline/step-evidence.ts';
import { equalBytes } from '../../src/std/bytes.ts';
import { type HashHex, sha256Hex } from '../../src/std/hash.ts';
import { holds } from '../scenario.ts';

/** A step that a replica made in its present life. */
export interface MadeStep {
  readonly round: number;
  readonly driver: NodeId;
  readonly microbatches: readonly (SummedMicrobatch & {
    readonly entry: StageEntry;
    readonly target: StageTarget;
  })[];
}

export interface Keeper {
  readonly nodeId: NodeId;
  readonly pipeline: Pick<Pipeline, 'stage' | 'stages' | 'work'>;
}

/** Gives how many steps were looked at: those of the rounds that are kept. */
export async function checkEvidence(
  network: NetworkManifest,
  { nodeId, pipeline }: Keeper,
  made: readonly MadeStep[],
): Promise<number> {
  const { stage, stages, work } = pipeline;
  let checked = 0;
  for (const round of new Set(made.map((step) => step.round))) {
    const steps = await work?.stepsOf(round);
    if (!work || !steps || steps.length === 0) continue;
    const own = made.filter((step) => step.round === round);
    const where = `stage ${stage}, round ${round} of ${nodeId.slice(0, 4)}`;
    holds(steps.length === own.length, 'evidence-kept', () => {
      return `${where}: evidence of ${steps.length} steps, ${own.length} were made`;
    });
    for (const [i, evidence] of steps.entries()) {
      const signed = checkStepEvidence(network.networkId, { nodeId, stage, stages }, evidence);
      holds(signed.ok, 'evidence-kept', () => `${where}, step ${i}: ${JSON.stringify(signed)}`);
      await checkStep(network, work, evidence, own[i]!, `${where}, step ${i}`);
      checked += 1;
    }
  }
  return checked;
}

async function checkStep(
  { model, training }: NetworkManifest,
  work: NonNullable<Keeper['pipeline']['work']>,
  { driver, microbatches }: StepEvidence,
  made: MadeStep,
  where: string,
): Promise<void> {
  const length = training.batch * training.sequence * model.width;
  const places = (all: readonly Omit<SummedMicrobatch, 'id'>[]) =>
    all.map(({ madeAt, summedAt }) => [madeAt, summedAt]);
  const said = [driver, microbatches.map(({ index }) => String(index)), places(microbatches)];
  const is = [made.driver, made.microbatches.map(({ id }) => id), places(made.microbatches)];
  holds(JSON.stringify(said) === JSON.stringify(is), 'evidence-kept', () => {
    return `${where}: it says ${JSON.stringify(said)}, and was ${JSON.stringify(is)}`;
  });
  const bytesOf = async (hash: HashHex) => {
    const bytes = await work.rows(hash);
    holds(bytes !== undefined && sha256Hex(bytes) === hash, 'evidence-kept', () => {
      return `${where}: rows ${hash.slice(0, 8)} are not kept`;
    });
    return bytes!;
  };
  const arrived = async (hash: HashHex | null, rows: StageEntry | StageTarget) => {
    if (hash === null) return;
    const decoded = decodeRows(await bytesOf(hash), training.activations, length);
    const isSame = decoded.ok && equalBytes(raw(decoded.value), raw(rows));
    holds(isSame, 'evidence-kept', () => `${where}: rows are not those that it was made of`);
  };
  for (const [i, one] of microbatches.entries()) {
    await arrived(one.entry, made.microbatches[i]!.entry);
    await arrived(one.target, made.microbatches[i]!.target);
    for (const hash of [one.sentRows, one.sentGradient]) if (hash !== null) await bytesOf(hash);
  }
}

function raw({ buffer, byteOffset, byteLength }: StageEntry): Uint8Array {
  return new Uint8Array(buffer, byteOffset, byteLength);
}
