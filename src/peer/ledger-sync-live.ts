/**
 * The consensus that a node runs now. A node that is further behind than blocks can bring it, or that was given a
 * checkpoint, takes a certified state from others, and consensus is opened again there; the rest of the node only sees a
 * later state.
 */
import type { Checkpoint } from '../consensus/checkpoint.ts';
import { openEpochJournal } from '../consensus/epoch-journal.ts';
import type { EpochApplication, EpochStart, EpochsReplica } from '../consensus/epoch-types.ts';
import { createEpochs } from '../consensus/epochs.ts';
import { defaultLimits } from '../consensus/limits.ts';
import type { SignatureScheme } from '../consensus/types.ts';
import type { KeyPair } from '../identity/keys.ts';
import { chainOf } from '../ledger/money.ts';
import type { Transport } from '../net/transport.ts';
import { type Clock, sleep } from '../std/clock.ts';
import { CodedError, type Rejection } from '../std/outcome.ts';
import type { Store } from '../std/store.ts';
import { type ChainSync, connectChain } from './chain-sync.ts';
import type { EventSink } from './events.ts';
import type { LedgerKeeper } from './ledger.ts';
import { type LedgerSyncOptions, type SyncedLedger, syncLedger, type Trust } from './ledger-sync.ts';
import { serveLedgerSync } from './ledger-sync-serve.ts';

export interface LiveConsensusOptions {
  readonly key: KeyPair;
  readonly clock: Clock;
  readonly transport: Transport;
  /** Votes. */
  readonly store: Store;
  readonly ledger: LedgerKeeper;
  readonly application: Omit<EpochApplication, 'behind'>;
  /** When the network was founded; undefined where its manifest does not say. */
  readonly createdMs: number | undefined;
  /** Where a node begins that has not come so far. */
  readonly checkpoint?: Checkpoint;
  readonly events: EventSink;
  readonly signatures?: SignatureScheme;
}

export interface LiveConsensus {
  now(): EpochsReplica;
  stop(): Promise<void>;
}

/** Peers may still be connecting when a node begins at a checkpoint. */
const patienceMs = 60_000;
const retryMs = 1_000;
/** Blocks of consensus beside the ledger's in an epoch: its end, and fillers. */
const blocksBeside = 64;
const blocksKeptMax = 4_096;

interface Live extends LiveConsensusOptions {
  readonly sync: LedgerSyncOptions;
  readonly abort: AbortController;
  readonly chain: ChainSync;
  replica: EpochsReplica;
  /** Ends what the running replica hears and answers. */
  unserve: () => void;
  /** Consensus is being put elsewhere. */
  moving: Promise<void>;
  /** Why it could not join last time: said once. */
  reported: string;
}

/**
 * Opens consensus where the ledger stands, after it has been brought to the checkpoint. Throws CodedError as
 * `createEpochs` does, and with the codes of `syncLedger` when a node that needs the checkpoint cannot begin there.
 */
export async function runConsensus(options: LiveConsensusOptions): Promise<LiveConsensus> {
  const { transport, clock, ledger, signatures, checkpoint } = options;
  const { networkId, policy } = ledger.constants;
  const abort = new AbortController();
  const live: Live = {
    ...options,
    sync: { transport, clock, networkId, policy, signal: abort.signal, ...(signatures && { signatures }) },
    abort,
    chain: connectChain({ transport, networkId, jump: () => jump(live) }),
    replica: undefined as unknown as EpochsReplica,
    unserve: () => {},
    moving: Promise.resolve(),
    reported: '',
  };
  if (checkpoint && chainOf(ledger.state()).epoch < checkpoint.epoch)
    await install(live, await atCheckpoint(live, checkpoint));
  await open(live);
  const unserveSync = serveLedgerSync({ transport, store: ledger.store, consensus: () => live.replica });
  return {
    now: () => live.replica,
    stop: async () => {
      abort.abort(new CodedError('stopped', 'the node stops'));
      unserveSync();
      await live.moving.catch(() => undefined);
      live.unserve();
      await live.replica.stop();
    },
  };
}

/** Where the ledger stands. */
async function open(live: Live): Promise<void> {
  const { ledger, key, clock, store, chain, application, signatures } = live;
  const { networkId, policy } = ledger.constants;
  const replica = await createEpochs({
    networkId,
    start: ledger.firstEpoch(),
    key,
    clock,
    store,
    broadcast: chain.broadcast,
    application: { ...application, behind: (position) => chain.catchUp(live.replica, position) },
    applied: ledger.applied(),
    // With a snapshot of an epoch's beginning the blocks since are enough.
    limits: {
      decidedBlocksKept: Math.min(
        blocksKeptMax,
        Math.max(defaultLimits.decidedBlocksKept, 2 * policy.epochBlocks + blocksBeside),
      ),
    },
    ...(signatures && { signatures }),
  });
  live.replica = replica;
  live.unserve = chain.serve(replica);
}

/** Goes on in the newest epoch that peers can prove; undefined when there is none, or nobody gives its state. */
async function jump(live: Live): Promise<EpochsReplica | undefined> {
  const { replica, ledger, events, abort } = live;
  const own = replica.start();
  const found = await syncLedger(live.sync, await trustIn(own, live));
  if (abort.signal.aborted || replica.status().epoch !== own.epoch) return undefined;
  if (!found.ok) {
    report(live, found);
    return undefined;
  }
  const from = ledger.head().number;
  live.moving = move(live, found.value);
  await live.moving.catch((error) => {
    events({ type: 'warning', code: 'ledger-not-moved', detail: String(error) });
  });
  if (abort.signal.aborted || live.replica === replica || ledger.applied().epoch <= own.epoch)
    return undefined;
  live.reported = '';
  const detail = `away for too long: blocks ${from + 1} to ${ledger.head().number} are known by their result only`;
  events({ type: 'warning', code: 'blocks-skipped', detail });
  return live.replica;
}

/** The running replica says nothing any more before the ledger is elsewhere; if that fails it comes back. */
async function move(live: Live, found: SyncedLedger): Promise<void> {
  live.unserve();
  await live.replica.stop();
  try {
    await install(live, found);
  } finally {
    await open(live);
    // It begins in the clock's next turn, and takes nothing before.
    await sleep(live.clock, 0);
  }
}

/** The journal first: a node that is killed in between stands where it was, or knows how its new epoch began. */
async function install({ store, ledger }: Live, { start, head, state, ends }: SyncedLedger): Promise<void> {
  const journal = openEpochJournal(store, ledger.constants.networkId, defaultLimits);
  for (const end of ends) await journal.putEnd(end);
  await journal.putStart(start);
  await ledger.replace(head, state);
}

async function trustIn(start: EpochStart, { ledger, createdMs }: Live): Promise<Trust> {
  if (start.epoch === 0) return { kind: 'own', start, sinceMs: createdMs };
  const { state, store, constants } = ledger;
  const { epoch, epochStartMs, number } = chainOf(state());
  if (epoch === start.epoch) return { kind: 'own', start, sinceMs: epochStartMs };
  // The state already names the next epoch, which nobody has certified yet; this one began with its first block.
  const first = await store.block(number - constants.policy.epochBlocks + 1);
  return { kind: 'own', start, sinceMs: first?.timeMs ?? 0 };
}

async function atCheckpoint(live: Live, checkpoint: Checkpoint): Promise<SyncedLedger> {
  const { clock } = live;
  const untilMs = clock.nowMs() + patienceMs;
  for (;;) {
    const found = await syncLedger(live.sync, { kind: 'checkpoint', checkpoint });
    if (found.ok) return found.value;
    const { code, detail } = found;
    if (clock.nowMs() >= untilMs || code.startsWith('checkpoint-'))
      throw new CodedError(
        code,
        `cannot begin at checkpoint of epoch ${checkpoint.epoch}: ${detail || code}`,
      );
    await sleep(clock, retryMs);
  }
}

const advice = 'give a newer checkpoint of somebody you trust with --checkpoint';

function report(live: Live, { code, detail }: Rejection): void {
  if (code === live.reported) return;
  live.reported = code;
  const more = code === 'snapshot-unavailable' ? '' : `: ${advice}`;
  live.events({ type: 'warning', code, detail: `this node seems far behind the ledger: ${detail}${more}` });
}
