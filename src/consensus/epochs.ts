/**
 * Consensus with members that change: one Simplex replica for each epoch, the next begun only when the last block of the
 * one before is final. That block names the next members and the application's state, so those who leave certify those
 * who come. Owns no clock, network or disk, and does not know why an epoch ends.
 */
import { equalBytes } from '../std/bytes.ts';
import { CodedError, type Outcome, reject } from '../std/outcome.ts';
import { noHash } from './certificate.ts';
import { decodeEpochEnd, encodeStart, startAfter } from './epoch-end.ts';
import { openEpochJournal } from './epoch-journal.ts';
import {
  type EpochsState,
  endOf,
  failAll,
  mismatch,
  openSlot,
  type Slot,
  type SlotOptions,
} from './epoch-state.ts';
import type {
  EpochRun,
  EpochStart,
  EpochsOptions,
  EpochsReplica,
  EpochsStatus,
  Position,
} from './epoch-types.ts';
import { decodeEnvelope, encodeEnvelope, encodeRun, envelopeBytes } from './epoch-wire.ts';
import { defaultLimits, defaultTiming } from './limits.ts';
import { encodeMessage } from './messages.ts';
import { grown } from './state.ts';
import type { DecidedBlock } from './types.ts';

/**
 * Resumes in the epoch of `applied`, or in the newest one the store knows, or begins with `start`. Throws CodedError
 * `bad-members`, `consensus-store-damaged`, `consensus-store-foreign` (the store began that epoch otherwise) or
 * `epoch-unknown` (the application stands in an epoch that neither the store nor `start` describes).
 */
export async function createEpochs(options: EpochsOptions): Promise<EpochsReplica> {
  const limits = { ...defaultLimits, ...options.limits };
  const journal = openEpochJournal(options.store, options.networkId, limits);
  const starts = await journal.starts();
  const newest = Math.max(-1, ...starts.keys());
  const start = resumeAt(options, starts, newest);
  const s: EpochsState = {
    options,
    application: options.application,
    clock: options.clock,
    // An envelope is put around every message.
    limits: { ...limits, messageBytesMax: limits.messageBytesMax - envelopeBytes },
    timing: { ...defaultTiming, ...options.timing },
    journal,
    newestAtStart: newest,
    slots: new Map(),
    current: undefined as unknown as Slot,
    awake: false,
    evidence: [],
    early: [],
    lag: { cancel: undefined, at: { epoch: 0, height: 0 }, attempts: 0, heard: false, sent: 0 },
    housekeeping: Promise.resolve(),
    phase: 'running',
  };
  if (!starts.has(start.epoch)) await journal.putStart(start);
  await reopenEnded(s, starts, start.epoch);
  const { applied } = options;
  const appliedHeight = applied?.epoch === start.epoch ? applied.height : undefined;
  await enter(s, start, { ended: endEpoch(s), ...(appliedHeight !== undefined && { appliedHeight }) });
  forgetOld(s);
  return replicaOf(s);
}

function resumeAt(
  { applied, start }: EpochsOptions,
  starts: ReadonlyMap<number, EpochStart>,
  newest: number,
): EpochStart {
  const epoch = Math.max(applied?.epoch ?? newest, start.epoch);
  const known = starts.get(epoch);
  if (known && start.epoch === epoch && !equalBytes(encodeStart(known), encodeStart(start))) {
    throw new CodedError(
      'consensus-store-foreign',
      `the consensus store began epoch ${epoch} with another block`,
    );
  }
  if (known) return known;
  if (start.epoch === epoch) return start;
  throw new CodedError('epoch-unknown', `nothing is known of how epoch ${epoch} began`);
}

/** Those whose end is known stay to help, as far back as they are kept. */
async function reopenEnded(
  s: EpochsState,
  starts: ReadonlyMap<number, EpochStart>,
  current: number,
): Promise<void> {
  const ended: Slot[] = [];
  for (let epoch = current - 1; epoch >= current - s.limits.epochsKept; epoch--) {
    const start = starts.get(epoch);
    const end = start && (await s.journal.end(epoch));
    if (!end) break;
    ended.unshift(await openSlot(s, start, { endHeight: end.blocks[0]!.block.height, ended: endEpoch(s) }));
  }
  for (const slot of ended) {
    s.slots.set(slot.start.epoch, slot);
    openLater(s, slot);
  }
}

/** Makes the epoch the current one; true unless the node was stopped meanwhile. */
async function enter(s: EpochsState, start: EpochStart, options: SlotOptions): Promise<boolean> {
  const slot = await openSlot(s, start, options);
  if (s.phase !== 'running') {
    await slot.replica.stop();
    return false;
  }
  s.slots.set(start.epoch, slot);
  s.current = slot;
  openLater(s, slot);
  return true;
}

/** After the replica itself, which begins in the clock's next turn. */
function openLater(s: EpochsState, slot: Slot): void {
  s.clock.setTimer(0, () => {
    if (s.phase !== 'running') return;
    slot.open = true;
    if (slot !== s.current) return;
    if (s.awake) slot.replica.wake();
    askIfVoiceless(s);
    endOf(s, slot).then(
      (end) => {
        if (end) slot.replica.wake();
      },
      (error) => failAll(s, error),
    );
    for (const { epoch, from, message } of s.early.splice(0)) {
      if (epoch === slot.start.epoch) slot.replica.receive(from, message);
    }
  });
}

/** What to do at the last block of an epoch; it runs while the block is being delivered, so it is done at most once. */
function endEpoch(s: EpochsState): (slot: Slot, decided: DecidedBlock) => Promise<void> {
  return async (slot, decided) => {
    const { epoch } = slot.start;
    const own = await endOf(s, slot);
    if (!own || !equalBytes(own, decided.block.payload)) throw mismatch(epoch);
    const end = decodeEpochEnd(own, s.limits);
    if (!end.ok) throw mismatch(epoch);
    const start = startAfter(end.value, decided.hash);
    const after = slot.replica.decidedSince(decided.block.height - 1);
    const certified = after.findIndex(({ certificate }) => certificate !== undefined);
    // Each is durable before the next can be relied on: nobody speaks in an epoch whose beginning it could forget.
    await s.journal.putEnd({ epoch, blocks: after.slice(0, certified + 1) });
    await s.journal.putStart(start);
    slot.replica.retire(decided.block.height);
    if (!(await enter(s, start, { ended: endEpoch(s) }))) return;
    forgetOld(s);
    s.application.began?.(start);
  };
}

function forgetOld(s: EpochsState): void {
  const current = s.current.start.epoch;
  const blocks = current - s.limits.epochsKept;
  const old = [...s.slots.values()].filter(({ start }) => start.epoch < blocks);
  for (const { start } of old) s.slots.delete(start.epoch);
  s.housekeeping = s.housekeeping.then(async () => {
    for (const { replica } of old) await replica.stop();
    await s.journal.prune({ blocks, ends: current - s.limits.epochEndsKept });
  });
  s.housekeeping.catch((error) => failAll(s, error));
}

function replicaOf(s: EpochsState): EpochsReplica {
  return {
    receive: (from, message) => receiveEnvelope(s, from, message),
    wake() {
      s.awake = true;
      s.current.replica.wake();
      askIfVoiceless(s);
    },
    status: (): EpochsStatus => ({
      ...s.current.replica.status(),
      epoch: s.current.start.epoch,
      ending: s.current.ending,
      failed: s.phase === 'failed',
    }),
    decidedSince: (position) => decidedSince(s, position),
    adopt: (run) => adoptRun(s, run),
    endsSince: (epoch) => endsSince(s, epoch),
    start: () => s.current.start,
    evidence: () => s.evidence.slice(),
    async stop() {
      if (s.phase === 'running') s.phase = 'stopped';
      s.lag.cancel?.();
      await Promise.all([...s.slots.values()].map(({ replica }) => replica.stop()));
      await s.housekeeping.catch(() => {});
    },
  };
}

function receiveEnvelope(s: EpochsState, from: string, bytes: Uint8Array): Outcome<void> {
  if (s.phase !== 'running') return reject('not-running');
  const envelope = decodeEnvelope(bytes, {
    ...s.limits,
    messageBytesMax: s.limits.messageBytesMax + envelopeBytes,
  });
  if (!envelope.ok) return envelope;
  const { epoch, message } = envelope.value;
  const slot = s.slots.get(epoch);
  if (slot?.open) return slot.replica.receive(from, message);
  const current = s.current.start.epoch;
  if (epoch < current) return reject('old-epoch', `${epoch}`);
  if (epoch > current) hearOfLater(s);
  if (epoch > current + 1) return reject('later-epoch', `${epoch}`);
  // Nothing in it can be checked yet; at worst it keeps out a message that will be said again.
  s.early.push({ epoch, from, message });
  if (s.early.length > s.limits.earlyMessagesMax) s.early.shift();
  return reject('early', `${epoch}`);
}

/** Somebody speaks of a later epoch, perhaps truly. */
function hearOfLater(s: EpochsState): void {
  s.lag.heard = true;
  askLater(s, s.timing.deltaMs / 2);
}

/**
 * A node without a vote that wants a decision cannot know whether nobody decides, or whether it missed the end of its
 * epoch and is one of the next members that all others wait for. So it asks.
 */
function askIfVoiceless(s: EpochsState): void {
  if (s.awake && !s.current.replica.status().member) askLater(s, 4 * s.timing.deltaMs);
}

/** Asks for what follows here, if nothing moves meanwhile; at growing intervals while that stays so. */
function askLater(s: EpochsState, firstMs: number): void {
  const { lag, timing } = s;
  if (lag.cancel) return;
  const { epoch } = s.current.start;
  const height = s.current.replica.status().decidedHeight;
  if (lag.at.epoch !== epoch || lag.at.height !== height) {
    lag.at = { epoch, height };
    lag.attempts = 0;
  }
  const delayMs = grown(firstMs, timing.retransmitGrowth, lag.attempts++, timing.retransmitMsMax);
  lag.cancel = s.clock.setTimer(delayMs, () => {
    lag.cancel = undefined;
    if (s.phase !== 'running') return;
    const { replica, start } = s.current;
    if (start.epoch === epoch && replica.status().decidedHeight === height && !replica.applying()) ask(s);
    lag.heard = false;
    askIfVoiceless(s);
  });
}

function ask(s: EpochsState): void {
  const { epoch, height } = s.lag.at;
  if (s.lag.heard) {
    const wanted = { type: 'want', height: height + 1, hash: noHash } as const;
    s.options.broadcast(encodeEnvelope(epoch, encodeMessage(wanted, ++s.lag.sent)));
  }
  s.application.behind?.({ epoch: epoch + 1, height: 0 });
}

function decidedSince(s: EpochsState, position: Position): EpochRun {
  for (const [epoch, { replica }] of s.slots) {
    if (epoch < position.epoch) continue;
    const blocks = replica.decidedSince(epoch === position.epoch ? position.height : 0);
    if (blocks.length > 0) return { epoch, blocks };
  }
  return { epoch: s.current.start.epoch, blocks: [] };
}

function adoptRun(s: EpochsState, run: EpochRun): Outcome<void> {
  if (s.phase !== 'running' || !s.current.open) return reject('not-running');
  const { replica, start } = s.current;
  if (run.epoch < start.epoch || run.blocks.length === 0) return reject('nothing-new');
  if (run.epoch === start.epoch) return replica.adopt(run.blocks);
  if (replica.applying()) return reject('busy', 'the end of this epoch waits to be applied');
  return reject('epoch-pruned', `epoch ${run.epoch}, here ${start.epoch}`);
}

/** As many as fit into one answer. */
async function endsSince(s: EpochsState, from: number): Promise<readonly EpochRun[]> {
  const ends: EpochRun[] = [];
  let bytes = 0;
  for (let epoch = from; ends.length < s.limits.catchUpBlocksMax; epoch++) {
    const end = await s.journal.end(epoch);
    if (!end) break;
    bytes += encodeRun(end).length;
    if (bytes > s.limits.catchUpBytesMax) break;
    ends.push(end);
  }
  return ends;
}
