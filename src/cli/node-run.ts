/**
 * One node, composed: files, key, dataset, compute, transport and API around the training journey of `peer/`. Used by
 * `node start` and by the hostile nodes of the simulation, which put other steps in; it parses no options.
 */
import { join } from 'node:path';
import type { Checkpoint } from '../consensus/checkpoint.ts';
import type { StageReplica } from '../diloco/replica.ts';
import { loadTokenizer } from '../genesis/tokenizer.ts';
import type { LedgerStore } from '../ledger/store.ts';
import { type CheckpointKeeper, createCheckpointKeeper } from '../peer/checkpoint.ts';
import { serveDataset } from '../peer/dataset-exchange.ts';
import type { EventSink, NodeEvent } from '../peer/events.ts';
import { createTextGenerator } from '../peer/generate.ts';
import { type NetworkManifest, networkBytesMax, requireNetwork } from '../peer/network.ts';
import { createPeer, type Peer, type PeerOptions } from '../peer/peer.ts';
import { reExecutorSettings, replicaSettings } from '../peer/plan.ts';
import type { TextGenerator } from '../peer/text-generator.ts';
import { train } from '../peer/train.ts';
import { systemClock } from '../platform/nodejs/clock.ts';
import { type Compute, type ComputeOptions, startCompute } from '../platform/nodejs/compute-host.ts';
import { createFolder, readFileBounded, writeFileAtomic } from '../platform/nodejs/files.ts';
import { lockFolder } from '../platform/nodejs/folder-lock.ts';
import { tuneGarbageCollection } from '../platform/nodejs/garbage.ts';
import { loadOrCreateKeyFile } from '../platform/nodejs/key-file.ts';
import { openLedgerDatabase } from '../platform/nodejs/ledger-database.ts';
import { createLibp2pTransport, type Libp2pTransport } from '../platform/nodejs/libp2p-host.ts';
import { openLossLog } from '../platform/nodejs/loss-log.ts';
import { systemRandom } from '../platform/nodejs/random.ts';
import { createSignatureThreads } from '../platform/nodejs/signature-threads.ts';
import { openSnapshotFiles } from '../platform/nodejs/snapshot-files.ts';
import { folderStore } from '../platform/nodejs/store.ts';
import { assert } from '../std/assert.ts';
import { toHex, utf8 } from '../std/bytes.ts';
import type { Clock } from '../std/clock.ts';
import { CodedError } from '../std/outcome.ts';
import { readNetwork } from './dataset-choice.ts';
import { type ApiPlace, serveApi, stageFacts } from './node-api.ts';
import { createNodeAuditor } from './node-audit.ts';
import { datasetFromPeers, localDataset } from './node-dataset.ts';
import { openNodeRows } from './node-rows.ts';
import { stageOfNode } from './node-stage.ts';
import { passphraseFor } from './passphrase.ts';

export interface NodeRunOptions {
  /** The network manifest's file, or its text's place. */
  readonly networkFile: string;
  /** Folder of this node's key, snapshots and consensus log. */
  readonly directory: string;
  /** Folder or address of the dataset; null: the shipped one, or from other nodes. */
  readonly dataset: string | null;
  readonly listen: readonly string[];
  /** What others are told to dial instead of `listen`; empty where that is the same. */
  readonly announce: readonly string[];
  readonly bootstrap: readonly string[];
  /** Only nodes of this machine: nothing leaves loopback. */
  readonly local: boolean;
  readonly mdns: boolean;
  readonly upnp: boolean;
  readonly relayServer: boolean;
  readonly relayClient: boolean;
  /** Null: no API. */
  readonly api: ApiPlace | null;
  readonly compute: Omit<ComputeOptions, 'replica'>;
  /** What this node may use: a newcomer's stage must fit. */
  readonly memoryBytes: number;
  readonly rounds?: number;
  readonly heldOutBatches: number;
  readonly samples: boolean;
  /** Of the ledger: where a node joins that has not come so far. */
  readonly checkpoint?: Checkpoint;
  readonly checkpointSeconds: number;
  /** Of one core, that audits may take; `auditShareDefault`. */
  readonly auditShare?: number;
  readonly steps?: PeerOptions['steps'];
  /** What a hostile node puts in the place of parts of an honest one. */
  readonly disguise?: (honest: PeerOptions) => PeerOptions;
  readonly events: EventSink;
  /** Whether somebody is there to tell this node that it may stop serving after its last round. */
  readonly lingers: boolean;
}

const lingerMs = 5_000;
const peersEventMs = 2_000;

/** Runs until the signal aborts, or the last round asked for is closed. */
export async function runNode(options: NodeRunOptions, signal: AbortSignal): Promise<void> {
  tuneGarbageCollection();
  const stack = new AsyncDisposableStack();
  let reason = 'failed';
  try {
    const node = await composeNode(options, signal, stack).catch(ignoreAbort(signal));
    reason = 'asked to stop';
    if (!node) return;
    reason = 'failed';
    const { peer, fanOut } = node;
    await Promise.race([train(peer, signal).catch(ignoreAbort(signal)), fanOut.failed]);
    if (!signal.aborted) await finish(peer, options, fanOut.emit, signal);
    await peer.options.checkpoints?.snapshotNow();
    reason = signal.aborted ? 'asked to stop' : 'done';
  } finally {
    await stack.disposeAsync();
    options.events({ type: 'stopped', reason });
  }
}

interface FanOut {
  readonly emit: EventSink;
  readonly failed: Promise<never>;
}

async function composeNode(options: NodeRunOptions, signal: AbortSignal, stack: AsyncDisposableStack) {
  const clock = systemClock();
  const document = new TextDecoder().decode(await readFileBounded(options.networkFile, networkBytesMax));
  const network = requireNetwork(document, options.networkFile);
  await createFolder(options.directory, 0o700);
  stack.defer(lockFolder(options.directory));
  await keepManifest(options.directory, document, network);
  const keyFile = join(options.directory, 'node.key');
  const key = await loadOrCreateKeyFile(keyFile, () => passphraseFor(keyFile, {}));
  const place = { network, named: options.dataset, directory: options.directory };
  const local = await localDataset(place);
  let opened: Promise<Libp2pTransport> | undefined;
  const transportOnce = () => {
    opened ??= openTransport(options, network, key, clock).then((transport) => {
      stack.defer(() => transport.close());
      return transport;
    });
    return opened;
  };
  const { memoryBytes, directory, events } = options;
  const parts = { network, key, directory, memoryBytes, clock, random: systemRandom(), events };
  const stage = await stageOfNode({ ...parts, transport: transportOnce }, signal);
  const settings = replicaSettings(network, stage);
  const recording = { intervalSteps: network.ledger.intervalSteps };
  const compute = await startCompute({ ...options.compute, replica: { ...settings, recording } });
  stack.defer(() => compute.stop());
  const sinks = new Set<EventSink>([options.events]);
  const emit: EventSink = (event) => {
    for (const sink of sinks) sink(event);
  };
  const checkpoints = await restoreCheckpoint(options, compute.replica, clock, emit);
  stack.defer(() => checkpoints.flush());
  const lossLog = await openLossLog(join(options.directory, 'losses.jsonl'));
  stack.defer(() => lossLog.close());
  sinks.add((event) => {
    if (event.type === 'step') lossLog.append({ round: event.round, step: event.step, loss: event.loss });
  });
  const transport = await transportOnce();
  const { dataset, served } =
    local ?? (await datasetFromPeers({ ...place, transport, clock, signal, events: emit }));
  stack.defer(serveDataset(transport, served));
  const tokenizer = loadTokenizer(dataset.tokenizerJson);
  const auditor = createNodeAuditor(reExecutorSettings(network), clock, options.auditShare);
  stack.defer(() => auditor.stop());
  const signatures = createSignatureThreads();
  stack.defer(() => signatures.close());
  const rows = await openNodeRows({ directory, replica: compute.replica, clock, events: emit });
  stack.defer(() => rows?.close());
  const honest: PeerOptions = {
    network,
    key,
    dataset,
    transport,
    clock,
    random: systemRandom(),
    store: await folderStore(join(options.directory, 'store')),
    ledger: await openLedgerStore(options.directory, network, stack),
    verifyMany: signatures.verifyMany,
    replica: compute.replica,
    ...(rows && { rows }),
    events: emit,
    checkpoints,
    ...(lossLog.newestRound !== undefined && { loggedRound: lossLog.newestRound }),
    ...(options.checkpoint && { checkpoint: options.checkpoint }),
    auditor,
    heldOutBatches: options.heldOutBatches,
    memoryBytes,
    ...(options.samples && { sample: (round: number) => writeSample(generator, round) }),
    ...(options.rounds !== undefined && { roundsMax: options.rounds }),
    ...(options.steps && { steps: options.steps }),
  };
  const peer = await createPeer(options.disguise?.(honest) ?? honest);
  stack.defer(() => peer.close());
  const generator: TextGenerator = createTextGenerator({
    model: network.name,
    config: network.model,
    client: peer.decoding.client,
    tokenizer,
  });
  const apiPort = await serveApi({ options, peer, compute, generator, clock, sinks, stack });
  const info = await compute.replica.info();
  emit({
    type: 'started',
    nodeId: key.nodeId,
    pid: process.pid,
    addresses: transport.addresses(),
    apiPort,
    parameters: info.parameters,
    stage: stageFacts(info.stage),
    round: peer.position.round,
    step: peer.position.step,
  });
  reportPeers(peer, emit, stack);
  return { peer, fanOut: { emit, failed: failureOf(compute) } satisfies FanOut };
}

async function failureOf(compute: Compute): Promise<never> {
  const error = await compute.failed;
  throw new CodedError('compute-failed', `the compute thread ended: ${error.message}`, { cause: error });
}

function ignoreAbort(signal: AbortSignal) {
  return (error: unknown) => {
    if (!signal.aborted) throw error;
  };
}

/**
 * The manifest, beside the snapshots and votes that mean nothing without it. A folder that already belongs to another
 * network is left as it is: what was voted there must not be forgotten or taken for votes of this one.
 */
async function keepManifest(directory: string, document: string, network: NetworkManifest): Promise<void> {
  const path = join(directory, 'network.json');
  const kept = await readNetwork(path).catch(() => undefined);
  if (kept && toHex(kept.networkId) !== toHex(network.networkId)) {
    throw new CodedError(
      'other-network',
      `${directory} belongs to the network '${kept.name}' (${toHex(kept.networkId).slice(0, 16)}): give another with --data`,
    );
  }
  await writeFileAtomic(path, utf8(document));
}

async function openLedgerStore(
  directory: string,
  { networkId }: NetworkManifest,
  stack: AsyncDisposableStack,
): Promise<LedgerStore> {
  const store = await openLedgerDatabase({ path: join(directory, 'ledger.sqlite'), networkId });
  stack.defer(() => store.close());
  return store;
}

async function restoreCheckpoint(
  options: NodeRunOptions,
  replica: StageReplica,
  clock: Clock,
  emit: EventSink,
): Promise<CheckpointKeeper> {
  const keeper = createCheckpointKeeper({
    files: await openSnapshotFiles(join(options.directory, 'snapshots')),
    replica,
    clock,
    intervalMs: 1000 * options.checkpointSeconds,
    events: emit,
  });
  const restored = await keeper.restore();
  if (restored) emit({ type: 'restored', ...restored });
  return keeper;
}

function openTransport(
  options: NodeRunOptions,
  network: NetworkManifest,
  key: Awaited<ReturnType<typeof loadOrCreateKeyFile>>,
  clock: Clock,
): Promise<Libp2pTransport> {
  const own = new Set([...options.listen, ...options.announce]);
  return createLibp2pTransport({
    key,
    listen: options.listen,
    announce: options.announce,
    bootstrap: [...network.bootstrap, ...options.bootstrap].filter((address) => !own.has(address)),
    networkId: toHex(network.networkId),
    clock,
    mdns: options.mdns,
    upnp: options.upnp,
    localSwarm: options.local,
    relay: { server: options.relayServer, client: options.relayClient },
  });
}

const samplePrompts = [
  'The people of the United States',
  'Our economy',
  'I recommend to the Congress',
  'Peace',
];

/** A short text by w_r, through all stages. */
async function writeSample(
  generator: TextGenerator,
  round: number,
): Promise<{ prompt: string; text: string }> {
  const prompt = samplePrompts[round % samplePrompts.length]!;
  const sampling = { maxTokens: 32, temperature: 0.8, topP: 1, topK: 50, seed: round, stop: [] };
  let text = '';
  for await (const part of generator.generate({ prompt: generator.encode(prompt), ...sampling }))
    text += part.text;
  return { prompt, text };
}

function reportPeers(peer: Peer, emit: EventSink, stack: AsyncDisposableStack): void {
  const { transport } = peer.options;
  let last = '';
  const timer = setInterval(() => {
    const connected = transport.peers();
    const present = new Set([transport.self, ...connected]);
    const { members } = peer.ledger.consensus.start();
    const membersConnected = members.filter((member) => present.has(member.nodeId)).length;
    const event: NodeEvent & { type: 'peers' } = {
      type: 'peers',
      connected: connected.length,
      members: members.length,
      membersConnected,
    };
    if (JSON.stringify(event) === last) return;
    last = JSON.stringify(event);
    emit(event);
  }, peersEventMs);
  stack.defer(() => clearInterval(timer));
}

/** Serves on after the last round: others may still need this node's votes and blobs. */
async function finish(
  peer: Peer,
  options: NodeRunOptions,
  emit: EventSink,
  signal: AbortSignal,
): Promise<void> {
  const { round, stateHash } = peer.position;
  assert(options.rounds !== undefined, 'training ends by itself only after its last round');
  emit({ type: 'finished', round, stateHash });
  await new Promise<void>((resolve) => {
    signal.addEventListener('abort', () => resolve(), { once: true });
    if (!options.lingers) setTimeout(resolve, lingerMs);
  });
}
