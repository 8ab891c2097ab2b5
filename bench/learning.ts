/**
 * Learning of a swarm of four honest nodes against the synchronous baseline on the same batches, at equal tokens.
 * Run: `node bench/learning.ts [--seed 1] [--rounds 25] [--inner-steps 20] [--compression int8] [--json]`.
 */
import { parseArgs } from 'node:util';
import type { SwarmReport } from '../src/cli/swarm-report.ts';
import { runNeuroshard, table } from './support/run-neuroshard.ts';

interface TrainReport {
  readonly finalHeldOutLoss: number;
  readonly tokens: number;
  readonly curve: readonly {
    readonly step: number;
    readonly tokens: number;
    readonly heldOutLoss: number | null;
  }[];
}

const { values } = parseArgs({
  options: {
    seed: { type: 'string', default: '1' },
    rounds: { type: 'string', default: '25' },
    'inner-steps': { type: 'string', default: '20' },
    compression: { type: 'string', default: 'int8' },
    json: { type: 'boolean', default: false },
  },
});
const rounds = Number(values.rounds);
const innerSteps = Number(values['inner-steps']);
const shared = ['--nodes', '4', '--seed', values.seed, '--inner-steps', String(innerSteps)];

// Both at once: neither result depends on how long it takes.
const [train, swarm] = await Promise.all([
  runNeuroshard<TrainReport>(['train', ...shared, '--threads', '1', '--steps', String(rounds * innerSteps)]),
  runNeuroshard<SwarmReport>([
    'swarm',
    ...shared,
    '--rounds',
    String(rounds),
    '--compression',
    values.compression,
  ]),
]);

// A node that was late contributes fewer steps, so a round's end is found by its number, not by its tokens.
const baseline = new Map(train.curve.map((point) => [point.step / innerSteps, point.heldOutLoss]));
let tokens = 0;
const curve = swarm.rounds.map((round, index) => {
  tokens += round.tokens;
  return { tokens, swarm: round.heldOutLoss, train: baseline.get(index + 1) ?? null };
});
const ratio = swarm.finalHeldOutLoss! / train.finalHeldOutLoss;
const result = {
  seed: values.seed,
  rounds,
  innerSteps,
  curve,
  finalRatio: ratio,
  hashesAgree: swarm.stateHashesAgree,
};

if (values.json) console.log(JSON.stringify(result, null, 2));
else {
  const rows = curve.map((point) => [
    String(point.tokens),
    point.swarm?.toFixed(4) ?? '-',
    point.train?.toFixed(4) ?? '-',
  ]);
  console.log(table(['tokens', 'swarm', 'train'], rows));
  console.log(`held-out loss of the swarm / of train at ${tokens} tokens: ${ratio.toFixed(4)}`);
}
