/**
 * Replicas of cheaters. The shortcut makes the first steps of a round and leaves out the others, and forges what an audit
 * asks for: states that would have to lie at the end of every interval, all with the tensors of the last one that it made.
 * Places and chain of its states are right; only the steps between them were never made.
 */
import { decodeStateIndex, encodeStateIndex, localStateHash } from '../src/diloco/local-state.ts';
import type { Boundary, RoundRecord } from '../src/diloco/recording.ts';
import type { StageReplica } from '../src/diloco/replica.ts';
import type { StepResult } from '../src/optim/stage-trainer.ts';
import { must } from '../src/std/assert.ts';
import type { HashHex } from '../src/std/hash.ts';

export interface Shortcut {
  /** Of the stage. */
  readonly plan: Uint8Array;
  readonly intervalSteps: number;
  /** Steps that it does make in a cheating round. */
  readonly stepsMade: number;
  readonly cheatsIn: (round: number) => boolean;
}

interface Forged {
  readonly index: Uint8Array;
  /** The state whose tensors it has. */
  readonly source: HashHex;
}

export function shortcutReplica(replica: StageReplica, shortcut: Shortcut): StageReplica {
  const { intervalSteps, stepsMade, cheatsIn } = shortcut;
  /** Steps left out, by round. */
  const leftOut = new Map<number, number>();
  const forged = new Map<HashHex, Forged>();
  let last: StepResult = { loss: 1, gradientNorm: 1 };

  /** In earlier rounds, since the chain of its proofs began: with optimizer steps of zero. */
  const leftOutBefore = (round: number, start: Boundary) => {
    if (start.optimizerSteps === 0) return 0;
    return [...leftOut].filter(([one]) => one < round).reduce((sum, [, count]) => sum + count, 0);
  };

  const forge = async (source: Boundary, step: number, optimizerSteps: number): Promise<Boundary> => {
    const made = decodeStateIndex(must(await replica.evidenceIndex(source.hash), 'its own record'));
    const { leaves } = must(made.ok ? made.value : undefined, 'its own index');
    const place = { round: source.round, step, optimizerSteps };
    const hash = localStateHash(shortcut.plan, place, leaves);
    forged.set(hash, { index: encodeStateIndex({ kind: 'local', place, leaves }), source: source.hash });
    return { ...place, hash, kept: source.kept };
  };

  const record = async (round: number): Promise<RoundRecord | undefined> => {
    const made = await replica.record(round);
    const start = made?.boundaries[0];
    const end = made?.boundaries.at(-1);
    if (!made || !start || !end) return made;
    const before = leftOutBefore(round, start);
    const count = leftOut.get(round) ?? 0;
    if (before + count === 0) return made;
    const endStep = end.step + count;
    const steps = Array.from({ length: Math.ceil(endStep / intervalSteps) }, (_, i) => i * intervalSteps);
    const boundaries: Boundary[] = [];
    for (const step of [...steps, endStep]) {
      const source = made.boundaries.find((one) => one.step === step) ?? end;
      boundaries.push(await forge(source, step, start.optimizerSteps + before + step));
    }
    return { ...made, boundaries };
  };

  return {
    ...replica,
    position: async () => {
      const at = await replica.position();
      return { ...at, step: at.step + (leftOut.get(at.round) ?? 0) };
    },
    trainStep: async (batches, learningRate) => {
      const at = await replica.position();
      if (!cheatsIn(at.round) || at.step < stepsMade) {
        last = await replica.trainStep(batches, learningRate);
        return last;
      }
      leftOut.set(at.round, (leftOut.get(at.round) ?? 0) + 1);
      return last;
    },
    record,
    evidenceIndex: async (hash) => forged.get(hash)?.index ?? replica.evidenceIndex(hash),
    evidenceLeaf: (hash, index) => replica.evidenceLeaf(forged.get(hash)?.source ?? hash, index),
  };
}

/** Has no evidence for anybody while it cheats. */
export function withholdingReplica(replica: StageReplica, cheatsNow: () => boolean): StageReplica {
  return {
    ...replica,
    evidenceIndex: async (hash) => (cheatsNow() ? undefined : replica.evidenceIndex(hash)),
    evidenceLeaf: async (hash, index) => (cheatsNow() ? undefined : replica.evidenceLeaf(hash, index)),
  };
}
