/**
 * The ledger: transactions applied a second, with and without their signatures, and what its state costs, in
 * processor time of one core; and, by the clock, what a node takes that catches up and verifies in threads.
 * Run: node bench/ledger.ts [transactions] [accounts] [threads]
 */
import { availableParallelism } from 'node:os';
import { type KeyPair, keyPairFrom } from '../src/identity/keys.ts';
import { apply } from '../src/ledger/apply.ts';
import { ownBeacon } from '../src/ledger/beacon.ts';
import { decodeBlock, encodeBlock, type LedgerBlock } from '../src/ledger/block.ts';
import type { Change } from '../src/ledger/draft.ts';
import { genesisState } from '../src/ledger/genesis.ts';
import { chainOf } from '../src/ledger/money.ts';
import { defaultLedgerPolicy } from '../src/ledger/policy.ts';
import { encodeRow } from '../src/ledger/row-codec.ts';
import type { LedgerConstants } from '../src/ledger/rules.ts';
import { createSignatureMemory } from '../src/ledger/signature-memory.ts';
import { commit, createState, type LedgerState } from '../src/ledger/state.ts';
import { verifyRowProof } from '../src/ledger/state-tree.ts';
import {
  signTransaction,
  type Transaction,
  transactionId,
  type VerifySignature,
  verifyTransaction,
} from '../src/ledger/transaction.ts';
import { transfer } from '../src/ledger/transactions/transfer.ts';
import { installNodeSha256 } from '../src/platform/nodejs/sha256.ts';
import { createSignatureThreads } from '../src/platform/nodejs/signature-threads.ts';
import { utf8 } from '../src/std/bytes.ts';
import { sha256 } from '../src/std/hash.ts';

installNodeSha256();
const transactions = Number(process.argv[2] ?? 10_240);
const accounts = Number(process.argv[3] ?? 10_000);
const threads = Number(process.argv[4] ?? availableParallelism());
const perBlock = 256;
/** Blocks whose signatures are on their way while an earlier one is applied; a run of blocks may hold more. */
const aheadBlocks = 4;
const startMs = 1_800_000_000_000;

const constants: LedgerConstants = {
  networkId: sha256(utf8('bench')),
  policy: defaultLedgerPolicy,
  innerSteps: 20,
  microbatches: 1,
  tokensPerBatch: 1024,
  layers: 4,
  stageLayers: [4],
};
const founder = keyPairFrom(sha256(utf8('founder')));
const senders = Array.from({ length: 256 }, (_, i) => keyPairFrom(sha256(utf8(`sender ${i}`))));
const idOf = (i: number): string => Buffer.from(sha256(utf8(`account ${i}`))).toString('hex');

function report(name: string, text: string): void {
  console.log(`${name.padEnd(44)} ${text.padStart(24)}`);
}

/** Processor time, so that what else the machine does counts little. */
function timed<Result>(body: () => Result): { readonly result: Result; readonly ms: number } {
  const start = process.cpuUsage();
  const result = body();
  const { user, system } = process.cpuUsage(start);
  return { result, ms: (user + system) / 1000 };
}

/** Everybody has money; the senders enough for all they send. */
function filledState(): LedgerState {
  const state = genesisState([{ publicKey: founder.publicKey, weight: 1, stage: 0 }], constants);
  const row = { balance: 1_000_000n, stake: 0n, unbonding: [], nonce: 0 };
  const ids = [
    ...senders.map(({ nodeId }) => nodeId),
    ...Array.from({ length: accounts }, (_, i) => idOf(i)),
  ];
  const rows = ids.map((key): Change => ({ table: 'account', key, row }));
  const minted = BigInt(ids.length) * row.balance;
  commit(state, [...rows, { table: 'chain', key: '', row: { ...chainOf(state), minted } }]);
  state.root();
  return state;
}

function signedTransfers(): Transaction[] {
  return Array.from({ length: transactions }, (_, i) => {
    const by = senders[i % senders.length] as KeyPair;
    const body = { to: idOf((i * 7919) % accounts), amount: 1n };
    return signTransaction(constants.networkId, transfer, { body, nonce: i + 1 }, by);
  });
}

/** The blocks are made outside the measured time. */
function madePayloads(all: readonly Transaction[]): Uint8Array[] {
  const beacon = ownBeacon(founder.secretKey, constants.networkId);
  const state = filledState();
  const payloads: Uint8Array[] = [];
  for (let first = 0; first < all.length; first += perBlock) {
    const chain = chainOf(state);
    const payload = encodeBlock({
      number: chain.number + 1,
      parentHash: chain.hash,
      parentStateRoot: state.root(),
      timeMs: startMs + first + 1,
      proposer: founder.nodeId,
      ...beacon.next(state.get('member', founder.nodeId)!, chain.number + 1)!,
      transactions: all.slice(first, first + perBlock),
    });
    payloads.push(payload);
    applyTo(state, decoded(payload), () => true);
  }
  return payloads;
}

function decoded(payload: Uint8Array): LedgerBlock {
  const block = decodeBlock(payload);
  if (!block.ok) throw new Error(block.code);
  return block.value;
}

function applyTo(state: LedgerState, block: LedgerBlock, verify: VerifySignature): void {
  const applied = apply(state, block, constants, verify);
  if (!applied.ok) throw new Error(`${applied.code} ${applied.detail}`);
  commit(state, applied.value.changes);
  // The next block names this root.
  state.root();
}

/** Decodes, applies and commits all blocks. */
function runBlocks(payloads: readonly Uint8Array[], verify: VerifySignature): number {
  const state = filledState();
  return timed(() => {
    for (const payload of payloads) applyTo(state, decoded(payload), verify);
  }).ms;
}

/** As a node that catches up does; milliseconds by the clock, and of all threads' processor time. */
async function catchUp(payloads: readonly Uint8Array[]): Promise<{ wallMs: number; cpuMs: number }> {
  const { verifyMany, close } = createSignatureThreads({ count: threads });
  const { networkId } = constants;
  await verifyMany([{ digest: networkId, signature: networkId, publicKey: networkId }]);
  const { verify, ahead } = createSignatureMemory({ networkId, rememberedMax: 16_384, verifyMany });
  const state = filledState();
  const [cpu, wall] = [process.cpuUsage(), performance.now()];
  const waiting: { block: LedgerBlock; verified: Promise<void> | undefined }[] = [];
  for (const payload of [...payloads, ...Array.from({ length: aheadBlocks }, () => undefined)]) {
    const block = payload && decoded(payload);
    if (block) waiting.push({ block, verified: ahead(block.transactions) });
    if (block && waiting.length <= aheadBlocks) continue;
    const next = waiting.shift();
    await next?.verified;
    if (next) applyTo(state, next.block, verify);
  }
  const { user, system } = process.cpuUsage(cpu);
  const wallMs = performance.now() - wall;
  await close();
  return { wallMs, cpuMs: (user + system) / 1000 };
}

const all = signedTransfers();
report('transactions, accounts', `${all.length}, ${accounts}`);
const perSecond = (ms: number) => `${Math.round((1000 * all.length) / ms)}/s`;

const payloads = madePayloads(all);
const { verify: known } = createSignatureMemory({
  networkId: constants.networkId,
  rememberedMax: all.length,
});
const verified = timed(() => {
  for (const one of all) known(one, transactionId(constants.networkId, one));
});
report('signatures alone', perSecond(verified.ms));
runBlocks(payloads.slice(0, 10), known);
report('apply, signatures verified before (mempool)', perSecond(runBlocks(payloads, known)));
report('apply, every signature verified in it', perSecond(runBlocks(payloads, verifyTransaction)));
const { wallMs, cpuMs } = await catchUp(payloads);
report(`apply, verified in ${threads} threads, by the clock`, perSecond(wallMs));
report('  processor time of all threads', `${((1000 * cpuMs) / all.length).toFixed(0)} µs each`);

const state = filledState();
const rows = [...state.keys('account')].map(
  (key): Change => ({ table: 'account', key, row: state.get('account', key) }),
);
const rebuilt = timed(() => createState(rows).root());
report('state from its rows, with root', `${rebuilt.ms.toFixed(0)} ms of ${rows.length} rows`);
const proved = timed(() => rows.slice(0, 1_000).map(({ key }) => state.prove('account', key)));
const siblings = proved.result.reduce((sum, proof) => sum + proof.siblings.length, 0) / proved.result.length;
const root = state.root();
const checked = timed(() =>
  proved.result.every((proof, i) =>
    verifyRowProof(root, 'account', rows[i]!.key, encodeRow(rows[i]!.row!), proof),
  ),
);
if (!checked.result) throw new Error('a proof does not verify');
report('proof of one account', `${siblings.toFixed(1)} hashes, ${checked.ms.toFixed(1)} µs to check`);
