/**
 * The state of consensus over epochs, and the replica of one epoch in it: what it asks of the application and what it
 * hands on. When epochs change, `epochs.ts` says.
 */

import { equalBytes } from '../std/bytes.ts';
import type { Clock } from '../std/clock.ts';
import { CodedError } from '../std/outcome.ts';
import { encodeEpochEnd, epochDomain, isEpochEnd } from './epoch-end.ts';
import type { EpochJournal } from './epoch-journal.ts';
import type { EpochApplication, EpochStart, EpochsOptions, Equivocation, Position } from './epoch-types.ts';
import { encodeEnvelope } from './epoch-wire.ts';
import { encodeEvidence } from './equivocation.ts';
import type { ConsensusLimits, ConsensusTiming } from './limits.ts';
import { type MemberSet, memberSet } from './members.ts';
import { createConsensusReplica } from './replica.ts';
import type { Application, DecidedBlock, EndingReplica, Evidence } from './types.ts';

/** One epoch here. Those before the current one only help who lags. */
export interface Slot {
  readonly start: EpochStart;
  readonly members: MemberSet;
  readonly replica: EndingReplica;
  /** Its replica has begun. */
  open: boolean;
  /** The payload that ends the epoch, once the application says so; asked again after every decision. */
  end: Promise<Uint8Array | undefined> | undefined;
  ending: boolean;
}

export interface EpochsState {
  readonly options: EpochsOptions;
  readonly application: EpochApplication;
  readonly clock: Clock;
  readonly limits: ConsensusLimits;
  readonly timing: ConsensusTiming;
  readonly journal: EpochJournal;
  /** In earlier epochs this node may have forgotten what it said, so it says nothing there. */
  readonly newestAtStart: number;
  /** By epoch, ascending and without a gap; the last is the current one. */
  readonly slots: Map<number, Slot>;
  current: Slot;
  /** `wake` was called since the last payload was decided. */
  awake: boolean;
  readonly evidence: Equivocation[];
  readonly early: { readonly epoch: number; readonly from: string; readonly message: Uint8Array }[];
  /** When and from where we ask for what we may have missed, and whether somebody spoke of a later epoch since. */
  readonly lag: {
    cancel: (() => void) | undefined;
    at: Position;
    attempts: number;
    heard: boolean;
    sent: number;
  };
  /** Forgetting of old epochs, one after the other. */
  housekeeping: Promise<void>;
  phase: 'running' | 'stopped' | 'failed';
}

export interface SlotOptions {
  readonly appliedHeight?: number;
  /** Height at which the epoch ended: the replica only helps those who lag. */
  readonly endHeight?: number;
  /** The epoch's last block, certified. */
  readonly ended: (slot: Slot, decided: DecidedBlock) => Promise<void>;
}

/** Opens the replica of an epoch; it begins in the clock's next turn. */
export async function openSlot(s: EpochsState, start: EpochStart, options: SlotOptions): Promise<Slot> {
  const { epoch, members, root } = start;
  const { appliedHeight, endHeight } = options;
  const retired = endHeight !== undefined;
  const replica: EndingReplica = await createConsensusReplica({
    ...s.options,
    networkId: epochDomain(s.options.networkId, epoch),
    members,
    root,
    silent: retired || epoch < s.newestAtStart,
    store: s.journal.storeOf(epoch),
    limits: s.limits,
    ...(retired && { appliedHeight: Number.MAX_SAFE_INTEGER }),
    ...(appliedHeight !== undefined && { appliedHeight }),
    broadcast: (message) => {
      if (s.phase === 'running') s.options.broadcast(encodeEnvelope(epoch, message));
    },
    application: slotApplication(s, () => slot, options),
  });
  const slot: Slot = {
    start,
    members: memberSet(members, s.limits.membersMax),
    replica,
    open: false,
    end: undefined,
    ending: false,
  };
  if (retired) replica.retire(endHeight);
  return slot;
}

/** Between the replica and the application: payloads never stack, and when the epoch ends its last block is ours. */
function slotApplication(s: EpochsState, slot: () => Slot, { ended }: SlotOptions): Application {
  const { application } = s;
  return {
    async propose(context) {
      if (context.undecided.length > 0) return undefined;
      const end = await endOf(s, slot());
      if (end) return end;
      const payload = await application.propose(context);
      return payload && isEpochEnd(payload) ? undefined : payload;
    },
    async validate(payload, context) {
      // Judged again once what is undecided has been applied.
      if (context.undecided.length > 0) return false;
      const end = await endOf(s, slot());
      if (end || isEpochEnd(payload)) return end !== undefined && equalBytes(end, payload);
      return application.validate(payload, context);
    },
    async decided(decided) {
      if (isEpochEnd(decided.block.payload)) return ended(slot(), decided);
      s.awake = false;
      await application.decided(decided, slot().start.epoch);
      slot().end = undefined;
      if (await endOf(s, slot())) slot().replica.wake();
    },
    evidence: (evidence) => noteEvidence(s, slot(), evidence),
    coming: (payloads) => application.coming?.(payloads),
    behind: (height) => application.behind?.({ epoch: slot().start.epoch, height }),
    failed: (error) => failAll(s, error),
  };
}

/** The payload that ends the slot's epoch: undefined while the application sees no end. */
export function endOf(s: EpochsState, slot: Slot): Promise<Uint8Array | undefined> {
  const ask = async () => {
    const next = await s.application.nextEpoch(slot.start.epoch);
    slot.ending = next !== undefined;
    return next && encodeEpochEnd(slot.start.epoch, next, s.limits);
  };
  slot.end ??= ask();
  return slot.end;
}

function noteEvidence(s: EpochsState, slot: Slot, evidence: Evidence): void {
  const { epoch } = slot.start;
  const { networkId } = s.options;
  const equivocation = encodeEvidence(evidence, {
    networkId,
    epoch,
    members: slot.members,
    limits: s.limits,
  });
  s.evidence.push(equivocation);
  if (s.evidence.length > s.limits.evidenceMax) s.evidence.shift();
  s.application.evidence?.(equivocation);
}

/** Ends everything: what one epoch's replica cannot promise any more, the node cannot. */
export function failAll(s: EpochsState, error: unknown): void {
  if (s.phase !== 'running') return;
  s.phase = 'failed';
  s.lag.cancel?.();
  for (const { replica } of s.slots.values()) void replica.stop();
  s.application.failed?.(error);
}

export function mismatch(epoch: number): CodedError {
  return new CodedError(
    'epoch-mismatch',
    `the members ended epoch ${epoch} with a state that this node has not computed`,
  );
}
