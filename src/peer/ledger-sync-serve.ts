/**
 * Answers those who join the ledger: how epochs ended, and the state that an epoch began with, in chunks. It gives what
 * is kept here and trusts nobody; the askers check all of it.
 */
import type { EpochsReplica } from '../consensus/epoch-types.ts';
import { encodeSnapshotInfo } from '../ledger/snapshot-chunks.ts';
import type { LedgerHead, LedgerStore } from '../ledger/store.ts';
import {
  epochEndsProtocol,
  type Protocol,
  snapshotChunkProtocol,
  snapshotInfoProtocol,
} from '../net/protocol.ts';
import type { Transport } from '../net/transport.ts';
import { accept, type Outcome, reject } from '../std/outcome.ts';
import { decodeCounts, encodeEnds } from './ledger-sync-wire.ts';

export interface LedgerSyncServer {
  readonly transport: Transport;
  readonly store: LedgerStore;
  /** The one that runs now. */
  readonly consensus: () => EpochsReplica;
}

/** The epoch that begins with the state after this block. */
export function epochBegunBy(head: LedgerHead): number {
  return head.height === 0 ? head.epoch : head.epoch + 1;
}

/** Codes of answers: `malformed`, `not-canonical`, `schema`, `unknown-snapshot`, `unknown-chunk`, `unavailable`. */
export function serveLedgerSync({ transport, store, consensus }: LedgerSyncServer): () => void {
  const serve = (
    protocol: Protocol,
    counts: number,
    answer: (first: number, second: number) => Promise<Outcome<Uint8Array>>,
  ) =>
    transport.handle(protocol, async (_from, request) => {
      const asked = decodeCounts(request, counts);
      if (!asked.ok) return asked;
      const [first = 0, second = 0] = asked.value;
      // What is wrong with the disk is this node's trouble, and found by whoever writes to it.
      return answer(first, second).catch(() => reject('unavailable'));
    });
  const stops = [
    serve(epochEndsProtocol, 1, async (epoch) => accept(encodeEnds(await consensus().endsSince(epoch)))),
    serve(snapshotInfoProtocol, 1, async (epoch) => {
      const info = (await store.snapshots()).find(({ head }) => epochBegunBy(head) === epoch);
      return info ? accept(encodeSnapshotInfo(info)) : reject('unknown-snapshot', `of epoch ${epoch}`);
    }),
    serve(snapshotChunkProtocol, 2, async (number, index) => {
      const chunk = await store.snapshotChunk(number, index);
      return chunk ? accept(chunk) : reject('unknown-chunk', `${number} ${index}`);
    }),
  ];
  return () => {
    for (const stop of stops) stop();
  };
}
