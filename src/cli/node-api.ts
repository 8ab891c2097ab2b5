/**
 * What a running node serves over HTTP: its status and events, control, and text from the model. It starts no node and
 * knows no route: those are `api/`'s.
 */
import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { createApi } from '../api/app.ts';
import { type ApiKey, openKeyAccounts } from '../api/key-accounts.ts';
import { keepStatus, type PipelineStatus, type StageFacts } from '../api/status.ts';
import { toleratedHostile } from '../diloco/aggregation/rules.ts';
import type { ReplicaInfo } from '../diloco/replica.ts';
import { signDigest } from '../identity/keys.ts';
import type { EventSink } from '../peer/events.ts';
import { ledgerStatus } from '../peer/ledger-report.ts';
import type { Peer } from '../peer/peer.ts';
import type { TextGenerator } from '../peer/text-generator.ts';
import type { Compute } from '../platform/nodejs/compute-host.ts';
import { writeFileAtomic } from '../platform/nodejs/files.ts';
import { startHttpServer } from '../platform/nodejs/http-server.ts';
import { packageVersion } from '../platform/nodejs/installation.ts';
import { systemRandom } from '../platform/nodejs/random.ts';
import { toHex, utf8 } from '../std/bytes.ts';
import type { Clock } from '../std/clock.ts';

export interface ApiPlace {
  readonly host: string;
  readonly port: number;
  /** Clients of `/v1` must show one of these; none: they need none. */
  readonly keys: readonly ApiKey[];
}

export interface ApiParts {
  readonly options: {
    readonly api: ApiPlace | null;
    /** The node's data folder, for the token. */
    readonly directory: string;
    readonly compute: { readonly provider?: string };
  };
  readonly peer: Peer;
  readonly compute: Compute;
  /** Answers prompts under `/v1`. */
  readonly generator: TextGenerator;
  readonly clock: Clock;
  readonly sinks: Set<EventSink>;
  readonly stack: AsyncDisposableStack;
}

/** Serves status and control; the port, or null when there is none. */
export async function serveApi({
  options,
  peer,
  compute,
  generator,
  clock,
  sinks,
  stack,
}: ApiParts): Promise<number | null> {
  if (!options.api) return null;
  const { host, port } = options.api;
  const { network, key, store } = peer.options;
  const info = await compute.replica.info();
  const status = keepStatus({
    pid: process.pid,
    version: packageVersion(),
    nodeId: key.nodeId,
    network: { name: network.name, id: toHex(network.networkId) },
    parameters: info.parameters,
    stage: stageFacts(info.stage),
    aggregator: {
      name: network.outer.aggregator,
      toleratedHostile: toleratedHostile(
        network.outer.aggregator,
        network.outer.compression,
        network.members.filter((member) => member.stage === info.stage.index).length,
      ),
    },
    engine: { id: info.engineId, provider: options.compute.provider ?? 'cpu' },
    startedAtMs: clock.nowMs(),
  });
  sinks.add((event) => status.apply(event));
  const keys = await openKeyAccounts({
    keys: options.api.keys,
    tokenPrice: network.ledger.tokenPrice,
    networkId: network.networkId,
    sign: (digest) => signDigest(digest, key.secretKey),
    store,
    clock,
  });
  stack.defer(() => keys.flush());
  const token = toHex(randomBytes(16));
  await writeFileAtomic(join(options.directory, 'api.token'), utf8(`${token}\n`), { mode: 0o600 });
  const app = createApi({
    status: () =>
      status.status(
        clock.nowMs(),
        pipelineStatus(peer),
        ledgerStatus(peer.ledger, key.nodeId),
        peer.payments.status(),
      ),
    subscribe: (sink) => {
      sinks.add(sink);
      return () => sinks.delete(sink);
    },
    stop: () => process.kill(process.pid, 'SIGTERM'),
    token,
    clock,
    text: { generator, random: systemRandom(), keys },
    ledger: peer.ledger,
    receipts: () => peer.payments.receipts(),
  });
  const server = await startHttpServer({ fetch: app.fetch, host, port });
  stack.defer(() => server.close());
  return server.port;
}

export function stageFacts({
  index,
  count,
  firstLayer,
  endLayer,
  embedding,
  head,
}: ReplicaInfo['stage']): StageFacts {
  const roles = [...(embedding ? (['driver'] as const) : []), ...(head ? (['validator'] as const) : [])];
  return { index, count, firstLayer, endLayer, roles: roles.length > 0 ? roles : ['worker'] };
}

function pipelineStatus({ pipeline, directory }: Peer): PipelineStatus {
  const { queue, ...rest } = pipeline.stats();
  const worked = queue.busyMs + queue.idleWithWorkMs;
  return {
    replicas: Array.from(
      { length: pipeline.stages },
      (_, stage) => directory.candidates(stage).length + (stage === pipeline.stage ? 1 : 0),
    ),
    queue: queue.depth,
    queueRefused: queue.refused,
    utilisation: worked === 0 ? null : queue.busyMs / worked,
    starving: rest.starving,
    failovers: rest.failovers,
    lostMicrobatches: rest.lostMicrobatches,
    convictedDrivers: rest.convictedDrivers,
  };
}
