/** Which dataset a command trains on: the one named, or the shipped text with a vocabulary that fits the model. */
import { readFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import type { Dataset } from '../genesis/dataset.ts';
import type { ModelConfig } from '../model/config.ts';
import { requireNetwork } from '../peer/network.ts';
import { shippedDatasetFolder } from '../platform/nodejs/shipped-dataset.ts';
import { CodedError } from '../std/outcome.ts';

/** Folder or address of the dataset; the shipped text is encoded once for each vocabulary and kept. */
export async function datasetFor(vocabulary: number, named?: string): Promise<string> {
  if (named !== undefined) return named;
  return shippedDatasetFolder(vocabulary, join(homedir(), '.cache', 'neuroshard'));
}

export async function readNetworkModel(networkFile: string): Promise<ModelConfig> {
  let text: string;
  try {
    text = await readFile(networkFile, 'utf8');
  } catch (error) {
    throw new CodedError('not-found', `cannot read ${networkFile}: ${(error as Error).message}`);
  }
  return requireNetwork(text, networkFile).model;
}

/** Throws CodedError `wrong-vocabulary` when the dataset has tokens that the model has not. */
export function checkVocabulary(model: ModelConfig, { manifest }: Pick<Dataset, 'manifest'>): void {
  if (manifest.vocabularySize <= model.vocabulary) return;
  const detail = `${manifest.vocabularySize} tokens, the model has ${model.vocabulary}`;
  throw new CodedError('wrong-vocabulary', `the dataset's vocabulary does not fit: ${detail}`);
}
