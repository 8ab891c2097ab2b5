/**
 * `npm run sim -- --scenario NAME --seeds N [--seed S] [--json]`: runs N seeds from S on (default 1, 1) and exits
 * non-zero when a property broke, or when a canary found nothing.
 */
import { createHash } from 'node:crypto';
import { parseArgs } from 'node:util';
import { installSha256 } from '../src/std/hash.ts';
import { runSeed, type SeedReport, scenarios } from './runner.ts';

installSha256((bytes) => new Uint8Array(createHash('sha256').update(bytes).digest()));

const usage = `Usage: npm run sim -- --scenario NAME [--seeds N] [--seed FIRST] [--json]

Scenarios:
${scenarios.map(({ name, description }) => `  ${name.padEnd(18)} ${description}`).join('\n')}`;

function integer(text: string, least: number, name: string): number {
  const value = Number(text);
  if (Number.isSafeInteger(value) && value >= least) return value;
  return refuse(`--${name} must be an integer from ${least} on, not "${text}"`);
}

function refuse(message: string): never {
  process.stderr.write(`${message}\n\n${usage}\n`);
  process.exit(2);
}

function readOptions() {
  try {
    return parseArgs({
      options: {
        scenario: { type: 'string' },
        seeds: { type: 'string', default: '1' },
        seed: { type: 'string', default: '1' },
        json: { type: 'boolean', default: false },
        help: { type: 'boolean', default: false },
      },
    }).values;
  } catch (error) {
    return refuse(error instanceof Error ? error.message : String(error));
  }
}

const options = readOptions();
if (options.help) {
  process.stdout.write(`${usage}\n`);
  process.exit(0);
}
const scenario = scenarios.find(({ name }) => name === options.scenario);
if (!scenario) refuse(options.scenario ? `unknown scenario "${options.scenario}"` : 'name a scenario');
const first = integer(options.seed, 0, 'seed');
const count = integer(options.seeds, 1, 'seeds');

const reports: SeedReport[] = [];
for (let seed = first; seed < first + count; seed++) {
  const report = await runSeed(scenario, seed);
  reports.push(report);
  if (options.json) continue;
  process.stdout.write(`seed ${seed}: ${report.ok ? report.result.summary : `VIOLATION ${report.detail}`}\n`);
  if (!report.ok) process.stdout.write(`  replay: ${report.replay}\n`);
}
const violations = reports.filter((report) => !report.ok);
const good = scenario.canary
  ? violations.some(({ property }) => property === 'agreement')
  : violations.length === 0;
if (scenario.means && !options.json) {
  const sums = new Map<string, { sum: number; count: number }>();
  for (const report of reports) {
    for (const [name, value] of report.ok ? Object.entries(report.result.numbers) : []) {
      const { sum, count: known } = sums.get(name) ?? { sum: 0, count: 0 };
      sums.set(name, { sum: sum + value, count: known + 1 });
    }
  }
  for (const [name, { sum, count: known }] of sums)
    process.stdout.write(`${(sum / known).toFixed(3).padStart(8)}  ${name}\n`);
}
if (options.json) process.stdout.write(`${JSON.stringify({ scenario: scenario.name, reports, good })}\n`);
else if (scenario.canary)
  process.stdout.write(`canary: ${violations.length} of ${count} seeds show a violation\n`);
else process.stdout.write(`${count - violations.length} of ${count} seeds hold\n`);
process.exitCode = good ? 0 : 1;
