/**
 * Answers the questions that the beacon asks this node about the weights it holds: one leaf of its stage's agreed w_r, once
 * in an epoch, out of the copies that its replica keeps for audits. It judges nobody's answers.
 */
import { decodeStateIndex } from '../diloco/local-state.ts';
import type { StageReplica } from '../diloco/replica.ts';
import { newestAgreed } from '../ledger/rounds.ts';
import {
  type Challenge,
  challenge,
  challengeAnswer,
  challengedLeaf,
  challengeOwed,
} from '../ledger/transactions/challenge.ts';
import { toHex } from '../std/bytes.ts';
import { merkleLevels, proofFromLevels } from '../std/merkle.ts';
import type { EventSink } from './events.ts';
import type { LedgerNode } from './ledger-node.ts';

export interface UptimeOptions {
  readonly nodeId: string;
  readonly stage: number;
  /** Names architecture and stage, 32 bytes. */
  readonly plan: Uint8Array;
  readonly ledger: Pick<LedgerNode, 'state' | 'constants' | 'mempool' | 'send' | 'onBlock'>;
  readonly replica: Pick<StageReplica, 'evidenceIndex' | 'evidenceLeaf'>;
  readonly events: EventSink;
}

/** Answers after each block what is asked then, until it is called off. */
export function answerChallenges(options: UptimeOptions): () => void {
  const { ledger, events } = options;
  let isBusy = false;
  let waiting: Uint8Array | undefined;
  const look = async () => {
    if (isBusy || (waiting && ledger.mempool.has(waiting))) return;
    isBusy = true;
    try {
      const body = await answerOwed(options);
      const sent = body && ledger.send(challenge, body);
      waiting = sent?.ok ? sent.value.id : undefined;
    } catch (error) {
      events({ type: 'warning', code: 'challenge-unanswered', detail: String(error) });
    } finally {
      isBusy = false;
    }
  };
  return ledger.onBlock(() => void look());
}

/** Undefined while nothing is asked, or where this node does not hold what is asked for. */
async function answerOwed(options: UptimeOptions): Promise<Challenge | undefined> {
  const { nodeId, stage, plan, ledger, replica } = options;
  const owed = challengeOwed(ledger.state(), nodeId, ledger.constants.policy);
  const agreed = owed && newestAgreed(ledger.state(), stage);
  if (!agreed) return undefined;
  const [block, seed] = owed;
  const stateHash = toHex(agreed.stateHash);
  const encoded = await replica.evidenceIndex(stateHash);
  const decoded = encoded && decodeStateIndex(encoded);
  if (!decoded?.ok || decoded.value.kind !== 'agreed') return undefined;
  const { leaves } = decoded.value;
  const index = challengedLeaf(seed, nodeId, leaves.length);
  const bytes = await replica.evidenceLeaf(stateHash, index);
  if (!bytes) return undefined;
  const levels = merkleLevels(leaves);
  return {
    block,
    round: agreed.round + 1,
    stage,
    plan,
    leaves: leaves.length,
    root: levels.at(-1)![0]!,
    leaf: leaves[index]!,
    path: proofFromLevels(levels, index),
    answer: challengeAnswer(seed, nodeId, bytes),
  };
}
