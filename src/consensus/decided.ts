/**
 * The decided chain: taking blocks into it, handing their payloads to the application in order, answering those who
 * were away, and taking their answers in turn. A certificate on the last block of a run vouches for all before it.
 */
import { equalBytes } from '../std/bytes.ts';
import { accept, type Outcome, reject } from '../std/outcome.ts';
import { blockHash } from './block.ts';
import { verifyCertificate } from './certificate.ts';
import { type ConsensusState, fail, noteHeard } from './state.ts';
import type { DecidedBlock } from './types.ts';
import { reconsider } from './voting.ts';

/** Extends the decided chain; the caller has checked links and certificate. Leaves the height to the caller. */
export function decide(r: ConsensusState, blocks: readonly DecidedBlock[]): void {
  const last = blocks.at(-1)!;
  r.decided.push(...blocks);
  r.tip = { height: last.block.height, hash: last.hash };
  for (const height of r.tallies.keys()) if (height <= r.tip.height) r.tallies.delete(height);
  const payloads = blocks.filter(({ block }) => block.payload.length > 0);
  if (payloads.length > 0) r.awake = false;
  r.unapplied += payloads.length;
  if (payloads.length > 1) r.application.coming?.(payloads.map(({ block }) => block.payload));
  r.journal.decided(blocks).then(
    () => {
      r.deliveries.push(...payloads);
      void deliver(r);
    },
    () => {},
  );
  prune(r);
}

/** One payload at a time, in order. */
export async function deliver(r: ConsensusState): Promise<void> {
  if (r.delivering) return;
  r.delivering = true;
  try {
    while (r.phase === 'running' && r.voice !== 'retired' && r.deliveries.length > 0) {
      const next = r.deliveries[0]!;
      // A wake before the application knew of this decision was meant for what is now decided.
      r.awake = false;
      await r.application.decided(next);
      r.deliveries.shift();
      r.appliedHeight = next.block.height;
      r.unapplied -= 1;
      r.journal.applied(r.appliedHeight);
      prune(r);
      // What the application refused, or had not to propose, it said of a past that is over.
      reconsider(r);
      r.changed();
    }
  } catch (error) {
    fail(r, error);
  } finally {
    r.delivering = false;
  }
}

/** Keeps the newest blocks, at least one certificate, and everything that was not delivered. */
function prune(r: ConsensusState): void {
  const excess = r.decided.length - r.limits.decidedBlocksKept;
  const undelivered = r.deliveries[0]?.block.height ?? Number.POSITIVE_INFINITY;
  const gone: number[] = [];
  for (const { block } of r.decided.slice(0, Math.max(0, excess))) {
    if (block.height >= undelivered) break;
    gone.push(block.height);
  }
  if (gone.length === 0) return;
  r.decided.splice(0, gone.length);
  r.journal.prune(gone);
}

/** The longest run of blocks above `height` within the bound that ends in a certificate. */
export function certifiedRun(
  decided: readonly DecidedBlock[],
  height: number,
  bound: { readonly blocks: number; readonly bytes: number },
): DecidedBlock[] {
  const run: DecidedBlock[] = [];
  let bytes = 0;
  let certified = 0;
  for (const item of decided) {
    if (item.block.height <= height) continue;
    bytes += bytesAbout(item);
    if (run.length >= bound.blocks || bytes > bound.bytes) break;
    run.push(item);
    if (item.certificate) certified = run.length;
  }
  return run.slice(0, certified);
}

function bytesAbout({ block, certificate }: DecidedBlock): number {
  return 128 + block.payload.length + (certificate ? 96 + 68 * certificate.signers.length : 0);
}

/** Checks a peer's decided blocks and takes those that are new. Codes as in `ConsensusReplica.adopt`. */
export function adoptBlocks(
  r: ConsensusState,
  blocks: readonly DecidedBlock[],
  jump: boolean,
): Outcome<void> {
  if (blocks.length > r.limits.catchUpBlocksMax) return reject('too-large', `${blocks.length} blocks`);
  for (const { block } of blocks) noteHeard(r, block.height);
  // Names are computed here: what a block is called never depends on who handed it over.
  const fresh = blocks
    .filter(({ block }) => block.height > r.tip.height)
    .map((decided) => ({ ...decided, hash: blockHash(r.networkId, decided.block) }));
  const last = fresh.at(-1);
  if (!last) return reject('nothing-new');
  if (r.deliveries.length > 2 * r.limits.catchUpBlocksMax)
    return reject('busy', 'decided blocks wait to be applied');
  let parent = jump ? { height: fresh[0]!.block.parentHeight, hash: fresh[0]!.block.parentHash } : r.tip;
  for (const { block, hash } of fresh) {
    if (block.parentHeight !== parent.height || !equalBytes(block.parentHash, parent.hash)) {
      return reject('unlinked', `block ${block.height} does not extend ${parent.height}`);
    }
    parent = { height: block.height, hash };
  }
  const certificate = last.certificate;
  if (!certificate) return reject('no-certificate', `block ${last.block.height}`);
  const named = certificate.height === last.block.height && equalBytes(certificate.blockHash, last.hash);
  if (certificate.kind !== 'finalize' || !named) return reject('bad-certificate', 'of another block');
  const proof = verifyCertificate(certificate, r.networkId, r.members, r.signatures);
  if (!proof.ok) return reject('bad-certificate', proof.code);
  // Certificates inside the run prove nothing more, and verifying them all would hold up the I/O thread.
  decide(r, [...fresh.slice(0, -1).map(({ block, hash }) => ({ block, hash })), last]);
  return accept(undefined);
}
