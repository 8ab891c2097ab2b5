/**
 * Finality of a transaction: from handing it to a validator until that one, and until all of them, have its block decided,
 * applied and kept; 4 validators in processes of their own on loopback, 4 and 16 at 100 ms round trip in virtual time.
 * Also with so many transactions that one mostly finds a block on its way.
 * Run: `node bench/finality.ts [--transactions 100] [--rtt 100] [--only real|virtual] [--json]`.
 */
import { parseArgs } from 'node:util';
import { installNodeSha256 } from '../src/platform/nodejs/sha256.ts';
import { type Finality, realFinality, virtualFinality } from './support/finality.ts';

const { values } = parseArgs({
  options: {
    transactions: { type: 'string', default: '100' },
    rtt: { type: 'string', default: '100' },
    only: { type: 'string' },
    json: { type: 'boolean', default: false },
  },
});
installNodeSha256();
const transactions = Number(values.transactions);
const rttMs = Number(values.rtt);
/** Seldom, as wallets do it; and often. */
const gapsMs = [1_000, 150];
/** Of 3 round trips. */
const computeMs = 50;

interface Row extends Finality {
  readonly where: 'loopback' | 'virtual time';
  readonly rttMs: number;
  readonly meanGapMs: number;
  readonly goalMs: number;
  readonly cpuMsEach?: number;
}

const rows: Row[] = [];
for (const meanGapMs of gapsMs) {
  if (values.only === 'real') break;
  for (const validators of [4, 16]) {
    const finality = await virtualFinality({ validators, transactions, rttMs, meanGapMs });
    rows.push({ where: 'virtual time', rttMs, meanGapMs, goalMs: 3 * rttMs + computeMs, ...finality });
  }
}
for (const meanGapMs of gapsMs) {
  if (values.only === 'virtual') break;
  const finality = await realFinality({ validators: 4, transactions, meanGapMs });
  rows.push({ where: 'loopback', rttMs: 0, meanGapMs, goalMs: computeMs, ...finality });
}

if (values.json) console.log(JSON.stringify({ transactions, rows }, null, 2));
else
  for (const { where, validators, rttMs: rtt, meanGapMs, goalMs, own, all, cpuMsEach } of rows) {
    const text = ({ p50Ms, p95Ms, maxMs }: Finality['own']) =>
      `p50 ${p50Ms.toFixed(0)}, p95 ${p95Ms.toFixed(0)}, at most ${maxMs.toFixed(0)} ms`;
    const cpu = cpuMsEach === undefined ? '' : `; ${cpuMsEach.toFixed(0)} ms of processor time each`;
    console.log(
      `${validators} validators, ${where}, round trip ${rtt} ms, one in ${meanGapMs} ms: ${text(own)} where it was sent ` +
        `(goal p50 ${goalMs}); everywhere ${text(all)}${cpu}`,
    );
  }
process.exit();
