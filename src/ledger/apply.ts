/**
 * The ledger's state machine: what a block does to a state. It depends on the state, the block and the network's
 * constants alone, so every node comes to the same result; a block with one invalid transaction is invalid as a whole and
 * changes nothing. What needs a clock, blobs or evidence of other kinds is checked by voters before they vote.
 */
import { nodeIdOf } from '../identity/keys.ts';
import { equalBytes } from '../std/bytes.ts';
import { accept, type Outcome, reject } from '../std/outcome.ts';
import { advanceBeacon } from './beacon.ts';
import { blockHash, encodeBlock, type LedgerBlock } from './block.ts';
import { released } from './bonding.ts';
import type { Change, Draft, LedgerView } from './draft.ts';
import { endBlockSteps, rulesByKind } from './kinds.ts';
import { endEpoch, isVoter } from './members.ts';
import { accountOf, assertSupply, chainOf } from './money.ts';
import { pruneRows } from './prune.ts';
import type { Author, BlockContext, LedgerConstants, TransactionRule } from './rules.ts';
import { type ChangeDraft, createDraft, type LedgerState, putAll } from './state.ts';
import type { EscrowRow } from './tables.ts';
import { type Transaction, transactionId, type VerifySignature, verifyTransaction } from './transaction.ts';

/** What a transaction did. */
export interface Receipt {
  readonly id: Uint8Array;
  readonly kind: string;
  /** Node id; null for what the proposer put in. */
  readonly author: string | null;
  /** Node ids of those whose money it moved, in order. */
  readonly accounts: readonly string[];
}

export interface AppliedBlock {
  readonly hash: Uint8Array;
  /** For `commit`, and for the store. */
  readonly changes: readonly Change[];
  /** One for each transaction, in order. */
  readonly receipts: readonly Receipt[];
}

/**
 * The outcome of a block on the state after its parent; the state stays as it is. Codes of the block: `wrong-number`,
 * `wrong-parent`, `wrong-state-root`, `wrong-time`, `not-a-voter`, `too-many-transactions`, those of `advanceBeacon`; of a
 * transaction, with its index in the detail: `unknown-kind`, `unsigned`, `bad-signature`, `stale-nonce`,
 * `repeated-kind`, and those of its rule. Throws AssertionError when a rule made or lost money: a bug.
 */
export function apply(
  state: LedgerState,
  block: LedgerBlock,
  constants: LedgerConstants,
  verify: VerifySignature = verifyTransaction,
): Outcome<AppliedBlock> {
  const checked = checkHeader(state, block, constants);
  if (!checked.ok) return checked;
  const draft = createDraft(state);
  const context = contextOf(block, constants);
  const begun = beginBlock(draft, block);
  if (!begun.ok) return begun;
  const receipts: Receipt[] = [];
  const kindsOfProposer = new Set<string>();
  for (const [index, transaction] of block.transactions.entries()) {
    const { kind, publicKey } = transaction;
    const repeated = publicKey === null && kindsOfProposer.has(kind);
    const done = repeated
      ? reject('repeated-kind', kind)
      : applyTransaction(draft, transaction, context, verify);
    if (!done.ok) return reject(done.code, `transaction ${index}: ${done.detail}`);
    if (publicKey === null) kindsOfProposer.add(kind);
    receipts.push(done.value);
  }
  for (const step of endBlockSteps) step(draft, context);
  pruneRows(draft, context);
  const hash = blockHash(constants.networkId, encodeBlock(block));
  draft.put('chain', '', { ...chainOf(draft), hash });
  if (block.number % constants.policy.epochBlocks === 0) endEpoch(draft, context);
  const changes = draft.changes();
  assertSupply(state, changes);
  return accept({ hash, changes, receipts });
}

export function contextOf(
  { number, timeMs, proposer }: Pick<LedgerBlock, 'number' | 'timeMs' | 'proposer'>,
  constants: LedgerConstants,
): BlockContext {
  return { constants, number, timeMs, proposer };
}

function checkHeader(state: LedgerState, block: LedgerBlock, { policy }: LedgerConstants): Outcome<void> {
  const chain = chainOf(state);
  if (block.number !== chain.number + 1)
    return reject('wrong-number', `${block.number} after ${chain.number}`);
  if (!equalBytes(block.parentHash, chain.hash)) return reject('wrong-parent');
  if (!equalBytes(block.parentStateRoot, state.root())) return reject('wrong-state-root');
  if (block.timeMs <= chain.timeMs) return reject('wrong-time', `${block.timeMs} after ${chain.timeMs}`);
  if (!isVoter(state, block.proposer)) return reject('not-a-voter', block.proposer);
  if (block.transactions.length > policy.transactionsPerBlockMax)
    return reject('too-many-transactions', `${block.transactions.length}`);
  return accept(undefined);
}

/** What stands before the first transaction: the block's place and its seed. */
export function beginBlock(draft: Draft, block: LedgerBlock): Outcome<void> {
  const { number, timeMs } = block;
  draft.put('chain', '', { ...chainOf(draft), number, timeMs });
  return advanceBeacon(draft, block);
}

/** One transaction on a draft, which a rejection leaves as it was. */
export function applyTransaction(
  draft: Draft,
  transaction: Transaction,
  context: BlockContext,
  verify: VerifySignature,
): Outcome<Receipt> {
  const { kind } = transaction;
  const rule = rulesByKind.get(kind);
  if (!rule) return reject('unknown-kind', kind);
  const body = rule.parse(transaction.body);
  if (!body.ok) return body;
  const id = transactionId(context.constants.networkId, transaction);
  const inner = createDraft(draft);
  const author = authorOf(inner, rule, transaction, id, context, verify);
  if (!author.ok) return author;
  const done = rule.apply(inner, body.value, author.value, context, id);
  if (!done.ok) return done;
  const changes = inner.changes();
  const accounts = accountsIn(draft, changes);
  putAll(draft, changes);
  return accept({ id, kind, author: rule.origin === 'author' ? author.value.nodeId : null, accounts });
}

/** Whose money moved: accounts, and both sides of an escrow, whose balances a claim may leave as they are. */
function accountsIn(before: LedgerView, changes: readonly Change[]): readonly string[] {
  const accounts = new Set<string>();
  for (const { table, key, row } of changes) {
    if (table === 'account') accounts.add(key);
    const escrow =
      table === 'escrow' ? ((row as EscrowRow | undefined) ?? before.get('escrow', key)) : undefined;
    if (escrow) accounts.add(escrow.payer).add(escrow.payee);
  }
  return [...accounts].sort();
}

/** Who acts; a signed one's nonce is used up, and stake that is free by now is the author's to use. */
function authorOf(
  draft: ChangeDraft,
  rule: TransactionRule<unknown>,
  transaction: Transaction,
  id: Uint8Array,
  context: BlockContext,
  verify: VerifySignature,
): Outcome<Author> {
  const { publicKey, signature, nonce } = transaction;
  if (rule.origin === 'block') {
    if (publicKey || nonce !== 0) return reject(`malformed-${rule.kind}`, 'signed, but not by an author');
    const member = draft.get('member', context.proposer);
    if (!member) return reject('not-a-voter', context.proposer);
    return accept({ nodeId: context.proposer, publicKey: member.publicKey });
  }
  if (!publicKey || !signature) return reject('unsigned', rule.kind);
  const nodeId = nodeIdOf(publicKey);
  const account = accountOf(draft, nodeId);
  if (nonce <= account.nonce) return reject('stale-nonce', `${nonce} after ${account.nonce}`);
  if (!verify(transaction, id)) return reject('bad-signature');
  draft.put('account', nodeId, { ...released(account, context.timeMs), nonce });
  return accept({ nodeId, publicKey });
}

/** The changes that one transaction alone would make; for those who choose what goes into a block. */
export function applyOne(
  view: LedgerView,
  transaction: Transaction,
  context: BlockContext,
  verify: VerifySignature = verifyTransaction,
): Outcome<{ readonly changes: readonly Change[]; readonly receipt: Receipt }> {
  const draft = createDraft(view);
  const done = applyTransaction(draft, transaction, context, verify);
  return done.ok ? accept({ changes: draft.changes(), receipt: done.value }) : done;
}
