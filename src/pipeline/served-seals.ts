/**
 * What a stage signs for its callers, and what it has them sign before it takes a step: so that each neighbour holds the
 * other's word for what went over their boundary, in both directions. It serves nothing and blames nobody.
 */
import type { NodeId } from '../net/transport.ts';
import { accept, type Outcome, reject } from '../std/outcome.ts';
import type { SealedSums } from './messages.ts';
import { type Exchange, isReceiptOf, type Seal, type Signing, signAnswer, signSums } from './seals.ts';
import type { Path, StageNode } from './stage-node.ts';
import { travelled } from './step-records.ts';

/** A stage that serves has neighbours, and signs. */
export type ServingNode = StageNode & { readonly signing: Signing };

/** Notes what came and what goes back for one microbatch, and signs it. */
export function sealAnswer(
  { stage, signing, records }: ServingNode,
  path: Path,
  caller: NodeId,
  { index, ...bytes }: { readonly index: number; readonly rows: Uint8Array; readonly gradient: Uint8Array },
): Seal {
  const isKept = records !== undefined;
  const rows = travelled(bytes.rows, isKept);
  const gradient = travelled(bytes.gradient, isKept);
  path.received.set(index, { rows, gradient });
  const { driver, round, step } = path;
  const exchange = { index, rows: rows.hash, gradient: gradient.hash };
  return signAnswer(signing.networkId, { stage, caller, driver, round, step, ...exchange }, signing.key);
}

/**
 * `unknown-microbatch`; `wrong-receipt`: the caller has not signed what came from it, and went back, for exactly these
 * microbatches. Nobody could be shown what the step was made of.
 */
export function checkReceipt(
  { stage, signing }: ServingNode,
  { driver, round, step, received }: Path,
  caller: NodeId,
  { ids, receipt }: { readonly ids: readonly number[]; readonly receipt: Seal },
): Outcome<void> {
  const exchanges: Exchange[] = [];
  for (const index of ids) {
    const known = received.get(index);
    if (!known) return reject('unknown-microbatch', String(index));
    exchanges.push({ index, rows: known.rows.hash, gradient: known.gradient.hash });
  }
  const { networkId, key } = signing;
  const body = { stage, driver, round, step, callee: key.nodeId, exchanges };
  return isReceiptOf(caller, networkId, body, receipt) ? accept(undefined) : reject('wrong-receipt');
}

export function sealSums(
  { stage, signing }: ServingNode,
  { driver, round, step }: Path,
  caller: NodeId,
  { ids, sums }: { readonly ids: readonly number[]; readonly sums: readonly number[] },
): SealedSums {
  const body = { stage, caller, driver, round, step, ids, sums };
  return { sums, seal: signSums(signing.networkId, body, signing.key) };
}
