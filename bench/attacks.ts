/**
 * Attacks by one hostile node of five, each in turn, under the default aggregator, against five honest nodes and
 * against the unscreened mean. Run: `node bench/attacks.ts [--rounds 12] [--seed 1] [--attacks a,b] [--json]`.
 */
import { parseArgs } from 'node:util';
import { attackNames } from '../src/cli/shared-options.ts';
import type { SwarmReport } from '../src/cli/swarm-report.ts';
import { runNeuroshard, table } from './support/run-neuroshard.ts';

const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '12' },
    seed: { type: 'string', default: '1' },
    compression: { type: 'string', default: 'int8' },
    attacks: { type: 'string', default: attackNames.join(',') },
    json: { type: 'boolean', default: false },
  },
});

interface Row {
  readonly attack: string;
  readonly aggregator: string;
  readonly finalHeldOutLoss: number;
  /** Of the same rounds with five honest nodes. */
  readonly ratioToHonest: number;
  readonly rejectedRounds: number;
  readonly hashesAgree: boolean;
}

const shared = ['swarm', '--nodes', '5', '--rounds', values.rounds, '--seed', values.seed];
const run = (args: readonly string[]) =>
  runNeuroshard<SwarmReport>([...shared, '--compression', values.compression, ...args]);

const rows: Row[] = [];
const honest = await run([]);
const record = (attack: string, aggregator: string, report: SwarmReport) => {
  rows.push({
    attack,
    aggregator,
    finalHeldOutLoss: report.finalHeldOutLoss!,
    ratioToHonest: report.finalHeldOutLoss! / honest.finalHeldOutLoss!,
    rejectedRounds: report.rounds.filter((round) => round.rejected.length > 0).length,
    hashesAgree: report.stateHashesAgree,
  });
  console.error(JSON.stringify(rows.at(-1)));
};
record('none', 'default', honest);
for (const attack of values.attacks.split(',')) {
  record(attack, 'default', await run(['--attackers', '1', '--attack', attack]));
}
record('sign-flip', 'mean', await run(['--attackers', '1', '--attack', 'sign-flip', '--aggregator', 'mean']));

if (values.json) console.log(JSON.stringify({ settings: values, rows }, null, 2));
else {
  const cells = rows.map((row) => [
    row.attack,
    row.aggregator,
    row.finalHeldOutLoss.toFixed(4),
    row.ratioToHonest.toFixed(4),
    String(row.rejectedRounds),
    row.hashesAgree ? 'yes' : 'NO',
  ]);
  console.log(
    table(['attack', 'aggregator', 'held-out', '/ honest', 'rounds rejected', 'states agree'], cells),
  );
}
