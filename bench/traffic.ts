/**
 * Traffic of a swarm, bytes sent per node and inner step against fp32 ring all-reduce at every step, all overheads counted, with
 * the held-out loss it gives beside `train` at equal tokens.
 * Run: `node bench/traffic.ts [--inner-steps 500] [--rounds 4] [--batch 2] [--preset tiny] [--json]`.
 */
import { parseArgs } from 'node:util';
import type { SwarmReport } from '../src/cli/swarm-report.ts';
import { runNeuroshard, table } from './support/run-neuroshard.ts';

const { values } = parseArgs({
  options: {
    'inner-steps': { type: 'string', default: '500' },
    rounds: { type: 'string', default: '4' },
    batch: { type: 'string', default: '2' },
    preset: { type: 'string', default: 'tiny' },
    nodes: { type: 'string', default: '4' },
    compressions: { type: 'string', default: 'f32,sparse' },
    baseline: { type: 'boolean', default: true },
    json: { type: 'boolean', default: false },
  },
  allowNegative: true,
});
const innerSteps = Number(values['inner-steps']);
const rounds = Number(values.rounds);
const nodes = Number(values.nodes);
const shared = ['--preset', values.preset, '--batch', values.batch, '--nodes', values.nodes];
const steps = ['--inner-steps', String(innerSteps)];

/** Of the payload alone, H inner steps, N nodes: 2H/N for f32 and 292·H/N for top-64 of 4096 with 12-bit indices. */
const reference: Record<string, number> = {
  f32: (2 * innerSteps) / nodes,
  sparse: (292 * innerSteps) / nodes,
};

const train = values.baseline
  ? await runNeuroshard<{ finalHeldOutLoss: number }>([
      'train',
      ...shared,
      ...steps,
      '--steps',
      String(rounds * innerSteps),
    ])
  : undefined;
const rows = [];
for (const compression of values.compressions.split(',')) {
  const report = await runNeuroshard<SwarmReport>([
    'swarm',
    ...shared,
    ...steps,
    '--rounds',
    values.rounds,
    '--compression',
    compression,
  ]);
  const row = {
    compression,
    bytesPerNodePerInnerStep: report.bytesPerNodePerInnerStep,
    communicationReduction: report.communicationReduction,
    ofReference: report.communicationReduction / (reference[compression] ?? Number.NaN),
    finalHeldOutLoss: report.finalHeldOutLoss,
    trainHeldOutLoss: train?.finalHeldOutLoss ?? null,
    tokens: report.tokens,
  };
  rows.push(row);
  console.error(JSON.stringify(row));
}

if (values.json) console.log(JSON.stringify({ settings: values, rows }, null, 2));
else {
  const cells = rows.map((row) => [
    row.compression,
    row.bytesPerNodePerInnerStep.toFixed(1),
    `${row.communicationReduction.toFixed(0)}x`,
    row.ofReference.toFixed(3),
    row.finalHeldOutLoss?.toFixed(4) ?? '-',
    row.trainHeldOutLoss?.toFixed(4) ?? '-',
  ]);
  console.log(table(['compression', 'bytes/step', 'reduction', '/ reference', 'held-out', 'train'], cells));
}
