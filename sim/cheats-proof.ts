/**
 * Proofs that the ledger's checks refuse at once: sent before, dated in the future, inflated. They are signed and sent past
 * the cheater's own waiting room, which would refuse them as everybody's does.
 */
import { decodeBlock } from '../src/ledger/block.ts';
import type { ProofBody } from '../src/ledger/proof.ts';
import { proof } from '../src/ledger/transactions/proof.ts';
import type { Peer, PeerSteps } from '../src/peer/peer.ts';
import { transactionTopic } from '../src/peer/transactions.ts';

type CheatsIn = (round: number) => boolean;

function sendAnyway(peer: Peer, body: ProofBody): undefined {
  const { key, transport } = peer.options;
  void transport.publish(transactionTopic, peer.ledger.sign(proof, body, key)).catch(() => {});
}

/** Its newest proof that the ledger took, again for every round. */
export function replayedProof(peer: Peer, cheatsIn: CheatsIn): PeerSteps['proof'] {
  return async (body) => {
    if (!cheatsIn(body.round)) return body;
    const taken = await newestProof(peer);
    return taken ? sendAnyway(peer, taken) : undefined;
  };
}

async function newestProof({ ledger, options }: Peer): Promise<ProofBody | undefined> {
  const account = options.key.nodeId;
  const [place] = await ledger.store.transactions({ account, kind: proof.kind }, { limit: 1 });
  const stored = place && (await ledger.store.block(place.number));
  const block = stored && decodeBlock(stored.payload);
  const body = block?.ok ? proof.parse(block.value.transactions[place!.index]!.body) : undefined;
  return body?.ok ? body.value : undefined;
}

const aheadMs = 600_000;

/** Dated ten minutes ahead. */
export function postdatedProof(peer: Peer, cheatsIn: CheatsIn): PeerSteps['proof'] {
  return async (body) => {
    if (!cheatsIn(body.round)) return body;
    return sendAnyway(peer, { ...body, timestampMs: body.timestampMs + aheadMs });
  };
}

/** In turn: more tokens, more batches, more layers, a role that it does not have. */
export const inflations: readonly ((body: ProofBody) => ProofBody)[] = [
  (body) => ({ ...body, tokens: 10 * body.tokens }),
  (body) => ({ ...body, batches: 10 * body.batches, endBatch: body.firstBatch + 10 * body.batches }),
  (body) => ({ ...body, layers: body.layers + 1 }),
  (body) => ({ ...body, hasHead: !body.hasHead }),
];

export function inflatedProof(peer: Peer, cheatsIn: CheatsIn): PeerSteps['proof'] {
  return async (body) => {
    if (!cheatsIn(body.round)) return body;
    return sendAnyway(peer, inflations[body.round % inflations.length]!(body));
  };
}
