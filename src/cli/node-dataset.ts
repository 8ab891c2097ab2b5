/**
 * Where a node's dataset comes from: the place that was named; else the shipped one where the network trains on it; else
 * what this node fetched earlier and, for the rest, other nodes.
 */
import { join } from 'node:path';
import type { Dataset } from '../genesis/dataset.ts';
import type { Transport } from '../net/transport.ts';
import { type FetchedDataset, fetchDataset, type ServedDataset } from '../peer/dataset-exchange.ts';
import type { EventSink } from '../peer/events.ts';
import type { NetworkManifest } from '../peer/network.ts';
import { isUrl } from '../platform/nodejs/byte-sources.ts';
import { openDatasetCache } from '../platform/nodejs/dataset-cache.ts';
import { loadDataset, readManifest } from '../platform/nodejs/dataset-files.ts';
import type { Clock } from '../std/clock.ts';
import { CodedError } from '../std/outcome.ts';
import { checkVocabulary, datasetFor } from './dataset-choice.ts';

export interface NodeDatasetOptions {
  readonly network: NetworkManifest;
  /** Folder or address that was named; null: none. */
  readonly named: string | null;
  /** The node's data folder. */
  readonly directory: string;
}

/** How long a starting node looks for somebody who has the manifest and tokenizer. */
const startPatienceMs = 600_000;

/**
 * The dataset where no other node is needed for it; undefined where one is. Throws what `loadDataset` throws for a place
 * that was named, or `wrong-vocabulary`.
 */
export async function localDataset(options: NodeDatasetOptions): Promise<FetchedDataset | undefined> {
  const { network, named } = options;
  const place = named ?? (await shippedPlace(options));
  if (place === undefined) return undefined;
  const dataset = await loadDataset(place, { expectedHash: network.dataset });
  checkVocabulary(network.model, dataset);
  return { dataset, served: servedOf(dataset, place) };
}

/** Whoever reads from an address has no shards at hand: others are not made to wait for that address. */
function servedOf(dataset: Dataset, place: string): ServedDataset {
  return isUrl(place) ? { ...dataset, shard: async () => undefined } : dataset;
}

async function shippedPlace({ network, directory }: NodeDatasetOptions): Promise<string | undefined> {
  // A node that has begun to fetch its dataset knows that it is not the shipped one.
  const cached = await hashAt(cacheFolder(directory, network));
  if (cached === network.dataset) return undefined;
  try {
    const place = await datasetFor(network.model.vocabulary);
    return (await hashAt(place)) === network.dataset ? place : undefined;
  } catch (error) {
    // The shipped text may be too short for this vocabulary, or the disk too full to encode it.
    if (error instanceof CodedError) return undefined;
    throw error;
  }
}

async function hashAt(folder: string): Promise<string | undefined> {
  try {
    return (await readManifest(folder)).hash;
  } catch (error) {
    if (error instanceof CodedError) return undefined;
    throw error;
  }
}

function cacheFolder(directory: string, network: NetworkManifest): string {
  return join(directory, 'datasets', network.dataset);
}

export interface PeerDatasetOptions extends NodeDatasetOptions {
  readonly transport: Transport;
  readonly clock: Clock;
  readonly signal: AbortSignal;
  readonly events: EventSink;
}

/** The dataset from the node's folder and from other nodes; throws what `fetchDataset` throws, or `wrong-vocabulary`. */
export async function datasetFromPeers(options: PeerDatasetOptions): Promise<FetchedDataset> {
  const { network, directory, transport, clock, signal, events } = options;
  const fetched = await fetchDataset({
    transport,
    clock,
    signal,
    hash: network.dataset,
    cache: await openDatasetCache(cacheFolder(directory, network)),
    startPatienceMs,
    onFetched: (part) => events({ type: 'fetched', ...part }),
    onWarning: (code, detail) => events({ type: 'warning', code, detail }),
  });
  checkVocabulary(network.model, fetched.dataset);
  return fetched;
}
