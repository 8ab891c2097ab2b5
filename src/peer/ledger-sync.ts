/**
 * Joining the ledger from far away: from a beginning that is trusted, the ends of epochs prove the newest members and the
 * root of their state, and the state itself comes in chunks from anybody. It changes nothing here; what to do with the
 * state is for the caller.
 */
import { type Checkpoint, checkAge, openCheckpoint, verifyEpochs } from '../consensus/checkpoint.ts';
import type { CertifiedStart, EpochRun, EpochStart } from '../consensus/epoch-types.ts';
import type { SignatureScheme } from '../consensus/types.ts';
import type { LedgerPolicy } from '../ledger/policy.ts';
import type { LedgerState } from '../ledger/state.ts';
import type { LedgerHead } from '../ledger/store.ts';
import { epochEndsProtocol } from '../net/protocol.ts';
import type { NodeId, Transport } from '../net/transport.ts';
import { type Clock, sleep } from '../std/clock.ts';
import { accept, type Outcome, reject } from '../std/outcome.ts';
import { fetchSnapshot } from './ledger-sync-snapshot.ts';
import { decodeEnds, encodeCounts } from './ledger-sync-wire.ts';
import { createPeerAsker } from './peer-asker.ts';

/** What nobody has to be believed for. */
export type Trust =
  /** This node's own epoch, begun at `sinceMs`; undefined for the first of a manifest that says no time. */
  | { readonly kind: 'own'; readonly start: EpochStart; readonly sinceMs: number | undefined }
  | { readonly kind: 'checkpoint'; readonly checkpoint: Checkpoint };

export interface LedgerSyncOptions {
  readonly transport: Transport;
  readonly clock: Clock;
  readonly networkId: Uint8Array;
  readonly policy: Pick<LedgerPolicy, 'unbondingMs' | 'clockSkewMsMax'>;
  readonly signal: AbortSignal;
  readonly signatures?: SignatureScheme;
}

export interface SyncedLedger {
  /** The epoch to go on in. */
  readonly start: CertifiedStart;
  /** Its state's last block, and the state. */
  readonly head: LedgerHead;
  readonly state: LedgerState;
  /** What proved it, for those who ask this node. */
  readonly ends: readonly EpochRun[];
}

interface Proven {
  /** Oldest first. */
  readonly starts: CertifiedStart[];
  readonly ends: EpochRun[];
}

/** Peers keep the states of the newest two epochs. */
const startsTried = 2;

/**
 * The newest epoch that peers can prove and whose state they give. Codes: `ends-unavailable` (nobody says how the epoch
 * ended that is trusted, or the one before the checkpoint), `checkpoint-too-old`, `checkpoint-in-future`,
 * `wrong-checkpoint`, `snapshot-unavailable`, `aborted`. Who sends what does not hold is penalised.
 */
export async function syncLedger(options: LedgerSyncOptions, trust: Trust): Promise<Outcome<SyncedLedger>> {
  const asker = createPeerAsker({
    ...options,
    protocol: epochEndsProtocol,
    unavailableCode: 'ends-unavailable',
  });
  const ask = async (peer: NodeId, epoch: number) => {
    const answer = await asker.request(peer, encodeCounts(epoch));
    if (!answer.ok) return answer;
    const ends = decodeEnds(answer.value, options.networkId);
    if (!ends.ok) options.transport.penalize(peer, ends.code);
    return ends;
  };
  const begun = trust.kind === 'own' ? accept(trust.start) : await open(options, trust.checkpoint, ask);
  if (!begun.ok) return begun;
  const proven = await followEnds(options, begun.value, ask);
  if (trust.kind === 'checkpoint') proven.starts.unshift(begun.value as CertifiedStart);
  const newest = proven.starts.at(-1);
  if (options.signal.aborted) return reject('aborted');
  if (!newest) return reject('ends-unavailable', `nobody proves what followed epoch ${begun.value.epoch}`);
  const young = checkTrust(options, trust, proven.starts[0]!);
  if (!young.ok) return young;
  for (const start of proven.starts.slice(-startsTried).reverse()) {
    const snapshot = await fetchSnapshot(options, start);
    if (snapshot) return accept({ start, ...snapshot, ends: proven.ends });
    if (options.signal.aborted) return reject('aborted');
  }
  return reject('snapshot-unavailable', `of epoch ${newest.epoch}`);
}

type AskEnds = (peer: NodeId, epoch: number) => Promise<Outcome<readonly EpochRun[]>>;

/**
 * Members that have their stake back could prove anything. Where the manifest says no time, the network's first epoch is
 * as old as its own members say that it ended.
 */
function checkTrust(
  { clock, policy }: LedgerSyncOptions,
  trust: Trust,
  first: CertifiedStart,
): Outcome<void> {
  const sinceMs = trust.kind === 'own' ? trust.sinceMs : undefined;
  const { unbondingMs, clockSkewMsMax: skewMs } = policy;
  return checkAge(sinceMs ?? first.timeMs, { nowMs: clock.nowMs(), unbondingMs, skewMs });
}

/** The user vouches for the checkpoint, so a peer whose block is another has not necessarily lied. */
async function open(
  options: LedgerSyncOptions,
  checkpoint: Checkpoint,
  ask: AskEnds,
): Promise<Outcome<CertifiedStart>> {
  let result: Outcome<CertifiedStart> = reject('ends-unavailable', `before epoch ${checkpoint.epoch}`);
  if (checkpoint.epoch === 0) return reject('wrong-checkpoint', 'of the first epoch');
  for (const peer of options.transport.peers()) {
    const ends = await ask(peer, checkpoint.epoch - 1);
    const before = ends.ok ? ends.value[0] : undefined;
    if (!before) continue;
    result = openCheckpoint(checkpoint, before, options);
    if (result.ok) break;
  }
  return result;
}

/** As far as anybody can prove; what some peers hold back others give. */
async function followEnds(options: LedgerSyncOptions, from: EpochStart, ask: AskEnds): Promise<Proven> {
  const proven: Proven = { starts: [], ends: [] };
  let at: EpochStart | CertifiedStart = from;
  const take = async (ends: readonly EpochRun[], peer: NodeId): Promise<boolean> => {
    for (const end of ends) {
      const next = verifyEpochs(at, [end], options);
      if (!next.ok) {
        options.transport.penalize(peer, next.code);
        return false;
      }
      at = next.value;
      proven.starts.push(next.value as CertifiedStart);
      proven.ends.push(end);
      // Many signatures each: others want this thread, too.
      await sleep(options.clock, 0);
    }
    return true;
  };
  for (const peer of options.transport.peers()) {
    while (!options.signal.aborted) {
      const ends = await ask(peer, at.epoch);
      if (!ends.ok || ends.value.length === 0 || !(await take(ends.value, peer))) break;
    }
  }
  return proven;
}
