/** Which network and dataset a command works on: those named, or the shipped text with a vocabulary that fits. */
import { homedir } from 'node:os';
import { join } from 'node:path';
import type { Dataset } from '../genesis/dataset.ts';
import type { ModelConfig } from '../model/config.ts';
import { type NetworkManifest, networkBytesMax, requireNetwork } from '../peer/network.ts';
import { readFileBounded } from '../platform/nodejs/files.ts';
import { shippedDatasetFolder } from '../platform/nodejs/shipped-dataset.ts';
import { CodedError } from '../std/outcome.ts';

/** Folder or address of the dataset; the shipped text is encoded once for each vocabulary and kept. */
export async function datasetFor(vocabulary: number, named?: string): Promise<string> {
  if (named !== undefined) return named;
  return shippedDatasetFolder(vocabulary, join(homedir(), '.cache', 'neuroshard'));
}

/** The manifest in a file. Throws CodedError `not-found`, `too-large`, `bad-network` or `bad-signature`. */
export async function readNetwork(file: string): Promise<NetworkManifest> {
  return requireNetwork(new TextDecoder().decode(await readFileBounded(file, networkBytesMax)), file);
}

/** Throws CodedError `wrong-vocabulary` when the dataset has tokens that the model has not. */
export function checkVocabulary(model: ModelConfig, { manifest }: Pick<Dataset, 'manifest'>): void {
  if (manifest.vocabularySize <= model.vocabulary) return;
  const detail = `${manifest.vocabularySize} tokens, the model has ${model.vocabulary}`;
  throw new CodedError('wrong-vocabulary', `the dataset's vocabulary does not fit: ${detail}`);
}
