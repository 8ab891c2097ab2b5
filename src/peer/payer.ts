/**
 * A node's part as one who pays: what it owes each peer that answered, escrows opened on the ledger, receipts that grow as
 * answers come, and what is left taken back in the end. It pays for what was answered, never for what was asked.
 */
import type { KeyPair } from '../identity/keys.ts';
import { pricedPositions } from '../ledger/price.ts';
import { signReceipt } from '../ledger/receipt.ts';
import type { Amount } from '../ledger/tables.ts';
import { escrow } from '../ledger/transactions/escrow.ts';
import { refund } from '../ledger/transactions/refund.ts';
import { receiptProtocol } from '../net/protocol.ts';
import type { NodeId, Transport } from '../net/transport.ts';
import { paymentRequired, type ServicePayer } from '../pipeline/payment.ts';
import { must } from '../std/assert.ts';
import { toHex } from '../std/bytes.ts';
import { type Clock, sleep } from '../std/clock.ts';
import { inTurn } from '../std/in-turn.ts';
import { accept, type Outcome, reject } from '../std/outcome.ts';
import type { LedgerNode } from './ledger-node.ts';
import type { OwnEscrows } from './own-escrows.ts';
import { encodeReceipt } from './receipt-wire.ts';

export interface PayerOptions {
  readonly key: KeyPair;
  readonly networkId: Uint8Array;
  /** Nano-NEURO for a position at each stage. */
  readonly prices: readonly Amount[];
  /** Positions that each peer serves before it wants to be paid. */
  readonly unpaidMax: number;
  /** Longest life of an escrow that the ledger takes. */
  readonly escrowMsMax: number;
  readonly ledger: Pick<LedgerNode, 'send' | 'mempool' | 'onBlock'>;
  readonly balance: () => Amount;
  readonly escrows: OwnEscrows;
  readonly transport: Pick<Transport, 'request'>;
  readonly clock: Clock;
}

export interface Payer extends ServicePayer {
  stats(): PayerStats;
  /** Of the newest receipt that this process signed for that escrow. */
  receipt(escrow: string): Amount | undefined;
  close(): void;
}

export interface PayerStats {
  /** Positions that peers answered for. */
  readonly positions: number;
  /** Micro-NEURO answered for and not signed for yet. */
  readonly due: Amount;
  /** Signed for since this process began. */
  readonly signed: Amount;
  /** What lies in escrows and was not claimed. */
  readonly escrowed: Amount;
}

const escrowMs = 3_600_000;
/** An escrow is for so many times what a peer serves unpaid, or a part of the balance where that is less. */
const escrowAllowances = 16n;
const balanceParts = 4n;
/** Receipts are signed for every so many parts of what a peer serves unpaid. */
const stepsOfAllowance = 4n;
/** What is due is paid when nothing more was answered for so long. */
const restMs = 1_000;
/** How long a block may take to make an escrow final. */
const finalMs = 30_000;
/** A payee may hear of a block later than its payer. */
const lateMs = 250;
const lateTries = 20;
/** Between a payment and asking again. */
const againMs = 20;
const refundEveryMs = 30_000;
const payeesMax = 1_024;

interface OwnEscrow {
  readonly id: string;
  readonly amount: Amount;
  /** Stops being used here. */
  readonly untilMs: number;
  /** Of the newest receipt that was signed. */
  signed: Amount;
  /** Whether the payee has answered for it. */
  isAcknowledged: boolean;
  isRefused: boolean;
}

interface Payee {
  readonly node: NodeId;
  /** Nano-NEURO for a position there. */
  readonly price: Amount;
  /** Nano-NEURO answered for and not signed for; below 0: paid ahead. */
  due: Amount;
  escrow: OwnEscrow | undefined;
  readonly turn: ReturnType<typeof inTurn>;
  isPaying: boolean;
  cancelRest: (() => void) | undefined;
}

interface PayerState {
  readonly options: PayerOptions;
  readonly payees: Map<NodeId, Payee>;
  /** By escrow, while it stands on the ledger. */
  readonly signed: Map<string, Amount>;
  readonly counts: { positions: number; signed: Amount };
  readonly closing: AbortController;
  /** Woken by every block. */
  readonly waiting: Set<() => void>;
}

export function createPayer(options: PayerOptions): Payer {
  const { clock, ledger, escrows } = options;
  const state: PayerState = {
    options,
    payees: new Map(),
    signed: new Map(),
    counts: { positions: 0, signed: 0n },
    closing: new AbortController(),
    waiting: new Set(),
  };
  const stopBlocks = ledger.onBlock(() => {
    for (const wake of [...state.waiting]) wake();
  });
  let cancelRefunds = clock.setTimer(refundEveryMs, function refunds() {
    takeBack(state);
    cancelRefunds = clock.setTimer(refundEveryMs, refunds);
  });
  return {
    answered: (node, stage, positions) => {
      state.counts.positions += positions;
      const payee = payeeOf(state, node, stage);
      if (!payee) return;
      payee.due += payee.price * BigInt(positions);
      if (payee.due >= stepOf(state, payee)) payLater(state, payee);
      else payAtRest(state, payee);
    },
    settle: async (node, stage, signal) => {
      const payee = payeeOf(state, node, stage);
      if (!payee) return reject(paymentRequired, 'too many are owed');
      const stop = signal ? AbortSignal.any([signal, state.closing.signal]) : state.closing.signal;
      return payee.turn(() => pay(state, payee, stepOf(state, payee), stop));
    },
    stats: () => {
      const own = [...escrows.all().values()].filter(({ payer }) => payer === options.key.nodeId);
      const due = [...state.payees.values()].reduce((sum, one) => sum + (one.due > 0n ? one.due : 0n), 0n);
      return {
        ...state.counts,
        due: due / pricedPositions,
        escrowed: own.reduce((sum, { amount, claimed }) => sum + amount - claimed, 0n),
      };
    },
    receipt: (id) => state.signed.get(id),
    close: () => {
      state.closing.abort(new Error('closed'));
      stopBlocks();
      cancelRefunds();
      for (const { cancelRest } of state.payees.values()) cancelRest?.();
    },
  };
}

/** Undefined where so many are owed that nobody new is paid; who is owed least is forgotten first. */
function payeeOf({ options, payees }: PayerState, node: NodeId, stage: number): Payee | undefined {
  const known = payees.get(node);
  if (known) return known;
  if (payees.size >= payeesMax)
    for (const [id, { due, escrow: open, cancelRest }] of payees)
      if (due <= 0n && !open && !cancelRest) payees.delete(id);
  if (payees.size >= payeesMax) return undefined;
  const price = must(options.prices[stage], `price of stage ${stage}`);
  const turn = inTurn();
  const payee = { node, price, due: 0n, escrow: undefined, turn, isPaying: false, cancelRest: undefined };
  payees.set(node, payee);
  return payee;
}

function stepOf({ options }: PayerState, { price }: Payee): Amount {
  return (price * BigInt(options.unpaidMax)) / stepsOfAllowance;
}

/** Beside the answers: they go on while receipts and blocks are on their way. */
function payLater(state: PayerState, payee: Payee): void {
  if (payee.isPaying || state.closing.signal.aborted) return;
  payee.isPaying = true;
  payee.cancelRest?.();
  payee.cancelRest = undefined;
  const over = () => {
    payee.isPaying = false;
  };
  payee.turn(() => pay(state, payee, 0n, state.closing.signal)).then(over, over);
}

/** A little that is owed is paid when there is an escrow for it anyway; else it stays for the next time. */
function payAtRest(state: PayerState, payee: Payee): void {
  if (!payee.escrow || state.closing.signal.aborted) return;
  payee.cancelRest?.();
  payee.cancelRest = state.options.clock.setTimer(restMs, () => {
    payee.cancelRest = undefined;
    if (payee.escrow && payee.due >= pricedPositions) payLater(state, payee);
  });
}

/**
 * Signs for all that is due, and `ahead` (nano-NEURO) more for a peer that counts otherwise (answers were lost, this process
 * is new). Whoever was paid so much ahead gets no more until it has answered. `payment-required`: it cannot be paid.
 */
async function pay(
  state: PayerState,
  payee: Payee,
  ahead: Amount,
  signal: AbortSignal,
): Promise<Outcome<void>> {
  const last = payee.escrow;
  if (last && !last.isAcknowledged && !last.isRefused) {
    const sent = await sendReceipt(state, payee, last, signal);
    if (!sent.ok || ahead > 0n) return sent;
  }
  if (ahead > 0n && payee.due <= -ahead) {
    // Calls that were refused before it was paid, or a peer that takes and gives nothing: it gets no more.
    await sleep(state.options.clock, againMs, signal).catch(() => undefined);
    return accept(undefined);
  }
  let left = (payee.due + ahead) / pricedPositions;
  while (left > 0n) {
    const open = await usableEscrow(state, payee, left, signal);
    if (!open.ok) return open;
    const { amount, signed } = open.value;
    let part = amount - signed;
    if (part > left) part = left;
    open.value.signed += part;
    open.value.isAcknowledged = false;
    left -= part;
    // Signed is owed, whether the receipt arrives or not: the next one says it again.
    payee.due -= part * pricedPositions;
    state.counts.signed += part;
    state.signed.set(open.value.id, open.value.signed);
    const sent = await sendReceipt(state, payee, open.value, signal);
    if (!sent.ok) return sent;
  }
  return accept(undefined);
}

async function sendReceipt(
  { options }: PayerState,
  { node }: Payee,
  own: OwnEscrow,
  signal: AbortSignal,
): Promise<Outcome<void>> {
  const { networkId, key, transport, clock } = options;
  const receipt = encodeReceipt(signReceipt(networkId, { escrow: own.id, amount: own.signed }, key));
  for (let tries = 0; ; tries++) {
    const answer = await transport.request(node, receiptProtocol, receipt, signal);
    if (answer.ok) {
      own.isAcknowledged = true;
      return accept(undefined);
    }
    const isLate = answer.code === 'unknown-escrow' || answer.code === 'refused';
    if (isLate && tries < lateTries && !signal.aborted) {
      await sleep(clock, lateMs, signal).catch(() => undefined);
      continue;
    }
    // An honest payee has a reason that does not pass; one that is gone asks for the next receipt when it is back.
    if (!transportCodes.has(answer.code)) own.isRefused = true;
    return reject(paymentRequired, `a receipt was refused: ${answer.code}`);
  }
}

/** Of the transport: they say nothing of the receipt. */
const transportCodes: ReadonlySet<string> = new Set([
  'unreachable',
  'timeout',
  'stalled',
  'busy',
  'refused',
  'failed',
  'aborted',
]);

/** The payee's escrow with something left in it, on the ledger; opened where there is none. */
async function usableEscrow(
  state: PayerState,
  payee: Payee,
  wanted: Amount,
  signal: AbortSignal,
): Promise<Outcome<OwnEscrow>> {
  const { options } = state;
  const { clock, escrows } = options;
  const now = payee.escrow;
  const isUsable =
    now && !now.isRefused && now.signed < now.amount && clock.nowMs() < now.untilMs && escrows.get(now.id);
  if (isUsable) return accept(now);
  payee.escrow = undefined;
  const opened = openEscrow(state, payee, wanted);
  if (!opened.ok) return opened;
  const { id, bytes } = opened.value;
  const untilMs = clock.nowMs() + finalMs;
  while (!escrows.get(id)) {
    if (signal.aborted) return reject('aborted');
    if (clock.nowMs() >= untilMs || !options.ledger.mempool.has(bytes))
      if (!escrows.get(id)) return reject(paymentRequired, 'no block has taken the escrow');
    await nextBlock(state, untilMs - clock.nowMs(), signal);
  }
  payee.escrow = opened.value.own;
  return accept(opened.value.own);
}

function openEscrow({ options }: PayerState, { node, price }: Payee, wanted: Amount) {
  const { ledger, clock, balance, unpaidMax, escrowMsMax } = options;
  const usual = (price * BigInt(unpaidMax) * escrowAllowances) / pricedPositions;
  const have = balance();
  const spared = have / balanceParts;
  const most = spared < usual ? spared : usual;
  const amount = most > wanted ? most : wanted;
  if (amount > have) return reject(paymentRequired, `${wanted} micro-NEURO are owed, the balance is ${have}`);
  const lifeMs = Math.min(escrowMs, escrowMsMax - 60_000);
  const expiresMs = Math.floor(clock.nowMs()) + lifeMs;
  const sent = ledger.send(escrow, { payee: node, amount, expiresMs });
  if (!sent.ok) return reject(paymentRequired, `no escrow: ${sent.code}`);
  const id = toHex(sent.value.id);
  const untilMs = expiresMs - lifeMs / 6;
  const own: OwnEscrow = { id, amount, untilMs, signed: 0n, isAcknowledged: true, isRefused: false };
  return accept({ id, bytes: sent.value.id, own });
}

/** After the next block, or when the time is over. */
function nextBlock({ options, waiting }: PayerState, limitMs: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      waiting.delete(done);
      cancel();
      signal.removeEventListener('abort', done);
      resolve();
    };
    const cancel = options.clock.setTimer(Math.max(0, limitMs), done);
    waiting.add(done);
    signal.addEventListener('abort', done, { once: true });
  });
}

/** What expired escrows still hold; those of an earlier process, too. */
function takeBack({ options, signed }: PayerState): void {
  const { escrows, ledger, clock, key } = options;
  for (const id of signed.keys()) if (!escrows.get(id)) signed.delete(id);
  for (const [id, { payer, expiresMs }] of escrows.all())
    if (payer === key.nodeId && expiresMs < clock.nowMs()) ledger.send(refund, { escrow: id });
}
