/**
 * A transaction from a wallet to the ledger: signed here, handed to a node, and watched until it is final. The secret
 * never leaves this process.
 */
import type { KeyPair } from '../identity/keys.ts';
import { formatNeuro } from '../ledger/neuro.ts';
import type { TransactionRule } from '../ledger/rules.ts';
import type { Amount } from '../ledger/tables.ts';
import { encodeTransaction, signTransaction, transactionId } from '../ledger/transaction.ts';
import { fromHex, toHex } from '../std/bytes.ts';
import { type Clock, sleep } from '../std/clock.ts';
import { CodedError } from '../std/outcome.ts';
import type { Account, LedgerClient } from './ledger-client.ts';

const pollMs = 400;
/** A node that is asked while it writes a block knows the transaction neither as waiting nor as final. */
const unknownAnswersMax = 10;

export interface Submission<Body> {
  readonly client: LedgerClient;
  readonly key: KeyPair;
  readonly rule: TransactionRule<Body>;
  readonly body: Body;
  /** What the account must have for it, and where. */
  readonly needs: { readonly amount: Amount; readonly from: 'balance' | 'stake' };
  readonly clock: Clock;
  readonly signal: AbortSignal;
  /** 0: do not wait. */
  readonly waitMs: number;
}

export interface Submitted {
  readonly id: string;
  readonly kind: string;
  readonly nonce: number;
  readonly final: boolean;
  readonly block: number | null;
  readonly index: number | null;
}

/**
 * Throws CodedError `insufficient-balance`, `insufficient-stake`, `not-final` (the node has it, but no block yet),
 * `transaction-dropped`, and those of the client.
 */
export async function submitTransaction<Body>(submission: Submission<Body>): Promise<Submitted> {
  const { client, key, rule, body, needs, clock, waitMs } = submission;
  const [head, account] = [await client.head(), await client.account(key.nodeId)];
  refuseTooMuch(account, needs);
  const networkId = fromHex(head.networkId);
  // Nonces only have to grow: the clock keeps two wallets of one key apart without their knowing of each other.
  const nonce = Math.max(account.newestNonce + 1, Math.floor(clock.nowMs()));
  const transaction = signTransaction(networkId, rule, { body, nonce }, key);
  const id = toHex(transactionId(networkId, transaction));
  if ((await client.submit(encodeTransaction(transaction))) !== id)
    throw new CodedError('not-a-node', 'the node calls the transaction by another name');
  const submitted = { id, kind: rule.kind, nonce };
  if (waitMs === 0) return { ...submitted, final: false, block: null, index: null };
  return { ...submitted, ...(await untilFinal(submission, id)) };
}

/** The node would say the same; this says it in NEURO. */
function refuseTooMuch(account: Account, { amount, from }: Submission<unknown>['needs']): void {
  const has = BigInt(account[from]);
  if (has >= amount) return;
  const [of, wanted] = [formatNeuro(has), formatNeuro(amount)];
  throw from === 'balance'
    ? new CodedError('insufficient-balance', `the balance is ${of} NEURO, ${wanted} are needed`)
    : new CodedError('insufficient-stake', `the stake is ${of} NEURO, ${wanted} are to be taken back`);
}

async function untilFinal(
  { client, clock, signal, waitMs }: Pick<Submission<unknown>, 'client' | 'clock' | 'signal' | 'waitMs'>,
  id: string,
): Promise<Pick<Submitted, 'final' | 'block' | 'index'>> {
  const endMs = clock.nowMs() + waitMs;
  for (let unknown = 0; ; ) {
    try {
      const state = await client.transaction(id);
      if (state.final) return { final: true, block: state.block, index: state.index };
      unknown = 0;
    } catch (error) {
      if (!(error instanceof CodedError) || !['no-transaction', 'no-node'].includes(error.code)) throw error;
      unknown += 1;
      if (unknown >= unknownAnswersMax) throw gone(error, id);
    }
    if (clock.nowMs() >= endMs)
      throw new CodedError(
        'not-final',
        `transaction ${id} waits for a block; its account's history will show it`,
      );
    await sleep(clock, pollMs, signal);
  }
}

function gone(error: CodedError, id: string): CodedError {
  if (error.code === 'no-node')
    return new CodedError('no-node', `${error.message} (transaction ${id} was sent)`);
  return new CodedError(
    'transaction-dropped',
    `the node has dropped transaction ${id}: look at the history, then try again`,
  );
}
