/**
 * Verification of proofs in a second of one core's time (a busy machine does not falsify it): bytes to verdict with all five checks (signature, age, replay, rate, plausibility),
 * and what becomes of the reward, on a ledger with that many provers. Says which share the signature has.
 * Run: `node bench/proofs.ts [--provers 1000] [--steps 500] [--repeats 3] [--json]`.
 */
import { createHash } from 'node:crypto';
import { parseArgs } from 'node:util';
import { applyOne } from '../src/ledger/apply.ts';
import { commit } from '../src/ledger/state.ts';
import { decodeTransaction, encodeTransaction, type Transaction } from '../src/ledger/transaction.ts';
import { installSha256 } from '../src/std/hash.ts';
import { ledgerWorld, namedKey } from '../test/ledger-world.ts';
import { proverIn } from '../test/proof-world.ts';

installSha256((bytes) => new Uint8Array(createHash('sha256').update(bytes).digest()));

const { values } = parseArgs({
  options: {
    provers: { type: 'string', default: '1000' },
    steps: { type: 'string', default: '500' },
    repeats: { type: 'string', default: '3' },
    json: { type: 'boolean', default: false },
  },
});
const provers = Number(values.provers);
const innerSteps = Number(values.steps);

const base = ledgerWorld();
const world = { ...base, constants: { ...base.constants, innerSteps } };
const context = { ...world.context(), constants: world.constants };
const messages = Array.from({ length: provers }, (_, i) => {
  const prover = proverIn(world, namedKey(`prover ${i}`));
  const transaction = prover.transaction(prover.claim());
  // Every prover has proved before, as in a network that runs.
  const recentMs = Array.from({ length: 60 }, (_, back) => context.timeMs - 60_000 * (60 - back));
  const row = { ...emptyRow(prover.key.publicKey), proofs: 60, recentMs };
  commit(world.state, [{ table: 'prover', key: prover.key.nodeId, row }]);
  return encodeTransaction(transaction);
});

function emptyRow(publicKey: Uint8Array) {
  const row = { publicKey, nonce: 0, after: null, round: 0, step: 0, vesting: [], bond: 0n };
  return { ...row, openDuties: 0, challenged: 0, convicted: false };
}

function decoded(message: Uint8Array): Transaction {
  const transaction = decodeTransaction(message);
  if (!transaction.ok) throw new Error(transaction.code);
  return transaction.value;
}

function perSecond(body: (message: Uint8Array) => boolean): number {
  let best = 0;
  for (let run = 0; run < Number(values.repeats); run++) {
    const start = process.cpuUsage();
    for (const message of messages) if (!body(message)) throw new Error('a valid proof was rejected');
    const { user, system } = process.cpuUsage(start);
    best = Math.max(best, (1e6 * messages.length) / (user + system));
  }
  return best;
}

const verified = perSecond((message) => applyOne(world.state, decoded(message), context).ok);
const unsigned = perSecond((message) => applyOne(world.state, decoded(message), context, () => true).ok);
const report = {
  provers,
  intervals: Math.ceil(innerSteps / world.constants.policy.intervalSteps),
  bytes: messages[0]!.length,
  verifiedPerSecond: Math.round(verified),
  withoutSignaturePerSecond: Math.round(unsigned),
  signatureShare: Number((1 - verified / unsigned).toFixed(3)),
};
if (values.json) console.log(JSON.stringify(report));
else {
  console.log(`${report.bytes} bytes and ${report.intervals} intervals a proof, ${provers} provers`);
  console.log(`all five checks: ${report.verifiedPerSecond} a second`);
  console.log(`  signature: ${(100 * report.signatureShare).toFixed(0)}% of the time`);
  console.log(`  the rest alone: ${report.withoutSignaturePerSecond} a second`);
}
