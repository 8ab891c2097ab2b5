/**
 * One node's part in the ledger, wired: consensus over epochs, blocks proposed and voted for, transactions in and out.
 * The round coordinator is its guest: its lists travel inside blocks. It trains nothing and holds no weights.
 */

import type { Checkpoint } from '../consensus/checkpoint.ts';
import type { EpochsReplica, Equivocation } from '../consensus/epoch-types.ts';
import type { SignatureScheme } from '../consensus/types.ts';
import type { Dataset } from '../genesis/dataset.ts';
import type { KeyPair, VerifyMany } from '../identity/keys.ts';
import { decodeBlock } from '../ledger/block.ts';
import type { Waiting } from '../ledger/mempool.ts';
import type { TransactionRule } from '../ledger/rules.ts';
import type { LedgerStore } from '../ledger/store.ts';
import { equivocation } from '../ledger/transactions/equivocation.ts';
import { register } from '../ledger/transactions/register.ts';
import type { Transport } from '../net/transport.ts';
import type { Clock } from '../std/clock.ts';
import type { HashHex } from '../std/hash.ts';
import type { Outcome } from '../std/outcome.ts';
import type { Store } from '../std/store.ts';
import { createBlockVoting, listOf, type RoundApplication } from './block-voting.ts';
import type { EventSink } from './events.ts';
import { createJudge } from './judging.ts';
import { type LedgerKeeper, openLedger, type TakenBlock } from './ledger.ts';
import { runConsensus } from './ledger-sync-live.ts';
import type { NetworkManifest } from './network.ts';
import { refusedProofEvent } from './refused-proof.ts';
import { returnDue } from './return-to-vote.ts';
import { createTransactions } from './transactions.ts';

export interface LedgerNodeOptions {
  readonly network: NetworkManifest;
  readonly key: KeyPair;
  readonly dataset: Dataset;
  readonly transport: Transport;
  readonly clock: Clock;
  /** Votes. */
  readonly store: Store;
  /** Blocks and state. */
  readonly ledger: LedgerStore;
  readonly rounds: RoundApplication & {
    /** A block was decided that closes no round. */
    remind(): void;
  };
  /** Whether this node has itself found a Driver guilty. */
  readonly isFraud: (nodeId: string) => boolean;
  /** A leaf of w_r of an agreed state; undefined when it is not held. Absent: this node holds no weights. */
  readonly heldLeaf?: (stateHash: HashHex, index: number) => Promise<Uint8Array | undefined>;
  readonly events: EventSink;
  /** Where a node begins that has not come so far, in place of the manifest's members. */
  readonly checkpoint?: Checkpoint;
  readonly signatures?: SignatureScheme;
  readonly verifyMany?: VerifyMany;
}

export interface LedgerNode extends LedgerKeeper {
  /** The one that runs now: another one after this node has joined the ledger anew. */
  readonly consensus: EpochsReplica;
  /** Signs a transaction and sends it out. */
  send<Body>(rule: TransactionRule<Body>, body: Body): Outcome<Waiting>;
  /** Sends out what a wallet has signed. */
  submit(bytes: Uint8Array): Outcome<Waiting>;
  onBlock(listener: (taken: TakenBlock) => void): () => void;
  close(): Promise<void>;
}

export async function createLedgerNode(options: LedgerNodeOptions): Promise<LedgerNode> {
  const { network, key, transport, clock, rounds, events } = options;
  const { networkId } = network;
  const judge = createJudge({ ...options, state: () => keeper.state() });
  const keeper = await openLedger({
    network,
    store: options.ledger,
    clock,
    accepts: judge.accepts,
    ...(options.verifyMany && { verifyMany: options.verifyMany }),
  });
  const listeners = new Set<(taken: TakenBlock) => void>();
  const transactions = createTransactions({
    ledger: keeper,
    transport,
    clock,
    wake: () => consensus.now().wake(),
    onRefused: (bytes, code) => {
      const event = refusedProofEvent(bytes, code);
      if (event) events(event);
    },
  });
  const send = <Body>(rule: TransactionRule<Body>, body: Body) =>
    transactions.submit(keeper.sign(rule, body, key));
  const voting = createBlockVoting({
    networkId,
    key,
    clock,
    ledger: keeper,
    rounds,
    leader: (height) => leaderOf(consensus.now(), height),
    judge,
    onBlock: (taken) => {
      transactions.noteBlock();
      const due = returnDue(keeper.state(), key.nodeId, keeper.constants.policy);
      if (due) send(register, due);
      if (listOf(taken.block) === undefined) rounds.remind();
      for (const listener of [...listeners]) listener(taken);
    },
    onRefused: (code, detail) => events({ type: 'warning', code, detail: `proposed block: ${detail}` }),
  });
  await replayRounds(keeper, rounds);
  const consensus = await runConsensus({
    ...options,
    createdMs: network.createdMs,
    ledger: keeper,
    application: {
      ...voting,
      failed: (error) => events({ type: 'warning', code: 'consensus-failed', detail: String(error) }),
      evidence: (found) => accuse(found),
    },
  });
  const accuse = ({ nodeId, kind, bytes }: Equivocation) => {
    events({ type: 'warning', code: 'equivocation', detail: `${kind} by member ${nodeId.slice(0, 8)}` });
    send(equivocation, { accused: nodeId, evidence: bytes });
  };
  return {
    ...keeper,
    get consensus() {
      return consensus.now();
    },
    send,
    submit: (bytes) => transactions.submit(bytes),
    onBlock: (listener) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    close: async () => {
      transactions.close();
      await consensus.stop();
    },
  };
}

function leaderOf(consensus: EpochsReplica, height: number): string {
  const { members } = consensus.start();
  return members[height % members.length]!.nodeId;
}

/** Rounds whose lists a node that was started again may still need. */
const roundsReplayed = 8;

/** Lists decided before this node was started: it may stand in a round that they close. */
async function replayRounds({ store }: LedgerKeeper, rounds: RoundApplication): Promise<void> {
  const places = await store.transactions({ kind: 'round' }, { limit: roundsReplayed });
  for (const { number } of places.toReversed()) {
    const stored = await store.block(number);
    const block = stored && decodeBlock(stored.payload);
    const list = block?.ok ? listOf(block.value) : undefined;
    if (!stored || !list) continue;
    const { height, hash } = stored;
    const parent = { parentHeight: 0, parentHash: new Uint8Array(32) };
    await rounds.decided({ block: { height, ...parent, payload: list }, hash });
  }
}
