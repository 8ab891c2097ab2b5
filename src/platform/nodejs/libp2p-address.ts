/** Multiaddresses and peer ids against our node ids. Pure; knows no connections. */
import { publicKeyFromRaw } from '@libp2p/crypto/keys';
import type { PeerId } from '@libp2p/interface';
import { peerIdFromPublicKey, peerIdFromString } from '@libp2p/peer-id';
import { CODE_P2P, type Multiaddr, multiaddr } from '@multiformats/multiaddr';
import { nodeIdOf } from '../../identity/keys.ts';
import type { NodeId } from '../../net/transport.ts';
import { CodedError } from '../../std/outcome.ts';
import type { Neighbour } from './libp2p-hello.ts';

/** Null for a peer whose key is none of ours, such as a public relay's. */
export function nodeOfPeer(peer: PeerId): NodeId | null {
  return peer.publicKey?.type === 'secp256k1' ? nodeIdOf(peer.publicKey.raw) : null;
}

/** The node behind `/p2p/…`, if the address says so and the key is one of ours. */
export function nodeOfAddress(address: Multiaddr): NodeId | null {
  const peer = address.getComponents().findLast((component) => component.code === CODE_P2P)?.value;
  return peer === undefined ? null : nodeOfPeer(peerIdFromString(peer));
}

export function withPeer(address: Multiaddr, peer: PeerId): Multiaddr {
  return withoutPeer(address).encapsulate(`/p2p/${peer.toString()}`);
}

/** A relay's own id, before `/p2p-circuit`, stays. */
export function withoutPeer(address: Multiaddr): Multiaddr {
  const components = address.getComponents();
  if (components.at(-1)?.code !== CODE_P2P) return address;
  return multiaddr(components.slice(0, -1));
}

/** Somebody's word about a node: what does not parse is left out. */
export function addressesOf(neighbour: Neighbour): readonly Multiaddr[] {
  try {
    const peer = peerIdFromPublicKey(publicKeyFromRaw(neighbour.publicKey));
    return neighbour.addresses.map((bytes) => withPeer(multiaddr(bytes), peer));
  } catch {
    return [];
  }
}

/** A user's word: `bad-address`. */
export function parseAddress(text: string): Multiaddr {
  try {
    const address = multiaddr(text);
    nodeOfAddress(address);
    return address;
  } catch (error) {
    throw new CodedError('bad-address', `not a multiaddress: ${text}`, { cause: error });
  }
}

export function isLoopback(address: Multiaddr): boolean {
  const text = address.toString();
  return /^\/ip4\/127\.\d+\.\d+\.\d+\//.test(text) || text.startsWith('/ip6/::1/');
}
