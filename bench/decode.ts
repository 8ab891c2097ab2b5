/**
 * Writing text through four stages over libp2p and in one process, 32 texts at once against one forward of batch 32, and
 * the pause when a stage is killed or stopped.
 * Run: `node bench/decode.ts [--preset tiny] [--stages 4] [--sessions 32] [--tokens 64] [--json]`.
 */
import { performance } from 'node:perf_hooks';
import { setTimeout as pause } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { type ModelConfig, presetConfig } from '../src/model/config.ts';
import { buildDecodeGraph, cacheNames } from '../src/model/decode-graph.ts';
import { initialParameter } from '../src/model/initialize.ts';
import { parameterList, wholeModel } from '../src/model/parameters.ts';
import { cutStages } from '../src/model/stage-cut.ts';
import { buildForwardGraph } from '../src/model/stage-graph.ts';
import type { Transport } from '../src/net/transport.ts';
import {
  createDecodeClient,
  type DecodeClient,
  type DecodeFailover,
  type DecodeSession,
} from '../src/pipeline/decode-client.ts';
import { encodeDecodeRequest, encodeResults } from '../src/pipeline/decode-messages.ts';
import { createDecodeService, type DecodeService } from '../src/pipeline/decode-service.ts';
import { createLinkWatch } from '../src/pipeline/link-watch.ts';
import { createRouter } from '../src/pipeline/routing.ts';
import { systemClock } from '../src/platform/nodejs/clock.ts';
import { startCompute } from '../src/platform/nodejs/compute-host.ts';
import { createNativeEngine } from '../src/platform/nodejs/onnx-native.ts';
import { systemRandom } from '../src/platform/nodejs/random.ts';
import { utf8 } from '../src/std/bytes.ts';
import { accept } from '../src/std/outcome.ts';
import type { TensorData } from '../src/tensor/graph.ts';
import {
  echoProtocol,
  echoRequest,
  replicaSettings,
  type StageProcess,
  startStageProcess,
  startTransport,
} from './support/stage-process.ts';

const { values } = parseArgs({
  options: {
    preset: { type: 'string', default: 'tiny' },
    stages: { type: 'string', default: '4' },
    sessions: { type: 'string', default: '32' },
    tokens: { type: 'string', default: '64' },
    repeats: { type: 'string', default: '5' },
    threads: { type: 'string', default: '1' },
    json: { type: 'boolean', default: false },
  },
});
const clock = systemClock();
const config = presetConfig(values.preset);
const [stages, sessions, repeats, threads] = [
  values.stages,
  values.sessions,
  values.repeats,
  values.threads,
].map(Number) as [number, number, number, number];
const promptLength = 16;
const warmUpTexts = 4;
const tokens = Math.min(Number(values.tokens), config.context - promptLength - 1);

interface Place {
  readonly client: DecodeClient;
  readonly failovers: DecodeFailover[];
}

function clientOf(
  transport: Transport,
  cut: number,
  candidates: (stage: number) => readonly string[],
  service?: DecodeService,
): Place {
  const random = systemRandom();
  const failovers: DecodeFailover[] = [];
  const client = createDecodeClient({
    config,
    stages: cutStages(config, cut),
    transport,
    clock,
    random,
    router: createRouter({ clock, random }),
    links: createLinkWatch({ clock }),
    candidates,
    onFailover: (failover) => failovers.push(failover),
    ...(service && { local: { stage: 0, service } }),
  });
  return { client, failovers };
}

function promptOf(text: number): Int32Array {
  return Int32Array.from({ length: promptLength }, (_, i) => (text * 131 + i * 37 + 5) % config.vocabulary);
}

function argmax(logits: Float32Array): number {
  let best = 0;
  for (let i = 1; i < logits.length; i++) if (logits[i]! > logits[best]!) best = i;
  return best;
}

interface Written {
  readonly tokens: readonly number[];
  /** Of each token after the first. */
  readonly gapsMs: readonly number[];
}

async function write(
  session: DecodeSession,
  first: Float32Array,
  each: (made: number) => void | Promise<void> = () => {},
): Promise<Written> {
  const made: number[] = [];
  const gapsMs: number[] = [];
  let logits = first;
  while (made.length < tokens) {
    await each(made.length);
    const startedMs = performance.now();
    made.push(argmax(logits));
    logits = await session.append(Int32Array.of(made.at(-1)!));
    gapsMs.push(performance.now() - startedMs);
  }
  return { tokens: made, gapsMs };
}

async function writeOne({ client }: Place, each?: (made: number) => void): Promise<Written> {
  const session = await client.open();
  const written = await write(session, await session.append(promptOf(0)), each);
  await session.close();
  return written;
}

function median(numbers: readonly number[]): number {
  return [...numbers].sort((a, b) => a - b)[Math.floor(numbers.length / 2)]!;
}

/** Many texts at once: tokens per second of all, and the slowest text's time against the fastest's. */
async function writeMany({ client }: Place) {
  const open = await Promise.all(Array.from({ length: sessions }, () => client.open()));
  const logits = await Promise.all(open.map((session, i) => session.append(promptOf(i))));
  const startedMs = performance.now();
  const endedMs: number[] = [];
  await Promise.all(
    open.map(async (session, i) => {
      await write(session, logits[i]!);
      endedMs.push(performance.now() - startedMs);
    }),
  );
  await Promise.all(open.map((session) => session.close()));
  return {
    tokensPerSecond: (1000 * sessions * tokens) / Math.max(...endedMs),
    slowestToFastest: Math.max(...endedMs) / Math.min(...endedMs),
  };
}

/** One forward of a batch of so many sequences, alone on its thread: with caches to read, and without any. */
async function compileForwards(model: ModelConfig) {
  const engine = createNativeEngine({ threads });
  const stage = wholeModel(model);
  const { context: capacity, layers, kvHeads, headWidth, vocabulary } = model;
  const weights = Object.fromEntries(
    parameterList(model, stage).map(({ name, shape }) => [
      name,
      initialParameter(utf8('bench'), name, shape, model),
    ]),
  );
  const cached = await engine.compile(
    buildDecodeGraph(model, stage, { sequences: sessions, newTokens: 1, capacity }),
  );
  const feeds: Record<string, TensorData> = {
    ...weights,
    tokens: new Int32Array(sessions),
    positions: new Int32Array(sessions).fill(capacity / 2),
    mask: new Float32Array(sessions * (capacity + 1)),
    last: Int32Array.from({ length: sessions }, (_, i) => i),
  };
  const fetches: Record<string, Float32Array> = { logits: new Float32Array(sessions * vocabulary) };
  for (let layer = 0; layer < layers; layer++) {
    const names = cacheNames(layer);
    for (const name of [names.pastKey, names.pastValue])
      feeds[name] = new Float32Array(sessions * kvHeads * capacity * headWidth).fill(0.01);
    for (const name of [names.newKey, names.newValue])
      fetches[name] = new Float32Array(sessions * kvHeads * headWidth);
  }
  const plain = await engine.compile(buildForwardGraph(model, stage, { batch: sessions, sequence: 1 }));
  const plainFeeds = { ...weights, tokens: new Int32Array(sessions) };
  const { logits } = fetches;
  const rate = async (run: () => Promise<void>) => {
    const startedMs = performance.now();
    for (let i = 0; i < tokens; i++) await run();
    return (1000 * sessions * tokens) / (performance.now() - startedMs);
  };
  return {
    withCaches: () => rate(() => cached.run(feeds, fetches)),
    withoutCaches: () => rate(() => plain.run(plainFeeds, { logits: logits! })),
    close: () => engine.close(),
  };
}

/**
 * What the transport takes of a token: one request to each stage in turn, request and answer as large as the token's, over
 * a protocol that only answers. A process that has slept answers later than one that was just asked. So a token is written
 * between any two rounds (each process has slept as long as for a token), and for comparison there are rounds in a row.
 */
async function roundTripsMs({ client }: Place, transport: Transport, processes: readonly StageProcess[]) {
  const requests = processes.map(({ nodeId, stage }) => {
    const entry = stage === 0 ? Int32Array.of(1) : new Float32Array(config.width);
    const call = { session: '00'.repeat(16), position: promptLength, entry, wanted: true };
    const output = new Float32Array(stage === stages - 1 ? config.vocabulary : config.width);
    const request = encodeDecodeRequest({ kind: 'run', stage, calls: [call] });
    const answer = encodeResults([accept({ shape: '1x1', output })], [true]);
    return { nodeId, message: echoRequest(request.length, answer.length) };
  });
  const round = async () => {
    const startedMs = performance.now();
    for (const { nodeId, message } of requests) {
      const answer = await transport.request(nodeId, echoProtocol, message);
      if (!answer.ok) throw new Error(answer.code);
    }
    return performance.now() - startedMs;
  };
  const between: number[] = [];
  const inARow: number[] = [];
  const session = await client.open();
  await write(session, await session.append(promptOf(0)), async () => {
    between.push(await round());
  });
  await session.close();
  for (let i = 0; i < tokens; i++) inARow.push(await round());
  return { between: median(between), inARow: median(inARow) };
}

async function measureFailover(
  place: Place,
  processes: readonly StageProcess[],
  signal: 'SIGKILL' | 'SIGSTOP',
) {
  const expected = await writeOne(place);
  const session = await place.client.open();
  const first = await session.append(promptOf(0));
  const before = place.failovers.length;
  let victim: StageProcess | undefined;
  const written = await write(session, first, (made) => {
    if (made !== Math.floor(tokens / 2)) return;
    victim = processes.find(({ nodeId }) => nodeId === session.route[1]);
    victim?.child.kill(signal);
  });
  await session.close().catch(() => undefined);
  return {
    signal,
    failovers: place.failovers.length - before,
    pauseMs: Math.max(...written.gapsMs),
    medianGapMs: median(written.gapsMs),
    exact: place.failovers.slice(before).every(({ exact }) => exact),
    identical: written.tokens.every((token, i) => token === expected.tokens[i]),
    victim,
  };
}

const round = (value: number) => Math.round(value * 1000) / 1000;

async function main(): Promise<void> {
  const orders = [...Array(stages).keys(), ...(stages > 1 ? [1, 1] : [])];
  const processes = await Promise.all(
    orders.map((stage) => startStageProcess({ config, stages, stage, threads })),
  );
  const transport = await startTransport(processes.map(({ address }) => address));
  while (transport.peers().length < processes.length) await pause(20);
  const singles = processes.slice(0, stages);
  const remote = clientOf(transport, stages, (stage) => [singles[stage]!.nodeId]);
  const whole = await startCompute({
    engine: 'native',
    threads,
    replica: replicaSettings({ config, stages: 1, stage: 0 }),
  });
  const service = createDecodeService({ host: whole.replica, clock, positionLength: 1 });
  const local = clientOf(transport, 1, () => [], service);
  const forwards = await compileForwards(config);

  const one: number[] = [];
  const through: number[] = [];
  const trips: number[] = [];
  const tripsInARow: number[] = [];
  const many: { tokensPerSecond: number; slowestToFastest: number }[] = [];
  const withCaches: number[] = [];
  const withoutCaches: number[] = [];
  let identical = true;
  // A node that has served for a while is what is measured: the first texts run before their code is compiled.
  for (let text = 0; text < warmUpTexts; text++) {
    await writeOne(local);
    await writeOne(remote);
    await writeMany(local);
  }
  // Interleaved, so that what else the machine does meets all alike.
  for (let repeat = 0; repeat < repeats; repeat++) {
    const alone = await writeOne(local);
    const staged = await writeOne(remote);
    identical &&= alone.tokens.every((token, i) => token === staged.tokens[i]);
    one.push(median(alone.gapsMs));
    through.push(median(staged.gapsMs));
    const { between, inARow } = await roundTripsMs(remote, transport, singles);
    trips.push(between);
    tripsInARow.push(inARow);
    withCaches.push(await forwards.withCaches());
    many.push(await writeMany(local));
    withoutCaches.push(await forwards.withoutCaches());
  }
  const overheads = through.map((ms, i) => (ms - trips[i]!) / one[i]!);
  const results = {
    preset: values.preset,
    stages,
    sessions,
    tokens,
    threads,
    onePerTokenMs: round(median(one)),
    stagesPerTokenMs: round(median(through)),
    roundTripsMs: round(median(trips)),
    roundTripsInARowMs: round(median(tripsInARow)),
    /** Time through the stages without the transport's round trips, against one process; of each repeat. */
    stagesOverhead: round(median(overheads)),
    leastStagesOverhead: round(Math.min(...overheads)),
    identical,
    singleTokensPerSecond: round(1000 / median(one)),
    sessionsTokensPerSecond: round(median(many.map(({ tokensPerSecond }) => tokensPerSecond))),
    forwardTokensPerSecond: round(median(withCaches)),
    forwardWithoutCachesTokensPerSecond: round(median(withoutCaches)),
    ofForward: round(median(many.map(({ tokensPerSecond }, i) => tokensPerSecond / withCaches[i]!))),
    ofSingle: round(median(many.map(({ tokensPerSecond }, i) => (tokensPerSecond * one[i]!) / 1000))),
    slowestToFastest: round(Math.max(...many.map(({ slowestToFastest }) => slowestToFastest))),
    failovers: [] as object[],
  };
  if (stages > 1) {
    const replicated = clientOf(transport, stages, (stage) =>
      processes
        .filter((process) => process.stage === stage && transport.peers().includes(process.nodeId))
        .map(({ nodeId }) => nodeId),
    );
    for (const signal of ['SIGKILL', 'SIGSTOP'] as const) {
      const { victim, pauseMs, medianGapMs, ...rest } = await measureFailover(replicated, processes, signal);
      results.failovers.push({ ...rest, pauseMs: round(pauseMs), medianGapMs: round(medianGapMs) });
      victim?.child.kill('SIGKILL');
    }
  }
  print(results);
  await forwards.close();
  await whole.stop();
  await transport.close();
  for (const { child } of processes) child.kill('SIGKILL');
}

function print(results: object): void {
  if (values.json) console.log(JSON.stringify(results));
  else
    for (const [name, value] of Object.entries(results)) console.log(name.padEnd(36), JSON.stringify(value));
}

await main();
process.exit(0);
