/**
 * Efficiency of the pipeline in virtual time: steps per second against the slowest stage's own rate, by round trip, with
 * a flush between steps. Code of routes, queues and messages is the product's; computing takes the times that are given.
 * Run: `node bench/pipeline.ts [--rtt 0,50,100,200] [--forward 130,..] [--backward 390,..] [--microbatches 64] [--json]`.
 */
import { createHash } from 'node:crypto';
import { parseArgs } from 'node:util';
import { installSha256 } from '../src/std/hash.ts';
import { pipelineEfficiency } from './support/pipeline-efficiency.ts';

installSha256((bytes) => new Uint8Array(createHash('sha256').update(bytes).digest()));

const { values } = parseArgs({
  options: {
    rtt: { type: 'string', default: '0,50,100,200' },
    forward: { type: 'string', default: '130' },
    backward: { type: 'string', default: '390' },
    stages: { type: 'string', default: '4' },
    microbatches: { type: 'string', default: '64' },
    steps: { type: 'string', default: '2' },
    tokens: { type: 'string', default: '2048' },
    width: { type: 'string', default: '256' },
    megabits: { type: 'string', default: '80' },
    json: { type: 'boolean', default: false },
  },
});
const list = (text: string) => text.split(',').map(Number);
const stages = Number(values.stages);
const forward = list(values.forward);
const backward = list(values.backward);
const costs = Array.from({ length: stages }, (_, stage) => ({
  forwardMs: forward[stage] ?? forward.at(-1)!,
  backwardMs: backward[stage] ?? backward.at(-1)!,
}));

const rows = [];
for (const rttMs of list(values.rtt))
  rows.push(
    await pipelineEfficiency({
      costs,
      rttMs,
      microbatches: Number(values.microbatches),
      steps: Number(values.steps),
      tokens: Number(values.tokens),
      width: Number(values.width),
      bytesPerSecond: Number(values.megabits) * 125_000,
    }),
  );

if (values.json) process.stdout.write(`${JSON.stringify({ virtualTime: true, costs, rows })}\n`);
else
  for (const { rttMs, stepMs, efficiency, busiestUtilisation, utilisationWithWork, falseFailovers } of rows)
    process.stdout.write(
      `RTT ${rttMs} ms: ${(stepMs / 1000).toFixed(2)} s a step, ${(100 * efficiency).toFixed(1)}% of the slowest stage's rate; busiest stage at work ${(100 * busiestUtilisation).toFixed(1)}% of the time, ${(100 * utilisationWithWork).toFixed(1)}% of that with work there; ${falseFailovers} failovers\n`,
    );
