/**
 * Random blocks of valid and invalid transactions: money is never made, lost or negative, a refused block changes nothing,
 * and the state depends on the blocks alone.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type LedgerWorld, ledgerWorld, namedKey } from '../../test/ledger-world.ts';
import { toHex } from '../std/bytes.ts';
import { announce, announcementFields } from './announcement.ts';
import { decodeBlock, encodeBlock } from './block.ts';
import type { Change, LedgerView } from './draft.ts';
import { rulesByKind } from './kinds.ts';
import { chainOf } from './money.ts';
import { signReceipt } from './receipt.ts';
import { decodeRow, encodeRow } from './row-codec.ts';
import { createState } from './state.ts';
import { tableNames } from './tables.ts';
import { type Transaction, unsignedTransaction } from './transaction.ts';
import { claim } from './transactions/claim.ts';
import { equivocation } from './transactions/equivocation.ts';
import { escrow } from './transactions/escrow.ts';
import { leave } from './transactions/leave.ts';
import { refund } from './transactions/refund.ts';
import { register } from './transactions/register.ts';
import { round } from './transactions/round.ts';
import { stake } from './transactions/stake.ts';
import { stateStatement } from './transactions/state.ts';
import { transfer } from './transactions/transfer.ts';
import { unstake } from './transactions/unstake.ts';

const users = ['alice', 'bob', 'carol'].map(namedKey);
const policy = {
  epochBlocks: 4,
  memberStakeMin: 50,
  membersMax: 4,
  founderFadeStake: 400,
  unbondingMs: 20_000,
  escrowMsMax: 30_000,
};

/** Numbers from which a transaction is made: what they mean depends on the kind and on the state. */
interface Step {
  readonly kind: number;
  readonly author: number;
  readonly other: number;
  readonly amount: number;
  readonly broken: boolean;
}

const step: fc.Arbitrary<Step> = fc.record({
  kind: fc.nat(15),
  author: fc.nat(4),
  other: fc.nat(4),
  amount: fc.oneof(
    { weight: 12, arbitrary: fc.integer({ min: 1, max: 70 }) },
    { weight: 1, arbitrary: fc.constantFrom(0, 200, 2 ** 53 - 1) },
  ),
  broken: fc.nat(30).map((value) => value === 0),
});
const blocks = fc.array(
  fc.record({
    steps: fc.array(step, { minLength: 1, maxLength: 2, size: 'small' }),
    afterMs: fc.constantFrom(1, 1_000, 5_000, 25_000),
  }),
  { minLength: 10, maxLength: 24 },
);

function newWorld(): LedgerWorld {
  const world = ledgerWorld({ founders: 2, policy });
  for (const { nodeId } of [...world.founders, ...users]) world.endow(nodeId, 200n);
  return world;
}

function transactionOf(world: LedgerWorld, { kind, author, other, amount, broken }: Step): Transaction {
  const actors = [...world.founders, ...users];
  const [by, to] = [actors[author]!, actors[other]!];
  const { state, constants } = world;
  const { networkId } = constants;
  const escrows = state.keys('escrow');
  const chosen = escrows[other % Math.max(1, escrows.length)] ?? toHex(new Uint8Array(32));
  const stateHash = new Uint8Array(32).fill(other & 1);
  const owed = BigInt(amount);
  const make: readonly (() => Transaction)[] = [
    () => world.sign(stake, { amount: owed }, by),
    () => world.sign(unstake, { amount: owed }, by),
    () => world.sign(register, { stage: amount & 1 }, by),
    () => world.sign(leave, {}, by),
    () => {
      const expiresMs = world.context().timeMs + (amount & 1 ? 5_000 : 40_000);
      return world.sign(escrow, { payee: to.nodeId, amount: owed, expiresMs }, by);
    },
    () => {
      const payer = actors.find(({ nodeId }) => nodeId === state.get('escrow', chosen)?.payer) ?? by;
      const payee = actors.find(({ nodeId }) => nodeId === state.get('escrow', chosen)?.payee) ?? by;
      const receipt = signReceipt(networkId, { escrow: chosen, amount: owed }, payer);
      const workers = amount & 2 ? [] : [to.nodeId, by.nodeId];
      return world.sign(claim, { ...receipt, driver: by.nodeId, workers, validator: to.nodeId }, payee);
    },
    () => world.sign(refund, { escrow: chosen }, by),
    () => {
      const number = world.state.keys('round').length + (amount & 1);
      const hash = toHex(stateHash);
      const body = { round: number, stage: 0, base: hash, blobHash: hash, blobBytes: 1, batches: 1 };
      return unsignedTransaction(round, {
        round: number,
        entries: [announcementFields(announce(networkId, body, by))],
      });
    },
    () => world.sign(stateStatement, { round: amount % 3, stage: 0, stateHash }, by),
    () => world.sign(equivocation, { accused: to.nodeId, evidence: new Uint8Array([amount & 255]) }, by),
  ];
  const made = (make[kind] ?? (() => world.sign(transfer, { to: to.nodeId, amount: owed }, by)))();
  return broken && made.signature ? { ...made, signature: made.signature.toReversed() } : made;
}

/** Every row, for comparison with another state of the same history. */
function rowsOf(view: LedgerView): Change[] {
  return tableNames.flatMap((table) =>
    view.keys(table).map((key): Change => ({ table, key, row: view.get(table, key) })),
  );
}

test('money is conserved, refusals change nothing, and equal blocks make equal states', () => {
  let accepted = 0;
  let refused = 0;
  fc.assert(
    fc.property(blocks, fc.func(fc.integer()), (plan, order) => {
      const [world, follower] = [newWorld(), newWorld()];
      for (const { steps, afterMs } of plan) {
        const before = world.state.root();
        const block = world.block(
          steps.map((one) => transactionOf(world, one)),
          afterMs,
        );
        if (!world.take(block).ok) {
          refused += 1;
          assert.deepEqual(world.state.root(), before);
          continue;
        }
        accepted += 1;
        world.checkSupply();
        const decoded = decodeBlock(encodeBlock(block));
        assert.ok(decoded.ok && follower.take(decoded.value).ok);
        assert.deepEqual(follower.state.root(), world.state.root());
        assert.ok(chainOf(world.state).voters.length > 0);
      }
      const { minted } = chainOf(world.state);
      assert.equal(minted, 1_000n, 'only what the test endowed');
      // Neither the order of rows nor a journey through bytes matters.
      const rows = rowsOf(world.state)
        .map((change, i) => ({ change, place: order(i) }))
        .sort((a, b) => a.place - b.place)
        .map(({ change: { table, key, row } }): Change => {
          const decoded = decodeRow(table, encodeRow(row!));
          return { table, key, row: decoded.ok ? decoded.value : undefined };
        });
      const rebuilt = createState(rows);
      assert.deepEqual(rebuilt.root(), world.state.root());
      assert.deepEqual(rowsOf(rebuilt), rowsOf(world.state));
    }),
    { numRuns: 30 },
  );
  assert.ok(accepted > 120 && refused > 60, `${accepted} accepted, ${refused} refused: the test is blind`);
});

test('no body of any kind, however wrong, gets past or throws', () => {
  const world = newWorld();
  const bodies = fc.oneof(
    fc.array(fc.oneof(fc.integer(), fc.string(), fc.uint8Array({ maxLength: 40 }), fc.constant(null)), {
      maxLength: 8,
    }),
    fc.integer(),
    fc.dictionary(fc.string({ maxLength: 4 }), fc.integer(), { maxKeys: 3 }),
    fc.constant(null),
  );
  const root = world.state.root();
  fc.assert(
    fc.property(fc.constantFrom(...rulesByKind.keys()), bodies, (kind, body) => {
      const rule = rulesByKind.get(kind)!;
      const parsed = rule.parse(body);
      if (!parsed.ok) {
        assert.match(parsed.code, /^(malformed-|too-)/);
        return;
      }
      const transaction: Transaction = {
        kind,
        body,
        nonce: 1,
        publicKey: users[0]!.publicKey,
        signature: null,
      };
      assert.equal(world.take(world.block([transaction])).ok, false);
      assert.deepEqual(world.state.root(), root);
    }),
    { numRuns: 500 },
  );
});
