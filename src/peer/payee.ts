/**
 * A node's part as one who is paid: how much each peer may have before it pays, receipts taken in and kept, claims made of
 * them when it is worth it. Prices come from the manifest; what is served, the pipeline says. Codes: docs/payment.md.
 */
import { nodeIdOf } from '../identity/keys.ts';
import { pricedPositions } from '../ledger/price.ts';
import { type PaymentReceipt, verifyReceipt } from '../ledger/receipt.ts';
import type { Amount, EscrowRow } from '../ledger/tables.ts';
import { claim } from '../ledger/transactions/claim.ts';
import { receiptProtocol } from '../net/protocol.ts';
import type { NodeId, Transport } from '../net/transport.ts';
import { paymentRequired, type ServiceMeter } from '../pipeline/payment.ts';
import type { Clock } from '../std/clock.ts';
import { accept, type Outcome, reject } from '../std/outcome.ts';
import type { Store } from '../std/store.ts';
import type { LedgerNode } from './ledger-node.ts';
import type { OwnEscrows } from './own-escrows.ts';
import { decodeKept, decodeReceipt, encodeKept, type KeptReceipt } from './receipt-wire.ts';

export interface PayeeOptions {
  readonly nodeId: NodeId;
  readonly networkId: Uint8Array;
  /** Nano-NEURO for a position at this node's stage; not 0. */
  readonly price: Amount;
  /** Positions served unpaid to each peer, and again each hour. */
  readonly unpaidMax: number;
  readonly ledger: Pick<LedgerNode, 'send' | 'mempool'>;
  readonly escrows: OwnEscrows;
  readonly store: Store;
  readonly transport: Transport;
  readonly clock: Clock;
}

export interface Payee {
  readonly meter: ServiceMeter;
  stats(): PayeeStats;
  /** Of the newest receipt for that escrow. */
  receipt(escrow: string): Amount | undefined;
  close(): Promise<void>;
}

export interface PayeeStats {
  /** Positions served to peers. */
  readonly positions: number;
  /** Positions refused until somebody pays. */
  readonly refused: number;
  /** Micro-NEURO that receipts say beyond what was claimed. */
  readonly unclaimed: Amount;
}

const hourMs = 3_600_000;
/** Peers whose debts are remembered; those who owe nothing make room. */
const debtorsMax = 4_096;
/** Receipts kept; a peer has one or two escrows at a time. */
const receiptsMax = 4_096;
const storePrefix = 'receipt-';
const keepMs = 1_000;
const claimEveryMs = 5_000;
/** Who has not paid for so long has done with asking. */
const restMs = 10_000;
/** Receipts of an escrow that ends sooner are worth nothing: no block may take the claim in time. */
const acceptMsMin = 60_000;
const claimMsMin = 300_000;
/** Less is claimed only when the escrow ends. */
const claimPositionsMin = 100n;

interface Debt {
  /** Nano-NEURO served and not paid; below 0: paid ahead. */
  level: Amount;
  atMs: number;
}

interface Held {
  readonly receipt: KeptReceipt;
  readonly grownMs: number;
  /** The claim that waits for a block. */
  sent?: Uint8Array;
}

interface PayeeState {
  readonly options: PayeeOptions;
  readonly debts: Map<NodeId, Debt>;
  readonly held: Map<string, Held>;
  readonly unkept: Set<string>;
  readonly counts: { positions: number; refused: number };
}

/** Reads the receipts that an earlier process kept. */
export async function createPayee(options: PayeeOptions): Promise<Payee> {
  const { clock, transport } = options;
  const state: PayeeState = {
    options,
    debts: new Map(),
    held: await readKept(options),
    unkept: new Set(),
    counts: { positions: 0, refused: 0 },
  };
  let keeping: Promise<unknown> = Promise.resolve();
  let cancelKeep: (() => void) | undefined;
  let isClosed = false;
  const keep = () => {
    cancelKeep?.();
    cancelKeep = undefined;
    keeping = keeping.then(() => keepReceipts(state));
    return keeping;
  };
  const stopHandling = transport.handle(receiptProtocol, async (from, bytes) => {
    const taken = takeReceipt(state, from, bytes);
    if (!taken.ok) {
      if (blamed.has(taken.code)) transport.penalize(from, taken.code);
      return taken;
    }
    if (!isClosed) cancelKeep ??= clock.setTimer(keepMs, () => void keep());
    return accept(new Uint8Array(0));
  });
  let cancelClaims = clock.setTimer(claimEveryMs, function claims() {
    claimWorthy(state);
    void forget(state);
    cancelClaims = clock.setTimer(claimEveryMs, claims);
  });
  return {
    meter: meterOf(state),
    stats: () => ({ ...state.counts, unclaimed: unclaimedOf(state) }),
    receipt: (escrow) => state.held.get(escrow)?.receipt.amount,
    close: async () => {
      isClosed = true;
      stopHandling();
      cancelClaims();
      await keep();
    },
  };
}

/** A bucket for each peer: what it has unpaid drains within an hour, so that lost answers and small use are forgiven. */
function meterOf({ options, debts, counts }: PayeeState): ServiceMeter {
  const { price, unpaidMax } = options;
  const limit = price * BigInt(unpaidMax);
  return {
    take: (owner, positions) => {
      const debt = debtOf(options, debts, owner);
      const level = debt ? debt.level + price * BigInt(positions) : limit + 1n;
      if (!debt || level > limit) {
        counts.refused += positions;
        return reject(paymentRequired, `${debt ? debt.level / pricedPositions : 0n} micro-NEURO are unpaid`);
      }
      debt.level = level;
      counts.positions += positions;
      return accept(undefined);
    },
    giveBack: (owner, positions) => {
      const debt = debts.get(owner);
      if (debt) debt.level -= price * BigInt(positions);
      counts.positions -= positions;
    },
  };
}

/** Undefined where so many others owe that nobody new is served. */
function debtOf(
  { clock, price, unpaidMax }: PayeeOptions,
  debts: Map<NodeId, Debt>,
  owner: NodeId,
): Debt | undefined {
  const nowMs = clock.nowMs();
  const limit = price * BigInt(unpaidMax);
  const drain = (debt: Debt) => {
    const drained = (limit * BigInt(Math.max(0, Math.floor(nowMs - debt.atMs)))) / BigInt(hourMs);
    if (debt.level > 0n) debt.level = debt.level > drained ? debt.level - drained : 0n;
    debt.atMs = nowMs;
    return debt;
  };
  const known = debts.get(owner);
  if (known) return drain(known);
  if (debts.size >= debtorsMax)
    for (const [other, debt] of debts) if (drain(debt).level === 0n) debts.delete(other);
  if (debts.size >= debtorsMax) return undefined;
  const debt = { level: 0n, atMs: nowMs };
  debts.set(owner, debt);
  return debt;
}

/** What no honest payer sends. */
const blamed: ReadonlySet<string> = new Set([
  'malformed',
  'not-canonical',
  'too-large',
  'wrong-payer',
  'wrong-payee',
  'beyond-escrow',
  'bad-signature',
]);

/** A receipt either replaces the one before, and lowers its sender's debt, or changes nothing. */
function takeReceipt(state: PayeeState, from: NodeId, bytes: Uint8Array): Outcome<void> {
  const { options, held, debts, unkept } = state;
  const { escrows, clock } = options;
  const decoded = decodeReceipt(bytes);
  if (!decoded.ok) return decoded;
  const receipt = decoded.value;
  const row = escrows.get(receipt.escrow);
  if (!row) return reject('unknown-escrow', receipt.escrow.slice(0, 16));
  const before = amountBefore(row, held.get(receipt.escrow));
  const sound = checkReceipt(options, receipt, row, from);
  if (!sound.ok) return sound;
  // The same again: its answer was lost.
  if (receipt.amount === before) return accept(undefined);
  if (receipt.amount < before) return reject('not-growing', `${receipt.amount} after ${before}`);
  if (!held.has(receipt.escrow) && held.size >= receiptsMax) return reject('busy', `${held.size} receipts`);
  const grownMs = clock.nowMs();
  held.set(receipt.escrow, {
    ...held.get(receipt.escrow),
    receipt: { ...receipt, expiresMs: row.expiresMs },
    grownMs,
  });
  unkept.add(receipt.escrow);
  const debt = debtOf(options, debts, from);
  if (debt) debt.level -= (receipt.amount - before) * pricedPositions;
  return accept(undefined);
}

function amountBefore({ claimed }: EscrowRow, held: Held | undefined): Amount {
  return held && held.receipt.amount > claimed ? held.receipt.amount : claimed;
}

function checkReceipt(
  { nodeId, networkId, clock }: PayeeOptions,
  receipt: PaymentReceipt,
  row: EscrowRow,
  from: NodeId,
): Outcome<void> {
  if (row.payee !== nodeId) return reject('wrong-payee');
  if (row.payer !== from || nodeIdOf(receipt.publicKey) !== row.payer) return reject('wrong-payer');
  if (receipt.amount > row.amount) return reject('beyond-escrow', `${receipt.amount} of ${row.amount}`);
  const leftMs = row.expiresMs - clock.nowMs();
  if (leftMs < acceptMsMin) return reject('escrow-expires', `${leftMs} ms left`);
  return verifyReceipt(networkId, receipt) ? accept(undefined) : reject('bad-signature');
}

/** Sends a claim for each receipt that is worth one now, unless one waits already. */
function claimWorthy({ options, held }: PayeeState): void {
  const { ledger, escrows, nodeId, clock, price } = options;
  const enough = (price * claimPositionsMin) / pricedPositions;
  for (const [id, one] of held) {
    const row = escrows.get(id);
    if (!row || one.receipt.amount <= row.claimed) continue;
    if (one.sent && ledger.mempool.has(one.sent)) continue;
    const owed = one.receipt.amount - row.claimed;
    const isUsedUp = one.receipt.amount === row.amount;
    const rests = clock.nowMs() - one.grownMs >= restMs && owed >= enough;
    const ends = row.expiresMs - clock.nowMs() < claimMsMin;
    if (!isUsedUp && !ends && !rests && 4n * owed < row.amount) continue;
    // This node is all that the receipt pays: every stage of a path has an escrow of its own.
    const sent = ledger.send(claim, { ...one.receipt, driver: nodeId, workers: [], validator: nodeId });
    if (sent.ok) one.sent = sent.value.id;
  }
}

function unclaimedOf({ options, held }: PayeeState): Amount {
  let sum = 0n;
  for (const [id, { receipt }] of held) {
    const row = options.escrows.get(id);
    if (row && receipt.amount > row.claimed) sum += receipt.amount - row.claimed;
  }
  return sum;
}

async function readKept({ store, clock }: PayeeOptions): Promise<Map<string, Held>> {
  const held = new Map<string, Held>();
  for (const key of await store.list(storePrefix)) {
    const bytes = await store.get(key);
    const kept = bytes && decodeKept(bytes);
    // What this node cannot read it cannot claim with.
    if (kept?.ok) held.set(kept.value.escrow, { receipt: kept.value, grownMs: clock.nowMs() });
  }
  return held;
}

/** A receipt that is lost costs what the newest one kept does not say: at most a second's. */
async function keepReceipts({ options, held, unkept }: PayeeState): Promise<void> {
  for (const id of [...unkept]) {
    const one = held.get(id);
    unkept.delete(id);
    if (one) await options.store.put(storePrefix + id, encodeKept(one.receipt)).catch(() => unkept.add(id));
  }
}

/** Escrows that are no more on the ledger, and have ended: one that is not there yet may still come. */
async function forget({ options, held, unkept }: PayeeState): Promise<void> {
  const { escrows, store, clock } = options;
  for (const [id, { receipt }] of [...held]) {
    const row = escrows.get(id);
    if (row || receipt.expiresMs > clock.nowMs()) continue;
    held.delete(id);
    unkept.delete(id);
    await store.delete(storePrefix + id).catch(() => undefined);
  }
}
