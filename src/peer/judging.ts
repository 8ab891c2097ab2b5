/**
 * What the ledger's rules cannot tell of a transaction, and this node can: whether evidence shows an equivocation, whether
 * a Driver's claim is fraud, whether the answer to a challenge comes from the weights themselves. A proposer judges what it
 * puts in as a voter judges what it votes for, or its blocks would be refused for what others sent it.
 */
import { checkEvidence } from '../consensus/equivocation.ts';
import type { SignatureScheme } from '../consensus/types.ts';
import type { Dataset } from '../genesis/dataset.ts';
import { nodeIdOf } from '../identity/keys.ts';
import type { LedgerView } from '../ledger/draft.ts';
import { stateHashOfRoot } from '../ledger/state-hash.ts';
import { type Transaction, transactionId } from '../ledger/transaction.ts';
import { challenge, challengeAnswer, challengedLeaf, seedOfBlock } from '../ledger/transactions/challenge.ts';
import { equivocation } from '../ledger/transactions/equivocation.ts';
import { fraud } from '../ledger/transactions/fraud.ts';
import { checkAccusation } from '../pipeline/claim.ts';
import { equalBytes, toHex } from '../std/bytes.ts';
import type { HashHex } from '../std/hash.ts';
import { accept, type Outcome, reject } from '../std/outcome.ts';
import type { NetworkManifest } from './network.ts';

/** `unknown`: this node lacks what it takes to tell. */
export type Judgement = 'holds' | 'fails' | 'unknown';

export interface Judge {
  /** Whether a transaction may wait for a block here. */
  accepts(transaction: Transaction): Outcome<unknown>;
  /** Whether this node votes for a block that has it. */
  votesFor(transaction: Transaction): Promise<boolean>;
  /** Whether this node puts it into a block of its own: `wait` is no verdict yet. */
  proposes(transaction: Transaction): Promise<'yes' | 'wait' | 'never'>;
  /** A block of this node's with them was not decided. What is in two such blocks is not put into a third. */
  lost(transactions: readonly Transaction[]): void;
}

export interface JudgeOptions {
  readonly network: Pick<NetworkManifest, 'networkId' | 'training'>;
  readonly dataset: Dataset;
  /** After the newest block. */
  readonly state: () => LedgerView;
  /** Whether this node has itself found a Driver guilty. */
  readonly isFraud: (nodeId: string) => boolean;
  /** A leaf of w_r of the agreed state with this hash; undefined when this node does not hold it. */
  readonly heldLeaf?: (stateHash: HashHex, index: number) => Promise<Uint8Array | undefined>;
  readonly signatures?: SignatureScheme;
}

const judgedKinds: ReadonlySet<string> = new Set([equivocation.kind, fraud.kind, challenge.kind]);
/** Verdicts remembered, and transactions of lost blocks. */
const rememberedMax = 1_024;
const lostMax = 2;

export function needsJudging({ kind }: Transaction): boolean {
  return judgedKinds.has(kind);
}

export function createJudge(options: JudgeOptions): Judge {
  const { network, isFraud } = options;
  const known = new Map<string, Judgement>();
  const losses = new Map<string, number>();
  const nameOf = (transaction: Transaction) => toHex(transactionId(network.networkId, transaction));
  const remember = <Value>(map: Map<string, Value>, name: string, value: Value) => {
    map.set(name, value);
    if (map.size > rememberedMax) map.delete(map.keys().next().value!);
  };
  const judged = async (transaction: Transaction): Promise<Judgement> => {
    if (!needsJudging(transaction)) return 'holds';
    const name = nameOf(transaction);
    const before = known.get(name);
    if (before) return before;
    const verdict = await judge(options, transaction);
    if (verdict !== 'unknown') remember(known, name, verdict);
    return verdict;
  };
  return {
    accepts: (transaction) => {
      const { kind } = transaction;
      if (!needsJudging(transaction)) return accept(undefined);
      const name = nameOf(transaction);
      if (known.get(name) === 'fails' || (losses.get(name) ?? 0) >= lostMax)
        return reject('bad-evidence', kind);
      if (kind === equivocation.kind) return checkEquivocation(options, transaction);
      if (kind !== fraud.kind) return accept(undefined);
      const body = fraud.parse(transaction.body);
      if (!body.ok) return body;
      return isFraud(nodeIdOf(body.value.publicKey)) ? accept(undefined) : reject('not-judged');
    },
    votesFor: async (transaction) => {
      const verdict = await judged(transaction);
      // Of another stage's weights only those can tell who hold them.
      return verdict === 'holds' || (verdict === 'unknown' && transaction.kind === challenge.kind);
    },
    proposes: async (transaction) => {
      const verdict = await judged(transaction);
      if (verdict === 'fails' || (losses.get(nameOf(transaction)) ?? 0) >= lostMax) return 'never';
      return verdict === 'holds' || transaction.kind === challenge.kind ? 'yes' : 'wait';
    },
    lost: (transactions) => {
      for (const transaction of transactions.filter(needsJudging)) {
        const name = nameOf(transaction);
        remember(losses, name, (losses.get(name) ?? 0) + 1);
      }
    },
  };
}

function judge(options: JudgeOptions, transaction: Transaction): Promise<Judgement> | Judgement {
  if (transaction.kind === equivocation.kind)
    return checkEquivocation(options, transaction).ok ? 'holds' : 'fails';
  return transaction.kind === fraud.kind
    ? judgeFraud(options, transaction)
    : judgeAnswer(options, transaction);
}

function checkEquivocation(
  { network, signatures }: JudgeOptions,
  transaction: Transaction,
): Outcome<unknown> {
  const body = equivocation.parse(transaction.body);
  if (!body.ok) return body;
  const { accused, evidence } = body.value;
  const found = checkEvidence(evidence, network.networkId, signatures ? { signatures } : {});
  if (!found.ok) return found;
  return found.value.nodeId === accused ? found : reject('not-evidence', 'of another');
}

/** The claim is looked up in the dataset. */
async function judgeFraud({ network, dataset }: JudgeOptions, { body }: Transaction): Promise<Judgement> {
  const parsed = fraud.parse(body);
  if (!parsed.ok) return 'fails';
  const { publicKey, evidence } = parsed.value;
  const ground = { dataset, plan: network.training };
  const claim = await checkAccusation(network.networkId, evidence, ground).catch(() => reject('unchecked'));
  if (!claim.ok) return claim.code === 'unchecked' ? 'unknown' : 'fails';
  return equalBytes(claim.value.publicKey, publicKey) ? 'holds' : 'fails';
}

/** The answer is made again from this node's own copy of the leaf; the path to the state hash the ledger checks. */
async function judgeAnswer(options: JudgeOptions, transaction: Transaction): Promise<Judgement> {
  const body = challenge.parse(transaction.body);
  if (!body.ok || !transaction.publicKey) return 'fails';
  const { block, plan, round, leaves, root, answer } = body.value;
  const seed = seedOfBlock(options.state(), block);
  if (!seed) return 'unknown';
  const nodeId = nodeIdOf(transaction.publicKey);
  const stateHash = toHex(stateHashOfRoot(plan, round, leaves, root));
  const leaf = await options.heldLeaf?.(stateHash, challengedLeaf(seed, nodeId, leaves));
  if (!leaf) return 'unknown';
  return equalBytes(challengeAnswer(seed, nodeId, leaf), answer) ? 'holds' : 'fails';
}
