/**
 * Who votes when in the consensus scenario: member lists that come round again and again, each epoch lasting a few
 * rounds. Every node derives the same from its own log, as it would from the stake in a ledger's state.
 */
import { genesisHash } from '../../src/consensus/block.ts';
import type { EpochStart, NextEpoch } from '../../src/consensus/epoch-types.ts';
import type { Member } from '../../src/consensus/types.ts';
import { encodeCanonical } from '../../src/std/codec.ts';
import { sha256 } from '../../src/std/hash.ts';

/** A decided round as an application's log keeps it. */
export type LogEntry = readonly [epoch: number, height: number, round: number];

export interface Schedule {
  readonly start: EpochStart;
  /** Rounds of one epoch; infinite for members that never change. */
  readonly rounds: number;
  membersOf(epoch: number): readonly Member[];
  /** What the log says about the end of the epoch. */
  nextEpoch(log: readonly LogEntry[], epoch: number): NextEpoch | undefined;
}

export function createSchedule(lists: readonly (readonly Member[])[], rounds: number): Schedule {
  const membersOf = (epoch: number) => lists[epoch % lists.length]!;
  return {
    start: { epoch: 0, members: membersOf(0), root: genesisHash },
    rounds,
    membersOf,
    nextEpoch(log, epoch) {
      if (log.filter(([of]) => of === epoch).length < rounds) return undefined;
      const until = log.filter(([of]) => of <= epoch);
      return { members: membersOf(epoch + 1), stateRoot: logRoot(until), timeMs: 1_000 * until.length };
    },
  };
}

export function logRoot(log: readonly LogEntry[]): Uint8Array {
  return sha256(encodeCanonical(log));
}

export function readLog(value: unknown): LogEntry[] | undefined {
  if (!Array.isArray(value)) return undefined;
  const entry = (item: unknown) =>
    Array.isArray(item) && item.length === 3 && item.every((part) => Number.isSafeInteger(part));
  return value.every(entry) ? (value as LogEntry[]) : undefined;
}
