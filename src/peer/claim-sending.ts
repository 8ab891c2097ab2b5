/** A node's claims as transactions of its own: dated when they are sent, and a chain that breaks where one is lost. */
import type { StageReplica } from '../diloco/replica.ts';
import type { KeyPair } from '../identity/keys.ts';
import type { ProofBody } from '../ledger/proof.ts';
import { proof } from '../ledger/transactions/proof.ts';
import type { Clock } from '../std/clock.ts';
import { accept } from '../std/outcome.ts';
import { type Claims, createClaims } from './claims.ts';
import type { EventSink } from './events.ts';
import type { LedgerNode } from './ledger-node.ts';

export interface ClaimSendingOptions {
  readonly key: KeyPair;
  readonly clock: Clock;
  readonly replica: Pick<StageReplica, 'breakChain'>;
  readonly events: EventSink;
  readonly ledger: LedgerNode;
}

/** Claims that get time and nonce when they are sent, which may be long after the work. */
export const undated = new WeakSet<ProofBody>();

/** Where this node's claims wait for the ledger. */
export function createPeerClaims({ key, clock, replica, events, ledger }: ClaimSendingOptions): Claims {
  const prover = () => ledger.state().get('prover', key.nodeId);
  return createClaims({
    newest: () => prover()?.after ?? null,
    waits: (id) => ledger.mempool.has(id),
    send: (body) => {
      const timestampMs = Math.max(Math.floor(clock.nowMs()), (prover()?.recentMs.at(-1) ?? 0) + 1);
      const nonce = Math.max(timestampMs, (prover()?.nonce ?? 0) + 1);
      const sent = ledger.send(proof, undated.has(body) ? { ...body, timestampMs, nonce } : body);
      return sent.ok ? accept(sent.value.id) : sent;
    },
    onLost: ({ round }, code) => {
      events({
        type: 'warning',
        code,
        detail: `the proof of round ${round} is not taken: claims begin anew`,
      });
      replica.breakChain().catch(() => {});
    },
  });
}

export interface ReleaseOptions {
  readonly claims: Pick<Claims, 'due'>;
  readonly ledger: Pick<LedgerNode, 'state'>;
  readonly nodeId: string;
  /** In which the node stands. */
  readonly round: number;
  readonly work: { release(before: number): void } | undefined;
}

/**
 * Lets go of the rows of rounds that are over, as soon as nobody can ask for them: no claim of this node awaits its block, and
 * none its draw or verdict. The round before this one may not be claimed yet.
 */
export function releaseWork({ claims, ledger, nodeId, round, work }: ReleaseOptions): void {
  const prover = ledger.state().get('prover', nodeId);
  if (claims.due === 0 && !prover?.openDuties) work?.release(round - 1);
}
