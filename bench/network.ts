/**
 * The network on loopback: throughput and latency between two processes, and what four connected nodes send while idle
 * and for one announcement. Run: `node bench/network.ts [--json]`.
 */
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { cpus } from 'node:os';
import { performance } from 'node:perf_hooks';
import { setTimeout as pause } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { generateKeyPair } from '../src/identity/keys.ts';
import { blobProtocol, type Protocol, statusProtocol } from '../src/net/protocol.ts';
import { systemClock } from '../src/platform/nodejs/clock.ts';
import { createLibp2pTransport, type Libp2pTransport } from '../src/platform/nodejs/libp2p-host.ts';
import { accept } from '../src/std/outcome.ts';

export interface NetworkResults {
  readonly cores: number;
  readonly node: string;
  /** 1 MiB answers, one request after another. */
  readonly serialMegabytesPerSecond: number;
  /** The same with 8 requests in flight. */
  readonly parallelMegabytesPerSecond: number;
  /** CPU of the asking process per MiB received, in ms. */
  readonly cpuMsPerMebibyte: number;
  /** Round trip of a 32-byte request and answer on a kept-open stream. */
  readonly latencyMsMedian: number;
  readonly latencyMsP99: number;
  /** Per node, four nodes connected to each other; the mean of `idleSeconds`. */
  readonly idleBytesPerSecond: number;
  readonly idleSeconds: number;
  /** Sent by all four nodes together for one announcement of 300 bytes that reaches the three others. */
  readonly announcementBytes: number;
  /** Sent by a node to join and find the others. */
  readonly joinBytes: number;
}

const MiB = 1024 * 1024;
const clock = systemClock();
const unlimited: Protocol = { ...blobProtocol, requestsPerMinuteMax: 1_000_000 };
const small: Protocol = { ...statusProtocol, requestsPerMinuteMax: 1_000_000 };

async function start(bootstrap: readonly string[]): Promise<Libp2pTransport> {
  return await createLibp2pTransport({
    key: generateKeyPair(),
    listen: ['/ip4/127.0.0.1/tcp/0'],
    bootstrap,
    networkId: 'bench',
    clock,
    localSwarm: true,
  });
}

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await pause(20);
}

/** The other process: answers until its parent goes. */
async function serve(): Promise<void> {
  const transport = await start([]);
  const body = new Uint8Array(MiB).fill(7);
  transport.handle(unlimited, async () => accept(body));
  transport.handle(small, async (_from, request) => accept(request));
  process.send?.(transport.addresses()[0]);
  process.on('disconnect', () => process.exit());
}

async function measureRequests() {
  const child = fork(fileURLToPath(import.meta.url), ['--serve'], { stdio: 'inherit' });
  const [address] = (await once(child, 'message')) as [string];
  const transport = await start([address]);
  await until(() => transport.peers().length === 1);
  const peer = transport.peers()[0]!;
  const fetchMebibyte = async () => {
    const outcome = await transport.request(peer, unlimited, new Uint8Array(40));
    if (!outcome.ok) throw new Error(`${outcome.code} ${outcome.detail}`);
  };
  for (let i = 0; i < 20; i++) await fetchMebibyte();
  const serial = 200;
  const cpu = process.cpuUsage();
  let startMs = performance.now();
  for (let i = 0; i < serial; i++) await fetchMebibyte();
  const serialMs = performance.now() - startMs;
  const used = process.cpuUsage(cpu);
  const lanes = 8;
  startMs = performance.now();
  await Promise.all(
    Array.from({ length: lanes }, async () => {
      for (let i = 0; i < serial / lanes; i++) await fetchMebibyte();
    }),
  );
  const parallelMs = performance.now() - startMs;
  const latencies: number[] = [];
  for (let i = 0; i < 2_000; i++) {
    const sentMs = performance.now();
    await transport.request(peer, small, new Uint8Array(32));
    latencies.push(performance.now() - sentMs);
  }
  latencies.sort((a, b) => a - b);
  await transport.close();
  child.disconnect();
  return {
    serialMegabytesPerSecond: (serial * MiB) / 1e3 / serialMs,
    parallelMegabytesPerSecond: (serial * MiB) / 1e3 / parallelMs,
    cpuMsPerMebibyte: (used.user + used.system) / 1e3 / serial,
    latencyMsMedian: latencies[latencies.length >> 1]!,
    latencyMsP99: latencies[Math.floor(latencies.length * 0.99)]!,
  };
}

async function measureChatter(idleSeconds: number) {
  const first = await start([]);
  const nodes = [first];
  for (let i = 0; i < 3; i++) nodes.push(await start(first.addresses()));
  await until(() => nodes.every((node) => node.peers().length === 3));
  let deliveries = 0;
  for (const node of nodes) {
    node.subscribe('bench', 1024, () => {
      deliveries += 1;
    });
  }
  await pause(3_000);
  const sent = () => nodes.reduce((sum, node) => sum + node.traffic().bytesSent, 0);
  const joined = sent();
  await pause(idleSeconds * 1_000);
  const idle = sent() - joined;
  const before = sent();
  const announcements = 50;
  for (let i = 0; i < announcements; i++) {
    await first.publish('bench', crypto.getRandomValues(new Uint8Array(300)));
    await until(() => deliveries === 3 * (i + 1));
  }
  await pause(1_500);
  const announced = sent() - before;
  await Promise.all(nodes.map((node) => node.close()));
  return {
    idleBytesPerSecond: idle / idleSeconds / nodes.length,
    idleSeconds,
    announcementBytes: announced / announcements,
    joinBytes: joined / nodes.length,
  };
}

export async function benchNetwork(idleSeconds = 60): Promise<NetworkResults> {
  const requests = await measureRequests();
  const chatter = await measureChatter(idleSeconds);
  return { cores: cpus().length, node: process.version, ...requests, ...chatter };
}

if (import.meta.main) {
  const { values } = parseArgs({
    options: { serve: { type: 'boolean' }, json: { type: 'boolean' }, 'idle-seconds': { type: 'string' } },
  });
  if (values.serve) await serve();
  else {
    const keepAlive = setInterval(() => {}, 1_000);
    const results = await benchNetwork(Number(values['idle-seconds'] ?? 60));
    clearInterval(keepAlive);
    if (values.json) console.log(JSON.stringify(results));
    else console.table(results);
  }
}
