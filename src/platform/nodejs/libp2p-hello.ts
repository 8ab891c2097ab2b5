/**
 * The greeting that makes a connected node a peer: same network, and whom else one is connected to. Knows the bytes
 * and their bounds, not the connections.
 */
import { publicKeyBytes } from '../../identity/keys.ts';
import type { Protocol } from '../../net/protocol.ts';
import { type Canonical, decodeCanonical, encodeCanonical } from '../../std/codec.ts';
import { accept, type Outcome, reject } from '../../std/outcome.ts';

export interface Neighbour {
  /** Compressed, 33 bytes. */
  readonly publicKey: Uint8Array;
  /** Binary multiaddresses, without the peer id. */
  readonly addresses: readonly Uint8Array[];
}

export interface Hello {
  readonly networkId: string;
  /** Whom the sender is connected to; null when they are too many to list. */
  readonly neighbours: readonly Neighbour[] | null;
}

/** Up to so many neighbours are listed, and up to so many nodes can be a full mesh that forwards nothing. */
export const neighboursListedMax = 16;
const addressesMax = 3;
const addressBytesMax = 128;
const helloBytesMax = 16 * 1024;

export const helloProtocol: Protocol = {
  id: '/neuroshard/hello/1',
  requestBytesMax: helloBytesMax,
  responseBytesMax: helloBytesMax,
  timeoutMs: 10_000,
  idleTimeoutMs: 5_000,
  requestsPerMinuteMax: 240,
};

export function encodeHello(hello: Hello): Uint8Array {
  const neighbours =
    hello.neighbours?.map(
      ({ publicKey, addresses }): Canonical => [
        publicKey,
        addresses.filter((address) => address.length <= addressBytesMax).slice(0, addressesMax),
      ],
    ) ?? null;
  return encodeCanonical([hello.networkId, neighbours]);
}

/** `malformed`, `too-large`, `not-canonical`, or `other-network`. */
export function decodeHello(bytes: Uint8Array, networkId: string): Outcome<Hello> {
  const decoded = decodeCanonical(bytes, helloBytesMax);
  if (!decoded.ok) return decoded;
  if (!Array.isArray(decoded.value) || decoded.value.length !== 2) return reject('malformed', 'not a hello');
  const [network, listed] = decoded.value as readonly unknown[];
  if (network !== networkId) return reject('other-network', 'another network');
  if (listed === null) return accept({ networkId, neighbours: null });
  if (!Array.isArray(listed) || listed.length > neighboursListedMax) return reject('malformed', 'neighbours');
  const neighbours: Neighbour[] = [];
  for (const entry of listed as readonly unknown[]) {
    if (!Array.isArray(entry) || entry.length !== 2) return reject('malformed', 'a neighbour');
    const [publicKey, addresses] = entry as readonly unknown[];
    if (!isBytes(publicKey) || publicKey.length !== publicKeyBytes)
      return reject('malformed', 'a public key');
    if (!Array.isArray(addresses) || addresses.length > addressesMax) return reject('malformed', 'addresses');
    if (!addresses.every((address) => isBytes(address) && address.length <= addressBytesMax)) {
      return reject('malformed', 'an address');
    }
    neighbours.push({ publicKey, addresses: addresses as readonly Uint8Array[] });
  }
  return accept({ networkId, neighbours });
}

function isBytes(value: unknown): value is Uint8Array {
  return value instanceof Uint8Array;
}
