/**
 * Verification of proofs in a second of one core's time (a busy machine does not falsify it): bytes to verdict with all five checks (signature, age, replay, rate, plausibility),
 * and what becomes of the reward, on a ledger with that many provers. Says which share the signature has.
 * Run: `node bench/proofs.ts [--provers 1000] [--steps 500] [--repeats 3] [--json]`.
 */
import { createHash } from 'node:crypto';
import { parseArgs } from 'node:util';
import { keyPairFrom } from '../src/identity/keys.ts';
import { applyOne } from '../src/ledger/apply.ts';
import { genesisState } from '../src/ledger/genesis.ts';
import { numberKey } from '../src/ledger/money.ts';
import { defaultLedgerPolicy } from '../src/ledger/policy.ts';
import type { ProofBody } from '../src/ledger/proof.ts';
import type { BlockContext, LedgerConstants } from '../src/ledger/rules.ts';
import { commit } from '../src/ledger/state.ts';
import {
  decodeTransaction,
  encodeTransaction,
  signTransaction,
  type Transaction,
} from '../src/ledger/transaction.ts';
import { proof } from '../src/ledger/transactions/proof.ts';
import { newProver } from '../src/ledger/vesting.ts';
import { utf8 } from '../src/std/bytes.ts';
import { installSha256, sha256 } from '../src/std/hash.ts';

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

const hashOf = (name: string) => sha256(utf8(name));
const proposer = keyPairFrom(hashOf('proposer'));
const constants: LedgerConstants = {
  networkId: hashOf('network'),
  policy: defaultLedgerPolicy,
  innerSteps,
  microbatches: 1,
  tokensPerBatch: 1024,
  layers: 4,
  stageLayers: [4],
};
const timeMs = 1_800_000_000_000;
const context: BlockContext = { constants, number: 1, timeMs, proposer: proposer.nodeId };
const state = genesisState([{ publicKey: proposer.publicKey, weight: 1, stage: 0 }], constants);
const round = { list: hashOf('list'), contributions: [], stated: [], agreed: [[0, hashOf('base')] as const] };
commit(state, [{ table: 'round', key: numberKey(0), row: round }]);
const messages = Array.from({ length: provers }, (_, i) => {
  const key = keyPairFrom(hashOf(`prover ${i}`));
  // Every prover has proved before, as in a network that runs.
  const recentMs = Array.from({ length: 60 }, (_, back) => timeMs - 60_000 * (60 - back));
  const row = { ...newProver(key.publicKey), proofs: 60, recentMs };
  commit(state, [{ table: 'prover', key: key.nodeId, row }]);
  return encodeTransaction(signTransaction(constants.networkId, proof, { body: claim(), nonce: 1 }, key));
});

function claim(): ProofBody {
  const intervals = Math.ceil(innerSteps / constants.policy.intervalSteps);
  return {
    type: 'training',
    timestampMs: timeMs,
    tokens: innerSteps * constants.tokensPerBatch,
    batches: innerSteps,
    layers: 4,
    hasEmbedding: true,
    hasHead: true,
    nonce: 1,
    round: 1,
    stage: 0,
    firstStep: 0,
    endStep: innerSteps,
    base: hashOf('base'),
    before: hashOf('before'),
    states: Array.from({ length: intervals }, (_, i) => hashOf(`state ${i}`)),
    firstBatch: innerSteps,
    endBatch: 2 * innerSteps,
    lossMicronats: 5_000_000,
    contribution: hashOf('blob'),
    work: null,
  };
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

const verified = perSecond((message) => applyOne(state, decoded(message), context).ok);
const unsigned = perSecond((message) => applyOne(state, decoded(message), context, () => true).ok);
const report = {
  provers,
  intervals: Math.ceil(innerSteps / constants.policy.intervalSteps),
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
