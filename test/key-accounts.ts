/** Accounts of API keys in memory, with a key of the gateway's: for tests. */

import { type ApiKey, type KeyAccounts, openKeyAccounts } from '../src/api/key-accounts.ts';
import { keyPairFrom, signDigest } from '../src/identity/keys.ts';
import { utf8 } from '../src/std/bytes.ts';
import { sha256 } from '../src/std/hash.ts';
import { memoryStore, type Store } from '../src/std/store.ts';

export const gatewayKey = keyPairFrom(sha256(utf8('a gateway')));
export const gatewayNetwork = sha256(utf8('a network with a gateway'));

export function testAccounts(
  keys: readonly (string | ApiKey)[],
  {
    tokenPrice = 2_000,
    store = memoryStore(),
  }: { readonly tokenPrice?: number; readonly store?: Store } = {},
): Promise<KeyAccounts> {
  return openKeyAccounts({
    keys: keys.map((key) => (typeof key === 'string' ? { key } : key)),
    tokenPrice,
    networkId: gatewayNetwork,
    sign: (digest) => signDigest(digest, gatewayKey.secretKey),
    store,
    clock: { nowMs: () => 1_800_000_000_000 },
  });
}
