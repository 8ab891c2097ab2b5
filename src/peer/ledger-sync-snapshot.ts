/**
 * Fetching the state that an epoch began with, when its root is known: what chunks there are says one peer, each chunk is
 * checked as it comes, and the root at the end. A state with that root is the right one, whoever sent it.
 */
import type { CertifiedStart } from '../consensus/epoch-types.ts';
import { chainOf } from '../ledger/money.ts';
import { decodeSnapshotInfo, readSnapshot } from '../ledger/snapshot-chunks.ts';
import { commit, createState, type LedgerState } from '../ledger/state.ts';
import type { LedgerHead, SnapshotInfo } from '../ledger/store.ts';
import { snapshotChunkProtocol, snapshotInfoProtocol } from '../net/protocol.ts';
import type { NodeId, Transport } from '../net/transport.ts';
import { equalBytes } from '../std/bytes.ts';
import type { Clock } from '../std/clock.ts';
import { sha256 } from '../std/hash.ts';
import { encodeCounts } from './ledger-sync-wire.ts';
import { createPeerAsker, type PeerAsker } from './peer-asker.ts';

/** Rows are held in memory, so a peer must not be able to send without end before its root can be found wrong. */
export const snapshotBytesMax = 512 * 1024 * 1024;

export interface SnapshotPlace {
  readonly transport: Transport;
  readonly clock: Clock;
  readonly signal: AbortSignal;
}

export interface FetchedSnapshot {
  readonly head: LedgerHead;
  readonly state: LedgerState;
}

/** Undefined when no peer has it, or the signal aborts. */
export async function fetchSnapshot(
  place: SnapshotPlace,
  start: CertifiedStart,
): Promise<FetchedSnapshot | undefined> {
  const unavailableCode = 'snapshot-unavailable';
  const infos = createPeerAsker({ ...place, protocol: snapshotInfoProtocol, unavailableCode });
  const chunks = createPeerAsker({ ...place, protocol: snapshotChunkProtocol, unavailableCode });
  for (const peer of place.transport.peers()) {
    if (place.signal.aborted) return undefined;
    const answer = await infos.request(peer, encodeCounts(start.epoch));
    if (!answer.ok) continue;
    const info = decodeSnapshotInfo(answer.value);
    const code = info.ok ? problemOf(info.value, start) : info.code;
    const state = info.ok && !code ? await fetchRows(place, chunks, peer, info.value) : undefined;
    if (typeof state === 'object') {
      const head = headAfter(state, start);
      if (head) return { head, state };
    }
    const lie = code ?? (typeof state === 'object' ? 'wrong-state-root' : state);
    if (lie) place.transport.penalize(peer, lie);
  }
  return undefined;
}

function problemOf({ head, bytes }: SnapshotInfo, { stateRoot }: CertifiedStart): string | undefined {
  if (!equalBytes(head.stateRoot, stateRoot)) return 'wrong-state-root';
  return bytes > snapshotBytesMax ? 'too-large' : undefined;
}

/** The state of all chunks; the code of a lie of the peer that gave the info; or undefined when a chunk is not to be had. */
async function fetchRows(
  place: SnapshotPlace,
  asker: PeerAsker,
  giver: NodeId,
  info: SnapshotInfo,
): Promise<LedgerState | string | undefined> {
  const reader = readSnapshot(info);
  const state = createState();
  let bytes = 0;
  for (let index = 0; reader.left() > 0; index++) {
    const chunk = await fetchChunk(place, asker, giver, info, index);
    if (!(chunk instanceof Uint8Array)) return chunk;
    bytes += chunk.length;
    if (bytes > info.bytes) return 'malformed-snapshot';
    const rows = reader.add(chunk);
    if (!rows.ok) return rows.code;
    commit(state, rows.value);
  }
  return state;
}

/** From the giver of the info, or from others: of them only a chunk that fits, for it may be the info that is wrong. */
async function fetchChunk(
  { transport, signal }: SnapshotPlace,
  asker: PeerAsker,
  giver: NodeId,
  { head, chunks }: SnapshotInfo,
  index: number,
): Promise<Uint8Array | string | undefined> {
  const body = encodeCounts(head.number, index);
  for (const peer of [giver, ...transport.peers().filter((other) => other !== giver)]) {
    if (signal.aborted) return undefined;
    const answer = await asker.request(peer, body);
    if (!answer.ok) continue;
    if (equalBytes(sha256(answer.value), chunks[index]!)) return answer.value;
    if (peer === giver) return 'wrong-chunk';
  }
  return undefined;
}

/** The state's own word on its last block; undefined unless it is the certified state. */
function headAfter(state: LedgerState, { epoch, stateRoot }: CertifiedStart): LedgerHead | undefined {
  if (!equalBytes(state.root(), stateRoot)) return undefined;
  const { number, hash, epoch: begun } = chainOf(state);
  return begun === epoch ? { number, hash, height: 0, epoch, stateRoot } : undefined;
}
