/**
 * A process that holds one stage of a model with its initial weights and serves decode sessions over libp2p: what a node
 * is while nobody trains. Ends with its parent.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import type { ReplicaSettings } from '../../src/diloco/local-replica.ts';
import { generateKeyPair } from '../../src/identity/keys.ts';
import type { ModelConfig } from '../../src/model/config.ts';
import { decodeProtocol, type Protocol } from '../../src/net/protocol.ts';
import { serveDecode } from '../../src/pipeline/decode-server.ts';
import { createDecodeService } from '../../src/pipeline/decode-service.ts';
import { systemClock } from '../../src/platform/nodejs/clock.ts';
import { startCompute } from '../../src/platform/nodejs/compute-host.ts';
import { createLibp2pTransport, type Libp2pTransport } from '../../src/platform/nodejs/libp2p-host.ts';
import { accept } from '../../src/std/outcome.ts';

/** Answers with as many bytes as the request's first four say: what the transport alone takes. */
export const echoProtocol: Protocol = { ...decodeProtocol, id: '/neuroshard/bench-echo/1' };

export function echoRequest(requestBytes: number, answerBytes: number): Uint8Array {
  const request = new Uint8Array(Math.max(4, requestBytes));
  new DataView(request.buffer).setUint32(0, answerBytes);
  return request;
}

export interface StageProcess {
  readonly child: ChildProcess;
  readonly nodeId: string;
  readonly address: string;
  readonly stage: number;
}

interface StageOrder {
  readonly config: ModelConfig;
  readonly stages: number;
  readonly stage: number;
  readonly threads: number;
}

/** Settings that have nothing to do with decoding are those of a small training run. */
export function replicaSettings({ config, stages, stage }: Omit<StageOrder, 'threads'>): ReplicaSettings {
  return {
    config,
    stages,
    stageIndex: stage,
    seed: new Uint8Array(32).fill(1),
    plan: new Uint8Array(32).fill(2),
    inner: { beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weightDecay: 0.1, clip: 1 },
    batch: 1,
    sequence: Math.min(64, config.context),
    outer: { compression: 'int8', aggregator: 'default', learningRate: 0.7, momentum: 0.9 },
  };
}

export async function startStageProcess(order: StageOrder): Promise<StageProcess> {
  const child = fork(fileURLToPath(import.meta.url), [JSON.stringify(order)], {
    stdio: ['ignore', 2, 2, 'ipc'],
  });
  const [{ nodeId, address }] = (await once(child, 'message')) as [{ nodeId: string; address: string }];
  return { child, nodeId, address, stage: order.stage };
}

export function startTransport(bootstrap: readonly string[]): Promise<Libp2pTransport> {
  return createLibp2pTransport({
    key: generateKeyPair(),
    listen: ['/ip4/127.0.0.1/tcp/0'],
    bootstrap,
    networkId: 'bench',
    clock: systemClock(),
    localSwarm: true,
  });
}

async function serve(order: StageOrder): Promise<void> {
  const clock = systemClock();
  const { replica } = await startCompute({
    engine: 'native',
    threads: order.threads,
    replica: replicaSettings(order),
  });
  const transport = await startTransport([]);
  const entries = { embedding: order.stage === 0, width: order.config.width };
  const positionLength = entries.embedding ? 1 : entries.width;
  const service = createDecodeService({ host: replica, clock, positionLength });
  serveDecode({ service, stage: order.stage, entries, transport, clock });
  transport.handle(echoProtocol, async (_from, request) =>
    accept(new Uint8Array(new DataView(request.buffer, request.byteOffset).getUint32(0))),
  );
  process.on('disconnect', () => process.exit());
  process.send?.({ nodeId: transport.self, address: transport.addresses()[0] });
}

if (process.argv[1] === fileURLToPath(import.meta.url))
  await serve(JSON.parse(process.argv[2]!) as StageOrder);
