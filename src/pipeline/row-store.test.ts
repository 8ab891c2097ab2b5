import { testRowStoreContract } from '../../test/row-store-contract.ts';
import { createMemoryRows } from './row-store.ts';

testRowStoreContract('memory', async () => createMemoryRows(10_500));
