/**
 * The proof that a duty is about, and the prover's one before it, out of the ledger's blocks: what an audit needs to know of
 * a claim. Everybody finds the same, for all have the same blocks.
 */
import { claimOfProof, type PreviousClaim, type TrainingClaim } from '../audit/claim.ts';
import { nodeIdOf } from '../identity/keys.ts';
import { decodeBlock } from '../ledger/block.ts';
import { numberKey } from '../ledger/money.ts';
import { type ProofBody, proofKey } from '../ledger/proof.ts';
import { proof } from '../ledger/transactions/proof.ts';
import { toHex } from '../std/bytes.ts';
import type { LedgerKeeper } from './ledger.ts';

/** Proofs of one prover looked through; duties are settled long before as many have come. */
const proofsMax = 256;

/** Undefined when its block is not here any more. */
export async function claimOfDuty(ledger: LedgerKeeper, key: string): Promise<TrainingClaim | undefined> {
  const duty = ledger.state().get('duty', key);
  if (!duty) return undefined;
  const { networkId } = ledger.constants;
  const places = await ledger.store.transactions(
    { account: duty.prover, kind: proof.kind },
    { limit: proofsMax },
  );
  let found: ProofBody | undefined;
  for (const { number, index } of places) {
    const stored = await ledger.store.block(number);
    const block = stored && decodeBlock(stored.payload);
    const transaction = block?.ok ? block.value.transactions[index] : undefined;
    // Blocks touch the account of their proposer, too: others' proofs are found with its own.
    if (!transaction?.publicKey || nodeIdOf(transaction.publicKey) !== duty.prover) continue;
    const body = proof.parse(transaction.body);
    if (!body.ok || body.value.type !== 'training') continue;
    if (found) return claimOfProof(duty.prover, found, previousOf(ledger, duty.prover, body.value));
    if (proofKey(networkId, duty.prover, body.value) === key) found = body.value;
  }
  return found && claimOfProof(duty.prover, found, null);
}

function previousOf(ledger: LedgerKeeper, prover: string, body: ProofBody): PreviousClaim {
  const row = ledger.state().get('round', numberKey(body.round));
  const listed = row?.contributions.some(([stage, node]) => stage === body.stage && node === prover) ?? null;
  return { round: body.round, state: toHex(body.states.at(-1)!), base: toHex(body.base), listed };
}
