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

/** A page of transactions looked through, and how many; duties are settled long before as many proofs have come. */
const pageProofs = 256;
const pagesMax = 8;

/**
 * Undefined when its block, or that of the proof before it, is not here any more or not yet: without them nobody can tell
 * an honest claim from a false one.
 */
export async function claimOfDuty(ledger: LedgerKeeper, key: string): Promise<TrainingClaim | undefined> {
  const duty = ledger.state().get('duty', key);
  if (!duty) return undefined;
  const { networkId } = ledger.constants;
  let found: ProofBody | undefined;
  for await (const body of trainingProofsOf(ledger, duty.prover)) {
    if (found) return claimOfProof(duty.prover, found, previousOf(ledger, duty.prover, body));
    if (proofKey(networkId, duty.prover, body) === key) found = body;
    if (found && duty.proof === 1) return claimOfProof(duty.prover, found, null);
  }
  return undefined;
}

/** Newest first, as far as its blocks are here without a gap. */
async function* trainingProofsOf({ store }: LedgerKeeper, prover: string): AsyncGenerator<ProofBody> {
  const filter = { account: prover, kind: proof.kind };
  let places = await store.transactions(filter, { limit: pageProofs });
  for (let page = 0; page < pagesMax; page++) {
    for (const { number, index } of places) {
      const stored = await store.block(number);
      const block = stored && decodeBlock(stored.payload);
      if (!block?.ok) return;
      const transaction = block.value.transactions[index];
      // Blocks touch the account of their proposer, too: others' proofs are found with its own.
      if (!transaction?.publicKey || nodeIdOf(transaction.publicKey) !== prover) continue;
      const body = proof.parse(transaction.body);
      if (body.ok && body.value.type === 'training') yield body.value;
    }
    const before = places.at(-1);
    if (!before || places.length < pageProofs) return;
    places = await store.transactions(filter, { before, limit: pageProofs });
  }
}

function previousOf(ledger: LedgerKeeper, prover: string, body: ProofBody): PreviousClaim {
  const row = ledger.state().get('round', numberKey(body.round));
  const listed = row?.contributions.some(([stage, node]) => stage === body.stage && node === prover) ?? null;
  return { round: body.round, state: toHex(body.states.at(-1)!), base: toHex(body.base), listed };
}
