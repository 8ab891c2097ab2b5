/**
 * The state of one consensus replica and the small questions everything else asks of it. Plain data: the rules live in
 * the files named for them, and call `changed()` when something happened that may let the replica move on.
 */
import type { KeyPair } from '../identity/keys.ts';
import type { Clock } from '../std/clock.ts';
import type { Tip } from './chain.ts';
import type { Journal, VotingRecord } from './journal.ts';
import type { ConsensusLimits, ConsensusTiming } from './limits.ts';
import { includesHonest, leaderOf, type MemberSet } from './members.ts';
import { encodeMessage, type Message } from './messages.ts';
import { type HeightTally, newTally } from './tally.ts';
import type { Application, DecidedBlock, Evidence, SignatureScheme } from './types.ts';

/** What concerns the current height only, and is dropped with it. */
export interface View {
  active: boolean;
  readonly abort: AbortController;
  readonly timers: Set<() => void>;
  /** The application's judgement of the leader's proposals, by block hash. */
  readonly checks: Map<string, 'checking' | 'valid' | 'refused'>;
  /** The application was asked for a payload: `asking`, or it had none until it wakes us. */
  proposing: 'no' | 'asking' | 'nothing';
  /** A leader leaves its predecessors this long to be decided before it adds a filler. */
  fillerDue: boolean;
}

export interface ConsensusState {
  readonly networkId: Uint8Array;
  readonly members: MemberSet;
  /** Index in the member list, or -1 for an observer. */
  readonly me: number;
  readonly key: KeyPair | undefined;
  readonly clock: Clock;
  readonly limits: ConsensusLimits;
  readonly timing: ConsensusTiming;
  readonly signatures: SignatureScheme;
  readonly application: Application;
  readonly journal: Journal;
  readonly transmit: (message: Uint8Array) => void;
  /** Runs the rules until nothing moves; safe to call at any time. */
  readonly changed: () => void;

  /** Heights above the decided tip of which anything is known. */
  readonly tallies: Map<number, HeightTally>;
  /** Newest decided blocks, ascending. */
  readonly decided: DecidedBlock[];
  tip: Tip;
  height: number;
  record: VotingRecord;
  view: View;
  awake: boolean;
  /** For each member the height it has shown to have reached. */
  readonly progress: number[];
  /** When a certificate or decided block of a height was last heard from anyone; in milliseconds. */
  readonly heard: Map<number, number>;
  /** Heights about which we are going to say what we know. */
  readonly assists: Map<number, { withBlocks: boolean; cancel: () => void }>;
  /** How often an answer about a height was withheld because somebody else seemed to give it. */
  readonly withheld: Map<number, number>;
  catchUp: { attempt: number; height: number; cancel: () => void } | undefined;
  /** Makes the bytes of every retransmission new. */
  attempts: number;
  readonly evidence: Evidence[];
  readonly deliveries: DecidedBlock[];
  /** Decided payloads that the application has not taken yet, those on their way to the journal included. */
  unapplied: number;
  delivering: boolean;
  appliedHeight: number;
  phase: 'opened' | 'running' | 'stopped' | 'failed';
  /** `silent` follows and helps, and says nothing of its own; `retired` only helps. */
  voice: 'votes' | 'silent' | 'retired';
  /** Of the chain's last block, once retired. */
  endHeight: number;
}

export function newView(): View {
  return {
    active: false,
    abort: new AbortController(),
    timers: new Set(),
    checks: new Map(),
    proposing: 'no',
    fillerDue: false,
  };
}

export function tallyAt(r: ConsensusState, height: number): HeightTally {
  let tally = r.tallies.get(height);
  if (!tally) r.tallies.set(height, (tally = newTally(height)));
  return tally;
}

/** A member speaks at its current height only, and never below one where it spoke before a restart. */
export function maySpeak(r: ConsensusState): boolean {
  return r.phase === 'running' && r.voice === 'votes' && r.me >= 0 && r.record.height === r.height;
}

export function isLeader(r: ConsensusState): boolean {
  return leaderOf(r.members, r.height) === r.me;
}

/** Δ at the current height: grows with every height since the last decision. */
export function deltaMs(r: ConsensusState): number {
  const { deltaMs: base, deltaGrowth, deltaMsMax } = r.timing;
  return grown(base, deltaGrowth, r.height - 1 - r.tip.height, deltaMsMax);
}

/** `base` multiplied `times` times, at most `most`; by plain multiplication, so that a simulation replays anywhere. */
export function grown(base: number, factor: number, times: number, most: number): number {
  let value = Math.min(base, most);
  for (let i = 0; i < times && value < most; i++) value = Math.min(value * factor, most);
  return value;
}

export function send(r: ConsensusState, message: Message, again = false): void {
  if (r.phase !== 'running') return;
  r.transmit(encodeMessage(message, again ? ++r.attempts : 0));
}

/** Whether some notarized block below the current height still waits for its decision. */
export function tipUndecided(r: ConsensusState): boolean {
  for (const tally of r.tallies.values()) if (tally.height < r.height && tally.certificates.vote) return true;
  return false;
}

/** The highest height that members with at least a third of the weight have reached: one of them is honest. */
export function heightOfOthers(r: ConsensusState): number {
  const heights = r.progress
    .map((height, member) => ({ height, weight: member === r.me ? 0 : r.members.list[member]!.weight }))
    .sort((a, b) => b.height - a.height);
  let weight = 0;
  for (const one of heights) {
    weight += one.weight;
    if (includesHonest(r.members, weight)) return one.height;
  }
  return 0;
}

export function everyoneBeyond(r: ConsensusState, height: number): boolean {
  return r.progress.every((reached, member) => member === r.me || reached > height);
}

/** Notes that the member has spoken at `height`, or left it by a finalize vote. Verified statements only. */
export function noteProgress(r: ConsensusState, member: number, height: number): void {
  r.progress[member] = Math.max(r.progress[member]!, height);
}

const heardHeightsMax = 256;

export function noteHeard(r: ConsensusState, height: number): void {
  r.heard.delete(height);
  r.heard.set(height, r.clock.nowMs());
  if (r.heard.size > heardHeightsMax) r.heard.delete(r.heard.keys().next().value!);
}

/** A timer that dies with the view. */
export function viewTimer(r: ConsensusState, delayMs: number, callback: () => void): void {
  const { timers } = r.view;
  const cancel = r.clock.setTimer(delayMs, () => {
    timers.delete(cancel);
    if (r.phase === 'running') callback();
  });
  timers.add(cancel);
}

export function closeView(r: ConsensusState): void {
  for (const cancel of r.view.timers) cancel();
  r.view.timers.clear();
  r.view.abort.abort();
}

export function haltTimers(r: ConsensusState): void {
  closeView(r);
  for (const { cancel } of r.assists.values()) cancel();
  r.assists.clear();
  r.catchUp?.cancel();
  r.catchUp = undefined;
}

/** Ends the replica for good: it can no longer keep its promises. */
export function fail(r: ConsensusState, error: unknown): void {
  if (r.phase === 'failed' || r.phase === 'stopped') return;
  r.phase = 'failed';
  haltTimers(r);
  r.application.failed?.(error);
}
