/**
 * Which signatures of transactions were found right lately, so that none is verified twice: what came by gossip is in a
 * block soon after. A block that nobody has seen anything of, as when a node catches up, can be verified ahead, by
 * whoever verifies many at once; only its yes is believed, a no is found again in `apply`.
 */
import type { SignedDigest, VerifyMany } from '../identity/keys.ts';
import { equalBytes, toHex } from '../std/bytes.ts';
import { type Transaction, transactionId, type VerifySignature, verifyTransaction } from './transaction.ts';

export interface SignatureMemory {
  readonly verify: VerifySignature;
  /**
   * Has those verified elsewhere that are not remembered, if there are enough of them; undefined when there is nothing
   * to wait for. Never fails: what is not verified ahead is verified in its place.
   */
  ahead(transactions: readonly Transaction[]): Promise<void> | undefined;
}

export interface SignatureMemoryOptions {
  readonly networkId: Uint8Array;
  readonly rememberedMax: number;
  readonly verifyMany?: VerifyMany;
}

/** Fewer are verified sooner here than they are anywhere else. */
const aheadMin = 16;

export function createSignatureMemory(options: SignatureMemoryOptions): SignatureMemory {
  const { networkId, rememberedMax, verifyMany } = options;
  /** The signature itself, by the transaction's id: another one on the same transaction may be wrong. */
  const known = new Map<string, Uint8Array>();
  const isKnown = (name: string, { signature }: Transaction) => {
    const before = known.get(name);
    return before !== undefined && signature !== null && equalBytes(before, signature);
  };
  const remember = (name: string, signature: Uint8Array) => {
    known.set(name, signature);
    if (known.size > rememberedMax) known.delete(known.keys().next().value!);
  };
  /** On their way, by id. */
  const asked = new Map<string, Promise<void>>();
  const unknownOf = (transactions: readonly Transaction[]): SignedDigest[] => {
    const unknown: SignedDigest[] = [];
    for (const transaction of transactions) {
      const { signature, publicKey } = transaction;
      if (!signature || !publicKey) continue;
      const digest = transactionId(networkId, transaction);
      if (!isKnown(toHex(digest), transaction)) unknown.push({ digest, signature, publicKey });
    }
    return unknown;
  };
  const ask = async (verifyMany: VerifyMany, unknown: readonly SignedDigest[]): Promise<void> => {
    const verdicts = await verifyMany(unknown).catch(() => []);
    for (const [index, { digest, signature }] of unknown.entries()) {
      asked.delete(toHex(digest));
      if (verdicts[index] === true) remember(toHex(digest), signature);
    }
  };
  return {
    verify: (transaction, id) => {
      const name = toHex(id);
      if (isKnown(name, transaction)) return true;
      if (!verifyTransaction(transaction, id)) return false;
      remember(name, transaction.signature!);
      return true;
    },
    ahead: (transactions) => {
      if (!verifyMany || transactions.length < aheadMin) return undefined;
      const unknown = unknownOf(transactions);
      const waited = new Set<Promise<void>>();
      const ours = unknown.filter(({ digest }) => {
        const answer = asked.get(toHex(digest));
        if (answer) waited.add(answer);
        return !answer;
      });
      if (ours.length >= aheadMin) {
        const answer = ask(verifyMany, ours);
        for (const { digest } of ours) asked.set(toHex(digest), answer);
        waited.add(answer);
      }
      return waited.size === 0 ? undefined : Promise.all(waited).then(() => undefined);
    },
  };
}
