/**
 * How soon a node killed with SIGKILL serves again, its ledger many blocks long: from the start of the process to the
 * first answer of its API, and to the next block. The blocks are made beforehand as the network's only member would have
 * made them; then the real node runs on them, is killed in the middle of its training, and started again.
 * Run: `node bench/node-restart.ts [--blocks 10000] [--transfers 2] [--epoch-blocks 3000] [--runs 3] [--json]`.
 * A node keeps the blocks of four epochs and forgets older ones, so all are there with epochs of a quarter of them.
 */
import { mkdtemp, readdir, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { type ChildNode, freePorts, startChild } from '../src/cli/child-nodes.ts';
import { clusterKey, prepareCluster } from '../src/cli/cluster.ts';
import { presets } from '../src/model/config.ts';
import type { NodeEvent } from '../src/peer/events.ts';
import { defaultLedger, defaultOuter, defaultTraining } from '../src/peer/policy.ts';
import { readManifest } from '../src/platform/nodejs/dataset-files.ts';
import { packageFile } from '../src/platform/nodejs/installation.ts';
import { installNodeSha256 } from '../src/platform/nodejs/sha256.ts';
import { writeLongLedger } from './support/long-ledger.ts';
import { processCpuMs } from './support/process-cpu.ts';

const { values } = parseArgs({
  options: {
    blocks: { type: 'string', default: '10000' },
    transfers: { type: 'string', default: '2' },
    accounts: { type: 'string', default: '5000' },
    'epoch-blocks': { type: 'string', default: '3000' },
    runs: { type: 'string', default: '3' },
    json: { type: 'boolean', default: false },
  },
});
installNodeSha256();
const innerSteps = 10;
const seed = 1;
const readyMsMax = 120_000;

interface Restart {
  /** Of the newest block that the API knows with its first answer. */
  readonly block: number;
  /** From the start of the process: API answers; `started` said; a block after the first is there. */
  readonly servingMs: number;
  readonly startedMs: number;
  readonly nextBlockMs: number;
  /** Of all threads of the process when it served; null where the system does not say. */
  readonly cpuMs: number | null;
}

const directory = await mkdtemp(join(tmpdir(), 'node-restart-'));
try {
  await measure();
} finally {
  await rm(directory, { recursive: true, force: true });
}

async function measure(): Promise<void> {
  const datasetDirectory = packageFile('data', 'state-of-the-union');
  const { hash } = await readManifest(datasetDirectory);
  const [apiPort] = await freePorts(1);
  const cluster = await prepareCluster({
    directory,
    seed,
    nodes: 1,
    attackers: 0,
    model: presets.tiny,
    datasetDirectory,
    datasetHash: hash,
    training: { ...defaultTraining(presets.tiny), innerSteps, batch: 2, sequence: 64 },
    outer: defaultOuter('int8', 'default', innerSteps),
    ledger: { ...defaultLedger(innerSteps), epochBlocks: Number(values['epoch-blocks']) },
    heldOutBatches: 0,
    samples: false,
    apiPort: apiPort!,
  });
  const [node] = cluster.nodes;
  const began = performance.now();
  const head = await writeLongLedger({
    network: cluster.network,
    key: clusterKey(seed, 0),
    directory: node!.directory,
    blocks: Number(values.blocks),
    transfers: Number(values.transfers),
    accounts: Number(values.accounts),
  });
  const madeSeconds = (performance.now() - began) / 1000;
  const { size } = await stat(join(node!.directory, 'ledger.sqlite'));
  const votes = (await readdir(join(node!.directory, 'store'))).length;
  const restarts: Restart[] = [];
  // The first start is not after a kill: it only gives the node something to be killed in.
  for (let run = 0; run <= Number(values.runs); run++) {
    const restart = await startAndKill(node!.spec, apiPort!);
    if (run > 0) restarts.push(restart);
  }
  const result = { blocks: head.number, epoch: head.epoch, fileBytes: size, votes, madeSeconds, restarts };
  if (values.json) console.log(JSON.stringify(result, null, 2));
  else print(result);
}

async function startAndKill(spec: Parameters<typeof startChild>[0], port: number): Promise<Restart> {
  const startMs = performance.now();
  const since = () => performance.now() - startMs;
  let startedMs: number | undefined;
  let failed: string | undefined;
  const child: ChildNode = startChild(spec, {
    onEvent: (_name: string, event: NodeEvent) => {
      if (event.type === 'started') startedMs = since();
    },
    onExit: (_name, status) => {
      failed = JSON.stringify(status);
    },
  });
  try {
    const until = async <T>(ask: () => Promise<T | undefined>): Promise<T> => {
      for (;;) {
        const answer = await ask();
        if (answer !== undefined) return answer;
        if (failed !== undefined) throw new Error(`the node ended: ${failed}`);
        if (since() > readyMsMax) throw new Error('the node does not serve');
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
    };
    const newest = async (): Promise<number | undefined> => {
      const answer = await fetch(`http://127.0.0.1:${port}/api/ledger/blocks?limit=1`).catch(() => undefined);
      if (!answer?.ok) return undefined;
      const { blocks } = (await answer.json()) as { blocks: { number: number }[] };
      return blocks[0]?.number;
    };
    const block = await until(newest);
    const servingMs = since();
    const cpuMs = await processCpuMs(child.pid);
    await until(async () => ((await newest()) ?? 0) > block || undefined);
    const nextBlockMs = since();
    await until(async () => startedMs);
    return { block, servingMs, startedMs: startedMs!, nextBlockMs, cpuMs };
  } finally {
    await child.kill();
  }
}

function print(result: {
  blocks: number;
  epoch: number;
  fileBytes: number;
  votes: number;
  madeSeconds: number;
  restarts: readonly Restart[];
}): void {
  const { blocks, epoch, fileBytes, votes, madeSeconds, restarts } = result;
  console.log(
    `${blocks} blocks, epoch ${epoch}, ledger of ${(fileBytes / 1e6).toFixed(0)} MB, ${votes} files of votes and decisions, made in ${madeSeconds.toFixed(0)} s`,
  );
  for (const { block, servingMs, startedMs, nextBlockMs, cpuMs } of restarts)
    console.log(
      `killed and started again: API answers after ${(servingMs / 1000).toFixed(2)} s at block ${block} ` +
        `(${cpuMs === null ? '?' : (cpuMs / 1000).toFixed(2)} s of processor time), started after ${(startedMs / 1000).toFixed(2)} s, ` +
        `next block after ${(nextBlockMs / 1000).toFixed(2)} s`,
    );
}
