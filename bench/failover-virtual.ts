/**
 * Failover in virtual time: nodes killed or hanging in the middle of a microbatch on links of 1 ms, and nodes given up
 * for nothing at 100 ms round trip with 1% of packets lost. Run: `node bench/failover-virtual.ts [--events 1000] [--json]`.
 */
import { createHash } from 'node:crypto';
import { parseArgs } from 'node:util';
import { installSha256 } from '../src/std/hash.ts';
import { runVirtualFailovers } from './support/virtual-failovers.ts';

installSha256((bytes) => new Uint8Array(createHash('sha256').update(bytes).digest()));

const { values } = parseArgs({
  options: {
    events: { type: 'string', default: '1000' },
    seed: { type: 'string', default: '1' },
    'quiet-seconds': { type: 'string', default: '600' },
    json: { type: 'boolean', default: false },
  },
});
const seed = Number(values.seed);
const failures = await runVirtualFailovers({ events: Number(values.events), seed, rttMs: 2, loss: 0 });
const quiet = await runVirtualFailovers({
  events: 0,
  seed,
  rttMs: 100,
  loss: 0.01,
  quietMs: 1_000 * Number(values['quiet-seconds']),
});

if (values.json) process.stdout.write(`${JSON.stringify({ virtualTime: true, failures, quiet })}\n`);
else {
  const { events, p50Ms, p95Ms, p99Ms, maxMs, lost, doubled } = failures;
  process.stdout.write(
    `${events} failures: p50 ${p50Ms.toFixed(0)}, p95 ${p95Ms.toFixed(0)}, p99 ${p99Ms.toFixed(0)}, max ${maxMs.toFixed(0)} ms; ${lost} lost, ${doubled} doubled, ${failures.falseFailovers} given up for nothing\n` +
      `nobody fails, 100 ms round trip, 1% loss, ${quiet.virtualSeconds.toFixed(0)} s: ${quiet.falseFailovers} given up for nothing in ${quiet.begun} microbatches; ${quiet.lost} lost, ${quiet.doubled} doubled\n`,
  );
}
