/**
 * One node's part in writing text, wired: the sessions of its own stage, served to peers and to itself, and the client
 * that goes through all stages. It knows no tokenizer: `generate.ts` makes text of it.
 */
import type { StageReplica } from '../diloco/replica.ts';
import { cutStages } from '../model/stage-cut.ts';
import type { Transport } from '../net/transport.ts';
import { createDecodeClient, type DecodeClient, type DecodeFailover } from '../pipeline/decode-client.ts';
import { serveDecode } from '../pipeline/decode-server.ts';
import { createDecodeService, type DecodeServiceStats } from '../pipeline/decode-service.ts';
import type { StageDirectory } from '../pipeline/directory.ts';
import { createLinkWatch } from '../pipeline/link-watch.ts';
import { createRouter } from '../pipeline/routing.ts';
import type { WorkQueue } from '../pipeline/work-queue.ts';
import { must } from '../std/assert.ts';
import type { Clock } from '../std/clock.ts';
import type { Random } from '../std/random.ts';
import type { NetworkManifest } from './network.ts';
import type { Payments } from './payments.ts';

export interface DecodingOptions {
  readonly network: Pick<NetworkManifest, 'model'> & {
    readonly training: Pick<NetworkManifest['training'], 'stages'>;
  };
  readonly stage: number;
  readonly replica: StageReplica;
  readonly transport: Transport;
  readonly clock: Clock;
  readonly random: Random;
  readonly directory: Pick<StageDirectory, 'candidates'>;
  /** What this node's replica does besides. */
  readonly queue: Pick<WorkQueue, 'run'>;
  readonly onFailover?: (failover: DecodeFailover) => void;
  /** Whom peers pay, and who pays peers. */
  readonly payments?: Pick<Payments, 'meter' | 'payer'>;
}

export interface DecodingStats extends DecodeServiceStats {
  /** Of the sessions of this node's own texts. */
  readonly failovers: number;
  /** Failovers after which not every bit was the same. */
  readonly inexact: number;
}

export interface Decoding {
  readonly client: DecodeClient;
  stats(): DecodingStats;
  close(): Promise<void>;
}

export function createDecoding(options: DecodingOptions): Decoding {
  const { network, stage, replica, transport, clock, random, directory, queue, payments } = options;
  const stages = cutStages(network.model, network.training.stages);
  const { embedding } = must(stages[stage], `stage ${stage}`);
  const { width } = network.model;
  const counts = { failovers: 0, inexact: 0 };
  const service = createDecodeService({
    host: replica,
    clock,
    positionLength: embedding ? 1 : width,
    schedule: (task) => queue.run('decode', task),
  });
  const stopServing = serveDecode({
    service,
    stage,
    entries: { embedding, width },
    transport,
    clock,
    ...(payments?.meter && { meter: payments.meter }),
  });
  const client = createDecodeClient({
    config: network.model,
    stages,
    transport,
    clock,
    random,
    router: createRouter({ clock, random }),
    links: createLinkWatch({ clock, roundTripMs: transport.roundTripMs }),
    candidates: (wanted) => directory.candidates(wanted),
    local: { stage, service },
    ...(payments?.payer && { payer: payments.payer }),
    onFailover: (failover) => {
      counts.failovers += 1;
      if (!failover.exact) counts.inexact += 1;
      options.onFailover?.(failover);
    },
  });
  return {
    client,
    stats: () => ({ ...service.stats(), ...counts }),
    close: async () => {
      stopServing();
      await service.stop();
    },
  };
}
