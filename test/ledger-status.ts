/** What a node says of its ledger and its payments, made up: for tests of how it is shown. */
import type { LedgerStatus } from '../src/peer/ledger-report.ts';
import type { PaymentStatus } from '../src/peer/payments.ts';

export const sampleLedgerStatus: LedgerStatus = {
  number: 12,
  stateRoot: '5f'.repeat(32),
  epoch: 1,
  checkpoint: `1:${'a'.repeat(64)}:${'b'.repeat(64)}`,
  votes: true,
  members: 4,
  toleratedFailures: 1,
  waiting: 2,
  supply: '7000000',
  balance: '1500000',
  stake: '30000000',
  pending: '250000',
  answered: 2,
};

export const samplePaymentStatus: PaymentStatus = {
  tokenPrice: '2000',
  stagePrice: '1000',
  served: 5_000,
  refused: 32,
  bought: 700,
  earned: '4000000',
  paid: '600000',
  unclaimed: '1000000',
  signed: '650000',
  due: '50000',
  escrowed: '350000',
};
