import { testLedgerStoreContract } from '../../test/ledger-store-contract.ts';
import { memoryLedgerStore } from './memory-store.ts';

testLedgerStoreContract('memory ledger', async () => memoryLedgerStore());
