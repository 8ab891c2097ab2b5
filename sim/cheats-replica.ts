/**
 * Replicas of cheaters. The shortcut makes the first steps of a round and leaves out the others, and forges what an audit
 * asks for: states that would have to lie at the end of every interval, all with the tensors of the last one that it made.
 * Places and chain of its states are right; only the steps between them were never made.
 */
import { decodeStateIndex, encodeStateIndex, localStateHash } from '../src/diloco/local-state.ts';
import type { Boundary, RoundRecord } from '../src/diloco/recording.ts';
import type { StageReplica } from '../src/diloco/replica.ts';
import type { StageTarget } from '../src/optim/pipeline-stage.ts';
import type { StepResult } from '../src/optim/stage-trainer.ts';
import { must } from '../src/std/assert.ts';
import type { HashHex } from '../src/std/hash.ts';
import { accept, reject } from '../src/std/outcome.ts';

export interface Shortcut {
  /** Of a stage, from 0. */
  readonly planOf: (stage: number) => Uint8Array;
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
  /** Microbatches of the steps to come, by path. */
  const named = new Map<string, readonly string[]>();
  const leaveOut = (round: number) => leftOut.set(round, (leftOut.get(round) ?? 0) + 1);

  /** In earlier rounds, since the chain of its proofs began: with optimizer steps of zero. */
  const leftOutBefore = (round: number, start: Boundary) => {
    if (start.optimizerSteps === 0) return 0;
    return [...leftOut].filter(([one]) => one < round).reduce((sum, [, count]) => sum + count, 0);
  };

  const forge = async (source: Boundary, step: number, optimizerSteps: number): Promise<Boundary> => {
    const made = decodeStateIndex(must(await replica.evidenceIndex(source.hash), 'its own record'));
    const { leaves } = must(made.ok ? made.value : undefined, 'its own index');
    const place = { round: source.round, step, optimizerSteps };
    const { stage } = await replica.info();
    const hash = localStateHash(shortcut.planOf(stage.index), place, leaves);
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
      leaveOut(at.round);
      return last;
    },
    prepareStep: async (call) => {
      named.set(call.path, call.ids);
      return replica.prepareStep(call);
    },
    applyStep: async (call) => {
      const at = await replica.position();
      if (!cheatsIn(at.round) || at.step < stepsMade) return replica.applyStep(call);
      if (at.contributed) return reject('contributed');
      const made = at.step + (leftOut.get(at.round) ?? 0);
      leaveOut(at.round);
      await replica.discard({ path: call.path });
      return accept((named.get(call.path) ?? []).map((id) => ({ id, madeAt: made, summedAt: made })));
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

/** Every fiftieth element the other way round: a norm shows nothing. */
const garbled = (rows: Float32Array) => rows.map((x, i) => (i % 50 === 0 ? -x : x));

/** Updates itself honestly, and sends garbage to the stages beside it: rows onward and gradients back. */
export function garbageOnward(replica: StageReplica, cheatsNow: () => boolean): StageReplica {
  return {
    ...replica,
    forward: async (call) => {
      const made = await replica.forward(call);
      return made.ok && cheatsNow() ? accept(garbled(made.value)) : made;
    },
    backward: async (call) => {
      const made = await replica.backward(call);
      if (!made.ok || !made.value.inputGradient || !cheatsNow()) return made;
      return accept({ ...made.value, inputGradient: garbled(made.value.inputGradient) });
    },
  };
}

/** A later stage that trains on other labels, or another gradient, than those that reached it. */
export function otherTargets(
  replica: StageReplica,
  cheatsNow: () => boolean,
  change: (target: StageTarget) => StageTarget,
): StageReplica {
  return {
    ...replica,
    backward: async (call) => {
      const { stage } = await replica.info();
      const cheats = !stage.embedding && cheatsNow();
      return replica.backward(cheats ? { ...call, target: change(call.target) } : call);
    },
  };
}
