import { testStoreContract } from '../../test/store-contract.ts';
import { memoryStore } from './store.ts';

testStoreContract('memory store', async () => memoryStore());
