/**
 * Guilt and what it costs: stake, also on its way back, vesting rewards and bond; half for who found it out, half burned.
 * What lies in duties is forfeited, and burned whole. The guilty earn nothing any more. Source: docs/proofs.md, Slashing.
 */
import { changeStake, takeStake } from './bonding.ts';
import type { Draft } from './draft.ts';
import { accountOf, burn, credit, numberKey, shareOf } from './money.ts';
import type { BlockContext } from './rules.ts';
import type { Amount, SlashRow } from './tables.ts';
import { newProver } from './vesting.ts';

export type SlashReason =
  | 'false-proof'
  | 'withheld-evidence'
  | 'false-verdict'
  | 'driver-fraud'
  | 'equivocation';

export interface Guilt {
  readonly node: string;
  readonly reason: SlashReason;
  /** Who found it out, in equal shares; nobody: all is burned. The guilty, and other convicts, earn nothing here. */
  readonly reporters: readonly string[];
  /** Of a node that is neither prover nor member: its conviction needs a row. */
  readonly publicKey?: Uint8Array;
}

export function isConvicted(draft: Pick<Draft, 'get'>, node: string): boolean {
  return draft.get('prover', node)?.convicted ?? false;
}

/** Takes everything from a guilty node, records why, and convicts it. What was taken, in micro-NEURO. */
export function convict(draft: Draft, context: BlockContext, guilt: Guilt): Amount {
  const { node, reason } = guilt;
  const seized = seize(draft, node, context.timeMs);
  const forfeited = forfeitDuties(draft, node);
  const reporters = guilt.reporters.filter((reporter) => reporter !== node && !isConvicted(draft, reporter));
  const share =
    reporters.length === 0
      ? 0n
      : shareOf(seized, context.constants.policy.reporterShare) / BigInt(reporters.length);
  for (const reporter of reporters) credit(draft, reporter, share);
  burn(draft, seized + forfeited - share * BigInt(reporters.length));
  const amount = seized + forfeited;
  recordSlash(draft, context, { node, reason, amount, reporter: reporters[0] ?? null });
  markConvicted(draft, guilt);
  return amount;
}

/** For everybody to read. */
export function recordSlash(draft: Draft, { number }: BlockContext, row: SlashRow): void {
  const height = numberKey(number);
  const index = draft.keys('slash', `${height}/`).length;
  draft.put('slash', `${height}/${String(index).padStart(4, '0')}`, row);
}

/** Stake, unbonding stake, vesting and bond, out of their rows. */
function seize(draft: Draft, node: string, timeMs: number): Amount {
  const stake = takeStake(draft, node, timeMs);
  const prover = draft.get('prover', node);
  if (!prover) return stake;
  draft.put('prover', node, { ...prover, vesting: [], bond: 0n });
  return stake + prover.bond + prover.vesting.reduce((sum, [, amount]) => sum + amount, 0n);
}

/**
 * Nothing of a guilty node is audited further. Rewards under audit never go to a reporter: they may be for work that was
 * never done, and a node could report itself under another name.
 */
function forfeitDuties(draft: Draft, node: string): Amount {
  let forfeited = 0n;
  for (const key of draft.keys('duty')) {
    const duty = draft.get('duty', key)!;
    if (duty.prover !== node) continue;
    forfeited += duty.reward;
    draft.delete('duty', key);
  }
  return forfeited;
}

function markConvicted(draft: Draft, { node, publicKey }: Guilt): void {
  const known = draft.get('prover', node);
  const key = publicKey ?? draft.get('member', node)?.publicKey;
  if (!known && !key) return;
  draft.put('prover', node, { ...(known ?? newProver(key!)), openDuties: 0, convicted: true });
}

/** For the silent: a small part of the stake, burned, without a record; as much as there is. */
export function penalize(draft: Draft, node: string, amount: Amount): void {
  const { stake } = accountOf(draft, node);
  const lost = stake < amount ? stake : amount;
  if (lost === 0n) return;
  changeStake(draft, node, -lost);
  burn(draft, lost);
}
