/**
 * What a kind of transaction is to the ledger: a tag, a schema, and what it does. Each kind has a file of its own in
 * `transactions/`; `apply.ts` runs them in a block's order.
 */
import type { Canonical } from '../std/codec.ts';
import type { Outcome } from '../std/outcome.ts';
import type { Draft } from './draft.ts';
import type { LedgerPolicy } from './policy.ts';

/** What the rules know beside the state: the network's constants. The same on every node, for ever. */
export interface LedgerConstants {
  /** 32 bytes. */
  readonly networkId: Uint8Array;
  readonly policy: LedgerPolicy;
  /** H, and what one batch is. */
  readonly innerSteps: number;
  readonly microbatches: number;
  readonly tokensPerBatch: number;
  /** Transformer layers of the model, and how many of them each stage holds. */
  readonly layers: number;
  readonly stageLayers: readonly number[];
  /**
   * State hashes of w_0, by stage. Without them proofs of round 0 wait for its decided list. The same on every node, as
   * all of these.
   */
  readonly initialStates?: readonly Uint8Array[];
}

/** What a transaction may know of the block it is in. */
export interface BlockContext {
  readonly constants: LedgerConstants;
  /** Counted from 1. */
  readonly number: number;
  /** The proposer's clock, bounded by the voters against theirs: the only time there is. */
  readonly timeMs: number;
  readonly proposer: string;
}

/** Who signed the transaction; of one that a proposer puts in, the proposer. */
export interface Author {
  readonly nodeId: string;
  /** Compressed, 33 bytes. */
  readonly publicKey: Uint8Array;
}

export interface TransactionRule<Body> {
  readonly kind: string;
  /** `author`: signed by a node whose nonce grows. `block`: put in by the proposer, at most one of its kind in a block. */
  readonly origin: 'author' | 'block';
  /** Checks the form of an untrusted body: one code, `malformed-<kind>`. */
  parse(body: unknown): Outcome<Body>;
  encode(body: Body): Canonical;
  /**
   * Everything that follows from state and transaction alone. On a rejection the draft is thrown away by the caller, so
   * a rule may put rows before it rejects.
   */
  apply(draft: Draft, body: Body, author: Author, context: BlockContext, id: Uint8Array): Outcome<void>;
}

/** What a block does after its transactions, whatever they are. It cannot reject: the block is valid by then. */
export type EndBlockStep = (draft: Draft, context: BlockContext) => void;
