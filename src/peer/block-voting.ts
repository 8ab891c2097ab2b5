/**
 * What this node proposes as the ledger's next block, which proposals get its vote, and what it does with a decided one:
 * the application of consensus. The block carries the round's list of contributions, which the round coordinator judges;
 * the state machine judges the rest, and what it cannot know (clock, dataset, votes of consensus) is judged here.
 */
import { certificateBody } from '../consensus/certificate.ts';
import type { EpochApplication } from '../consensus/epoch-types.ts';
import type { Application, DecidedBlock, ProposalContext } from '../consensus/types.ts';
import type { KeyPair } from '../identity/keys.ts';
import { apply } from '../ledger/apply.ts';
import { type OwnBeacon, ownBeacon } from '../ledger/beacon.ts';
import { decodeBlock, type LedgerBlock } from '../ledger/block.ts';
import { wantsBlocks } from '../ledger/clearance.ts';
import { chainOf } from '../ledger/money.ts';
import { assembleBlock } from '../ledger/propose.ts';
import type { Transaction } from '../ledger/transaction.ts';
import { equalBytes } from '../std/bytes.ts';
import type { Clock } from '../std/clock.ts';
import { type Canonical, decodeCanonical, encodeCanonical } from '../std/codec.ts';
import type { Judge } from './judging.ts';
import type { LedgerKeeper, TakenBlock } from './ledger.ts';

/** The round coordinator's part, in the encoding of a round list. */
export type RoundApplication = Pick<Application, 'propose' | 'validate' | 'decided'>;

export interface BlockVotingOptions {
  readonly networkId: Uint8Array;
  readonly key: KeyPair;
  readonly clock: Clock;
  readonly ledger: LedgerKeeper;
  readonly rounds: RoundApplication;
  /** Node id of the member that leads a height of the running epoch. */
  readonly leader: (height: number) => string;
  /** Of what the ledger's rules cannot tell. */
  readonly judge: Pick<Judge, 'votesFor' | 'proposes' | 'lost'>;
  readonly onBlock: (taken: TakenBlock) => void;
  /** A proposal that this node does not vote for. */
  readonly onRefused: (code: string, detail: string) => void;
}

interface BlockVoting {
  readonly options: BlockVotingOptions;
  readonly beacon: OwnBeacon;
  /** This node's last block, until it is decided. */
  proposed: { readonly payload: Uint8Array; readonly block: LedgerBlock } | undefined;
}

/** What consensus asks of the ledger. */
export function createBlockVoting(
  options: BlockVotingOptions,
): Pick<EpochApplication, 'propose' | 'validate' | 'decided' | 'coming' | 'nextEpoch'> {
  const beacon = ownBeacon(options.key.secretKey, options.networkId);
  const voting: BlockVoting = { options, beacon, proposed: undefined };
  return {
    propose: (context) => propose(voting, context),
    validate: (payload, context) => validate(options, payload, context),
    decided: (decided, epoch) => takeDecided(voting, decided, epoch),
    coming: (payloads) => options.ledger.prepare(payloads),
    nextEpoch: (epoch) => options.ledger.nextEpoch(epoch),
  };
}

async function propose(voting: BlockVoting, context: ProposalContext): Promise<Uint8Array | undefined> {
  const { options, beacon } = voting;
  const { ledger, rounds, key, clock } = options;
  const list = await rounds.propose(context);
  const waiting = await judgedCandidates(voting);
  const state = ledger.state();
  const isWanted = wantsBlocks(state);
  if (!list && waiting.length === 0 && !isWanted) return undefined;
  const member = state.get('member', key.nodeId);
  const part = member && beacon.next(member, chainOf(state).number + 1);
  if (!part) return undefined;
  const assembled = assembleBlock({
    state,
    constants: ledger.constants,
    proposer: key.nodeId,
    nowMs: Math.floor(clock.nowMs()),
    own: list ? [roundTransaction(list)] : [],
    waiting,
    verify: ledger.verify,
    ...part,
  });
  if (!assembled.ok) {
    options.onRefused(assembled.code, assembled.detail);
    return undefined;
  }
  const { block, payload, refused } = assembled.value;
  ledger.mempool.remove(refused.map(({ transaction }) => transaction));
  if (block.transactions.length === 0 && !isWanted) return undefined;
  voting.proposed = { payload, block };
  return payload;
}

/** Of what waits, all that the others' judgement will not stumble over, as far as this node can tell. */
async function judgedCandidates(voting: BlockVoting): Promise<Transaction[]> {
  const { ledger, judge } = voting.options;
  if (voting.proposed) judge.lost(voting.proposed.block.transactions);
  voting.proposed = undefined;
  const good: Transaction[] = [];
  for (const { transaction } of ledger.mempool.candidates()) {
    const verdict = await judge.proposes(transaction);
    if (verdict === 'yes') good.push(transaction);
    if (verdict === 'never') ledger.mempool.remove([transaction]);
  }
  return good;
}

async function validate(
  options: BlockVotingOptions,
  payload: Uint8Array,
  context: ProposalContext,
): Promise<boolean> {
  const { ledger, rounds } = options;
  const decoded = decodeBlock(payload);
  if (!decoded.ok) return refuse(options, decoded.code, decoded.detail);
  const block = decoded.value;
  if (block.proposer !== options.leader(context.height))
    return refuse(options, 'wrong-proposer', block.proposer);
  if (!isTimely(options, block)) return refuse(options, 'untimely-block', `${block.timeMs}`);
  const applied = apply(ledger.state(), block, ledger.constants, ledger.verify);
  if (!applied.ok) return refuse(options, applied.code, applied.detail);
  for (const transaction of block.transactions)
    if (!(await options.judge.votesFor(transaction)))
      return refuse(options, 'bad-evidence', transaction.kind);
  const list = listOf(block);
  return list === undefined || rounds.validate(list, context);
}

function refuse(options: BlockVotingOptions, code: string, detail: string): false {
  options.onRefused(code, detail);
  return false;
}

/** Proofs are judged by block time, so it may not run ahead; behind it may be as far as a slow vote takes. */
function isTimely({ clock, ledger }: BlockVotingOptions, { timeMs }: LedgerBlock): boolean {
  const { clockSkewMsMax, proofAgeMsMax } = ledger.constants.policy;
  const ahead = timeMs - clock.nowMs();
  return ahead <= clockSkewMsMax && ahead >= -proofAgeMsMax;
}

async function takeDecided(voting: BlockVoting, decided: DecidedBlock, epoch: number): Promise<void> {
  const { options, proposed } = voting;
  const { height, payload } = decided.block;
  if (proposed && equalBytes(proposed.payload, payload)) voting.proposed = undefined;
  const certificate = decided.certificate ? encodeCanonical(certificateBody(decided.certificate)) : null;
  const taken = await options.ledger.take(payload, { epoch, height, certificate });
  const list = listOf(taken.block);
  if (list) await options.rounds.decided({ ...decided, block: { ...decided.block, payload: list } });
  options.onBlock(taken);
}

function roundTransaction(list: Uint8Array): Transaction {
  const decoded = decodeCanonical(list, list.length);
  const body = decoded.ok ? (decoded.value as Canonical) : null;
  return { kind: 'round', body, nonce: 0, publicKey: null, signature: null };
}

/** The canonical bytes of the round list in a block. */
export function listOf(block: LedgerBlock): Uint8Array | undefined {
  const found = block.transactions.find(({ kind }) => kind === 'round');
  return found && encodeCanonical(found.body);
}
