/**
 * One run of the baseline, composed: the network a swarm would have, dataset, compute thread and model folder around
 * `peer/baseline.ts`. It parses no options and prints nothing.
 */
import type { ModelConfig } from '../model/config.ts';
import { type BaselineReport, type CurvePoint, trainBaseline } from '../peer/baseline.ts';
import { type NetworkManifest, requireNetwork } from '../peer/network.ts';
import { replicaSettings } from '../peer/plan.ts';
import { defaultOuter, type TrainingPolicy } from '../peer/policy.ts';
import { systemClock } from '../platform/nodejs/clock.ts';
import { type Compute, startCompute } from '../platform/nodejs/compute-host.ts';
import { loadDataset } from '../platform/nodejs/dataset-files.ts';
import { prepareModelFolder, writeModelFolder } from '../platform/nodejs/model-folder.ts';
import type { NativeProvider } from '../platform/nodejs/onnx-native.ts';
import { must } from '../std/assert.ts';
import { CodedError } from '../std/outcome.ts';
import { clusterKey, clusterNetwork } from './cluster.ts';
import { checkVocabulary, datasetFor } from './dataset-choice.ts';
import { chooseTraining } from './training-choice.ts';

export interface AloneOptions {
  readonly model: ModelConfig;
  /** Nodes of the swarm whose batches are taken. */
  readonly nodes: number;
  /** Optimizer steps, or at least so many tokens; `stepsDefault` where neither is given. */
  readonly steps?: number;
  readonly tokens?: number;
  readonly stepsDefault: number;
  readonly seed: number;
  /** Folder or address; the shipped one without. */
  readonly dataset?: string;
  readonly learningRate?: number;
  readonly batch?: number;
  readonly microbatches?: number;
  readonly innerSteps: number;
  readonly totalSteps?: number;
  readonly heldOutBatches: number;
  readonly provider: NativeProvider;
  readonly threads: number;
  /** Folder for the model. */
  readonly out?: string;
  readonly force?: boolean;
}

export interface AloneWatcher {
  readonly signal: AbortSignal;
  readonly onStep?: (step: number, total: number, loss: number) => void;
  readonly onPoint?: (point: CurvePoint) => void;
}

export interface Trained {
  readonly report: BaselineReport;
  /** What was asked for, with every default filled in. */
  readonly settings: Readonly<Record<string, unknown>>;
  readonly parameters: number;
  /** From the start of the first evaluation to the end of the last step. */
  readonly wallMs: number;
  /** Why the model could not be written: a full disk must not cost the report too. */
  readonly notKept: CodedError | undefined;
}

export async function trainAlone(options: AloneOptions, watcher: AloneWatcher): Promise<Trained> {
  const { model, out } = options;
  if (out !== undefined) await prepareModelFolder(out, { force: options.force === true });
  const dataset = await loadDataset(await datasetFor(model.vocabulary, options.dataset));
  checkVocabulary(model, dataset);
  const { steps, training } = planOf(options);
  const network = networkOf(options, training, dataset.hash);
  const compute = await startCompute({
    engine: 'native',
    provider: options.provider,
    threads: options.threads,
    replica: replicaSettings(network),
  });
  try {
    const clock = systemClock();
    const startedMs = clock.nowMs();
    const report = await trainBaseline(
      {
        network,
        dataset,
        replica: compute.replica,
        clock,
        steps,
        heldOutBatches: options.heldOutBatches,
        onStep: (step, loss) => watcher.onStep?.(step, steps, loss),
        ...(watcher.onPoint && { onPoint: watcher.onPoint }),
      },
      watcher.signal,
    );
    const wallMs = clock.nowMs() - startedMs;
    // Nothing was trained: there is nothing to report or to keep.
    if (report.steps === 0) watcher.signal.throwIfAborted();
    const notKept =
      out === undefined ? undefined : await keepModel(out, compute, model, dataset.tokenizerJson);
    const { parameters } = await compute.replica.info();
    const settings = settingsOf(options, training, steps, dataset.hash);
    return { report, settings, parameters, wallMs, notKept };
  } finally {
    await compute.stop();
  }
}

function planOf(options: AloneOptions): { steps: number; training: TrainingPolicy } {
  const { model, nodes, tokens, innerSteps, batch, learningRate, microbatches = 1 } = options;
  const choice = {
    averages: false,
    innerSteps,
    microbatches,
    ...(batch && { batch }),
    ...(learningRate && { learningRate }),
  };
  const draft = chooseTraining(model, { ...choice, totalSteps: 1 });
  const tokensPerStep = nodes * draft.microbatches * draft.batch * draft.sequence;
  const stepsForTokens = tokens === undefined ? options.stepsDefault : Math.ceil(tokens / tokensPerStep);
  const steps = options.steps ?? stepsForTokens;
  return { steps, training: { ...draft, totalSteps: options.totalSteps ?? steps } };
}

/** The manifest that a swarm of as many nodes with this seed would have. */
function networkOf(options: AloneOptions, training: TrainingPolicy, datasetHash: string): NetworkManifest {
  const { seed, nodes, model } = options;
  const keys = Array.from({ length: nodes }, (_, index) => clusterKey(seed, index));
  const outer = defaultOuter('f32', 'mean');
  return requireNetwork(clusterNetwork({ seed, model, datasetHash, training, outer, keys }), 'the baseline');
}

function settingsOf(options: AloneOptions, training: TrainingPolicy, steps: number, dataset: string) {
  const { nodes, seed, heldOutBatches, provider, threads } = options;
  const { innerSteps, batch, microbatches, sequence, peakLearningRate, totalSteps } = training;
  const schedule = { innerSteps, microbatches, batch, sequence, learningRate: peakLearningRate, totalSteps };
  return { nodes, steps, seed, dataset, ...schedule, heldOutBatches, provider, threads };
}

async function keepModel(
  folder: string,
  { replica }: Compute,
  config: ModelConfig,
  tokenizerJson: Uint8Array,
): Promise<CodedError | undefined> {
  const weights = await replica.exportWeights('weights');
  const parameters = (name: string) => must(weights[name], name);
  try {
    await writeModelFolder(folder, { config, parameters, tokenizerJson });
    return undefined;
  } catch (error) {
    if (error instanceof CodedError) return error;
    throw error;
  }
}
