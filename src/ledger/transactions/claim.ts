/**
 * `claim`: the payee of an escrow is paid by the payer's newest receipt, which says how much of the escrow is owed in all.
 * A part is burned and the rest divided among the nodes that served, so whoever pays itself loses. Wire: [escrow b32,
 * amount, driver b32, [worker b32, …], validator b32, payer's public key b33, receipt's signature b64].
 */
import { z } from 'zod';
import { nodeIdOf, publicKeyBytes, signatureBytes } from '../../identity/keys.ts';
import { fromHex, toHex } from '../../std/bytes.ts';
import { accept, type Outcome, reject } from '../../std/outcome.ts';
import { amountField, bytesField, hashField, nodeIdField, parseBody } from '../body.ts';
import type { Draft } from '../draft.ts';
import { burn, credit } from '../money.ts';
import type { LedgerPolicy } from '../policy.ts';
import { divide } from '../price.ts';
import { type PaymentReceipt, verifyReceipt } from '../receipt.ts';
import type { LedgerConstants, TransactionRule } from '../rules.ts';
import type { Amount, EscrowRow } from '../tables.ts';

/** Who served, by node id; one node may be all. */
export interface Servers {
  readonly driver: string;
  /** None where the Driver's and the Validator's stage are all there is. */
  readonly workers: readonly string[];
  readonly validator: string;
}

export interface Claim extends PaymentReceipt, Servers {}

const workersMax = 64;

const schema = z
  .tuple([
    hashField,
    amountField,
    nodeIdField,
    z.array(nodeIdField).max(workersMax),
    nodeIdField,
    bytesField(publicKeyBytes),
    bytesField(signatureBytes),
  ])
  .transform(
    ([escrow, amount, driver, workers, validator, publicKey, signature]): Claim => ({
      escrow: toHex(escrow),
      amount,
      driver,
      workers,
      validator,
      publicKey,
      signature,
    }),
  );

/** Codes: `unknown-escrow`, `not-the-payee`, `nothing-new`, `beyond-escrow`, `bad-receipt`. */
export const claim: TransactionRule<Claim> = {
  kind: 'claim',
  origin: 'author',
  parse: (body) => parseBody('claim', schema, body),
  encode: ({ escrow, amount, driver, workers, validator, publicKey, signature }) => [
    fromHex(escrow),
    amount,
    fromHex(driver),
    workers.map(fromHex),
    fromHex(validator),
    publicKey,
    signature,
  ],
  apply(draft, body, { nodeId }, { constants }) {
    const row = draft.get('escrow', body.escrow);
    if (!row) return reject('unknown-escrow', body.escrow);
    if (row.payee !== nodeId) return reject('not-the-payee');
    const checked = checkReceipt(row, body, constants);
    if (!checked.ok) return checked;
    if (body.amount === row.amount) draft.delete('escrow', body.escrow);
    else draft.put('escrow', body.escrow, { ...row, claimed: body.amount });
    payOut(draft, body.amount - row.claimed, body, constants.policy);
    return accept(undefined);
  },
};

function checkReceipt(row: EscrowRow, receipt: PaymentReceipt, constants: LedgerConstants): Outcome<void> {
  if (receipt.amount <= row.claimed) return reject('nothing-new', `${row.claimed} were claimed before`);
  if (receipt.amount > row.amount) return reject('beyond-escrow', `${receipt.amount} of ${row.amount}`);
  if (nodeIdOf(receipt.publicKey) !== row.payer) return reject('bad-receipt', 'not of the payer');
  return verifyReceipt(constants.networkId, receipt) ? accept(undefined) : reject('bad-receipt', 'signature');
}

/** Rounds the burn up, so that no amount is too small to be burned of. */
function payOut(draft: Draft, paid: Amount, { driver, workers, validator }: Servers, policy: LedgerPolicy) {
  const burned = (paid * BigInt(policy.burnShare) + 999n) / 1000n;
  burn(draft, burned);
  const shares = divide(paid - burned, workers.length, policy);
  for (const worker of workers) credit(draft, worker, shares.worker);
  credit(draft, driver, shares.driver);
  credit(draft, validator, shares.validator);
}
