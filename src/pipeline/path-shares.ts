/**
 * Whose sum gives way when a stage has no room for another path: the rule by which callers and Drivers share the few
 * places there are. A key costs nothing, so places are counted by caller, and Drivers that are members come first. Pure:
 * it ends no path itself.
 */
import type { NodeId } from '../net/transport.ts';

export interface PathUse {
  /** Who sends its microbatches: the Driver itself, or a stage between. */
  readonly caller: NodeId;
  /** Its Driver is a member of the network. */
  readonly isMember: boolean;
  /** Last asked for anything; now, where it is being worked on. */
  readonly heardMs: number;
  /** Its last step was taken; −∞ before the first. */
  readonly takenMs: number;
}

/** Unheard of for so long, it gives way to anyone: a Driver that is at work sends several microbatches in that time. */
export const idleMs = 20_000;
/** And for so long to another of the same caller, which knows best whom it still works for. */
export const ownIdleMs = 5_000;

/**
 * The path that gives way to a new one of this caller; undefined when none does. Those who may be put out, in this order:
 * not of a member, idle, of the caller with the most paths, the longest without a step, the longest unheard of. A path in
 * use gives way to a member's only if it is not a member's, and to a caller's only if that caller has two paths fewer: so a
 * change never turns round, and no caller can hold what others ask for.
 */
export function pathToYield<T extends PathUse>(
  paths: readonly T[],
  wanted: Pick<PathUse, 'caller' | 'isMember'>,
  nowMs: number,
): T | undefined {
  const counts = new Map<NodeId, number>();
  for (const { caller } of paths) counts.set(caller, (counts.get(caller) ?? 0) + 1);
  const countOf = (caller: NodeId) => counts.get(caller) ?? 0;
  const isIdle = ({ caller, heardMs }: T) =>
    nowMs - heardMs >= (caller === wanted.caller ? ownIdleMs : idleMs);
  const mayYield = (path: T) => {
    if (isIdle(path)) return true;
    if (path.isMember !== wanted.isMember) return wanted.isMember;
    return countOf(path.caller) >= countOf(wanted.caller) + 2;
  };
  const inOrder = (a: T, b: T) =>
    Number(a.isMember) - Number(b.isMember) ||
    Number(isIdle(b)) - Number(isIdle(a)) ||
    countOf(b.caller) - countOf(a.caller) ||
    compare(a.takenMs, b.takenMs) ||
    compare(a.heardMs, b.heardMs);
  return paths.filter(mayYield).sort(inOrder)[0];
}

function compare(a: number, b: number): number {
  if (a === b) return 0;
  return a < b ? -1 : 1;
}
