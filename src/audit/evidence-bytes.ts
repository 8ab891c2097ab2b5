/**
 * Evidence that is named by the SHA-256 of its bytes: the list of a stage's steps, what it kept of one, rows that it got or
 * sent. As with states it does not matter who gives it, and who has fetched it gives it on. It knows no verdicts.
 */
import { evidenceBytesProtocol } from '../net/protocol.ts';
import type { NodeId, Transport } from '../net/transport.ts';
import { fromHex, toHex } from '../std/bytes.ts';
import { decodeCanonical, encodeCanonical } from '../std/codec.ts';
import { type HashHex, sha256Hex } from '../std/hash.ts';
import { accept, reject } from '../std/outcome.ts';
import type { EvidenceShelf } from './evidence.ts';

/** Whoever may have the bytes of a hash. */
export type BytesSource = (hash: HashHex) => Promise<Uint8Array | undefined>;

/** Answers [hash] with its bytes: `malformed`, `unknown-evidence`. */
export function serveEvidenceBytes(transport: Transport, sources: readonly BytesSource[]): () => void {
  return transport.handle(evidenceBytesProtocol, async (_from, request) => {
    const decoded = decodeCanonical(request, evidenceBytesProtocol.requestBytesMax);
    if (!decoded.ok) return decoded;
    const { value } = decoded;
    if (!(value instanceof Uint8Array) || value.length !== 32) return reject('malformed');
    for (const source of sources) {
      const bytes = await source(toHex(value));
      if (bytes) return accept(bytes);
    }
    return reject('unknown-evidence');
  });
}

export interface BytesRequest {
  readonly transport: Transport;
  readonly shelf: EvidenceShelf;
  /** Asked before any peer: what this node itself kept, which may have been the prover's neighbour. */
  readonly local: readonly BytesSource[];
  /** The prover first. */
  readonly peers: readonly NodeId[];
  readonly signal: AbortSignal;
}

/**
 * Bytes of this hash, at most so many; in the shelf from then on. A peer that answers with others is penalised and not
 * asked again by the function that this returns.
 */
export function createBytesFetch({ transport, shelf, local, peers, signal }: BytesRequest) {
  const usable = new Set(peers);
  return async (hash: HashHex, bytesMax: number): Promise<Uint8Array | undefined> => {
    const isIt = (bytes: Uint8Array) => bytes.length <= bytesMax && sha256Hex(bytes) === hash;
    const shelved = shelf.bytesOf(hash);
    if (shelved) return shelved.length <= bytesMax ? shelved : undefined;
    for (const source of local) {
      const bytes = await source(hash);
      if (bytes && isIt(bytes)) return bytes;
    }
    const body = encodeCanonical(fromHex(hash));
    for (const peer of [...usable]) {
      if (signal.aborted) return undefined;
      const answer = await transport.request(peer, evidenceBytesProtocol, body, signal);
      if (!answer.ok) continue;
      if (isIt(answer.value)) {
        shelf.putBytes(hash, answer.value);
        return answer.value;
      }
      usable.delete(peer);
      transport.penalize(peer, 'bad-evidence');
    }
    return undefined;
  };
}
