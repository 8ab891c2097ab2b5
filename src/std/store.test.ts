import { memoryStore } from './store.ts';
import { testStoreContract } from './store-contract.ts';

testStoreContract('memory store', async () => memoryStore());
