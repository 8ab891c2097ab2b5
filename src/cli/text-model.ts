/** A model to write text with: from a folder of Hugging Face files, or from the newest snapshot of a node. */
import { join } from 'node:path';
import { flatLeafHashes, stateHash } from '../diloco/state.ts';
import type { TextCodec } from '../genesis/text-codec.ts';
import { loadTokenizer } from '../genesis/tokenizer.ts';
import type { ModelConfig } from '../model/config.ts';
import { wholeModel } from '../model/parameters.ts';
import { flatViews } from '../optim/segments.ts';
import { planHash } from '../peer/plan.ts';
import { loadDataset } from '../platform/nodejs/dataset-files.ts';
import { readModelFolder } from '../platform/nodejs/model-folder.ts';
import { readNewestState } from '../platform/nodejs/snapshot-files.ts';
import { must } from '../std/assert.ts';
import { toHex } from '../std/bytes.ts';
import { CodedError } from '../std/outcome.ts';
import { checkVocabulary, datasetFor, readNetwork } from './dataset-choice.ts';

export interface TextModel {
  readonly config: ModelConfig;
  readonly parameters: (name: string) => Float32Array;
  readonly tokenizer: TextCodec;
  /** What a text begins with. */
  readonly beginToken: number | undefined;
  readonly endTokens: readonly number[];
}

/** Throws the CodedErrors of `readModelFolder`. */
export async function textModelOfFolder(folder: string): Promise<TextModel> {
  const model = await readModelFolder(folder);
  return { ...model, parameters: (name) => must(model.parameters.get(name), name) };
}

export interface NodePlaces {
  /** The node's data folder. */
  readonly data: string;
  /** The network manifest, where it is not in the data folder. */
  readonly network?: string;
  /** Where the tokenizer is, where it is not the shipped dataset's. */
  readonly dataset?: string;
}

/**
 * w_r of the node's newest whole snapshot. Throws CodedError `not-found`, `no-snapshot`, `snapshot-mismatch`,
 * `not-whole-model` where the network's nodes hold parts, ….
 */
export async function textModelOfNode(places: NodePlaces): Promise<TextModel> {
  const network = await readNetwork(places.network ?? join(places.data, 'network.json'));
  const { model: config, training } = network;
  if (training.stages > 1) {
    const reason = `a node of ${network.name} holds one of ${training.stages} stages`;
    throw new CodedError('not-whole-model', `${reason}: ask a running one with chat instead`);
  }
  const folder = join(places.data, 'snapshots');
  const state = await readNewestState(folder);
  if (!state) throw new CodedError('no-snapshot', `${folder} holds no whole snapshot yet`);
  const { position, base, velocity } = state;
  const views = flatViews(config, wholeModel(config), base);
  const hash = stateHash(planHash(network), position.round, flatLeafHashes(base, velocity));
  if (!views || toHex(hash) !== position.stateHash)
    throw new CodedError('snapshot-mismatch', `${folder} does not belong to the network ${network.name}`);
  const place = await datasetFor(config.vocabulary, places.dataset);
  const dataset = await loadDataset(place, { expectedHash: network.dataset });
  checkVocabulary(config, dataset);
  const tokenizer = loadTokenizer(dataset.tokenizerJson);
  const { endOfText } = tokenizer;
  return {
    config,
    parameters: (name) => must(views[name], name),
    tokenizer,
    beginToken: endOfText,
    endTokens: [endOfText],
  };
}
