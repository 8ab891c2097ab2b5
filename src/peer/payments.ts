/**
 * What a node pays and is paid for inference, wired: one ledger, one set of escrows, a payer and a payee. A network whose
 * manifest asks for nothing has neither, and serves everybody for nothing.
 */
import type { KeyPair } from '../identity/keys.ts';
import { accountOf } from '../ledger/money.ts';
import { stagePrices } from '../ledger/price.ts';
import type { Transport } from '../net/transport.ts';
import type { ServiceMeter, ServicePayer } from '../pipeline/payment.ts';
import { must } from '../std/assert.ts';
import type { Clock } from '../std/clock.ts';
import type { Store } from '../std/store.ts';
import type { LedgerNode } from './ledger-node.ts';
import type { NetworkManifest } from './network.ts';
import { watchOwnEscrows } from './own-escrows.ts';
import { createPayee } from './payee.ts';
import { createPayer } from './payer.ts';

/** Amounts are decimal micro-NEURO; what is counted, since this process began. */
export interface PaymentStatus {
  /** For 1,000 positions through all stages, and at this node's. */
  readonly tokenPrice: string;
  readonly stagePrice: string;
  /** Positions served to peers, and refused until somebody pays. */
  readonly served: number;
  readonly refused: number;
  /** Positions that peers answered for. */
  readonly bought: number;
  /** Claimed by this node, and from its escrows, in final blocks; the burn included. */
  readonly earned: string;
  readonly paid: string;
  /** Receipts that this node holds and has not claimed. */
  readonly unclaimed: string;
  /** What this node signed for, and what it has not signed for yet. */
  readonly signed: string;
  readonly due: string;
  /** Of this node's, in escrows. */
  readonly escrowed: string;
}

/** An escrow of this node's and how far it has been signed for. Amounts as above. */
export interface ReceiptDocument {
  readonly escrow: string;
  readonly role: 'payer' | 'payee';
  /** Node id of the other side. */
  readonly other: string;
  readonly amount: string;
  readonly claimed: string;
  /** What the newest receipt says is owed in all; null where this process knows none. */
  readonly receipt: string | null;
  readonly expiresMs: number;
}

export interface Payments {
  /** Undefined where serving is free. */
  readonly meter?: ServiceMeter;
  readonly payer?: ServicePayer;
  status(): PaymentStatus;
  /** By escrow. */
  receipts(): readonly ReceiptDocument[];
  close(): Promise<void>;
}

export interface PaymentsOptions {
  readonly network: Pick<NetworkManifest, 'networkId' | 'ledger' | 'training'>;
  readonly key: KeyPair;
  readonly stage: number;
  readonly ledger: LedgerNode;
  readonly store: Store;
  readonly transport: Transport;
  readonly clock: Clock;
}

export async function createPayments(options: PaymentsOptions): Promise<Payments> {
  const { network, key, stage, ledger } = options;
  const { tokenPrice, unpaidTokensMax, escrowMsMax } = network.ledger;
  const prices = stagePrices(network.training.stages, network.ledger);
  const price = must(prices[stage], `price of stage ${stage}`);
  const { nodeId } = key;
  const escrows = watchOwnEscrows(ledger, nodeId);
  const common = { ...options, nodeId, networkId: network.networkId, unpaidMax: unpaidTokensMax, escrows };
  // A price of a few nano-NEURO may leave a stage without any.
  const payee = price > 0n ? await createPayee({ ...common, price }) : undefined;
  const balance = () => accountOf(ledger.state(), nodeId).balance;
  const payer = tokenPrice > 0 ? createPayer({ ...common, prices, escrowMsMax, balance }) : undefined;
  return {
    ...(payee && { meter: payee.meter }),
    ...(payer && { payer }),
    status: () => {
      const { positions = 0, refused = 0, unclaimed = 0n } = payee?.stats() ?? {};
      const asked = payer?.stats() ?? { positions: 0, signed: 0n, due: 0n, escrowed: 0n };
      const { paid, earned } = escrows.totals();
      return {
        tokenPrice: String(tokenPrice),
        stagePrice: String(price),
        served: positions,
        refused,
        bought: asked.positions,
        earned: String(earned),
        paid: String(paid),
        unclaimed: String(unclaimed),
        signed: String(asked.signed),
        due: String(asked.due),
        escrowed: String(asked.escrowed),
      };
    },
    receipts: () =>
      [...escrows.all()]
        .map(([id, row]): ReceiptDocument => {
          const [role, other] =
            row.payee === nodeId ? (['payee', row.payer] as const) : (['payer', row.payee] as const);
          const receipt = role === 'payee' ? payee?.receipt(id) : payer?.receipt(id);
          const { amount, claimed, expiresMs } = row;
          return {
            ...{ escrow: id, role, other, amount: String(amount), claimed: String(claimed) },
            ...{ receipt: receipt === undefined ? null : String(receipt), expiresMs },
          };
        })
        .sort((a, b) => (a.escrow < b.escrow ? -1 : 1)),
    close: async () => {
      payer?.close();
      await payee?.close();
      escrows.close();
    },
  };
}
