/**
 * Fetching a stage's agreed state from anyone that holds it: leaves are verified one by one against the root, the root
 * against the agreed hash, so who sends them does not matter. For a node that was away, diverged, or joins late.
 */
import { z } from 'zod';
import { stateHashOfRoot } from '../ledger/state-hash.ts';
import { stateProtocol } from '../net/protocol.ts';
import type { NodeId, Transport } from '../net/transport.ts';
import { toHex } from '../std/bytes.ts';
import { decodeCanonical, encodeCanonical } from '../std/codec.ts';
import type { HashHex } from '../std/hash.ts';
import { verifyMerkleProof } from '../std/merkle.ts';
import { accept, type Outcome, reject } from '../std/outcome.ts';
import type { StageReplica } from './replica.ts';
import { leafBytes, leafCount } from './state.ts';
import type { AgreedState } from './statement.ts';

/** Leaves asked for at a time. */
const leavesInFlight = 4;

const counter = z.number().int().min(0);
const requestSchema = z.tuple([counter, counter, counter]);
const bytesSchema = z.instanceof(Uint8Array);
const answerSchema = z.tuple([bytesSchema, bytesSchema, z.array(bytesSchema).max(40)]);

/**
 * Answers [round, stage, leaf] with [root, bytes, proof]: `malformed`, `other-round`, and `wrong-stage` from a node that
 * holds another than `stage`.
 */
export function serveState(transport: Transport, replica: StageReplica, stage: number): () => void {
  return transport.handle(stateProtocol, async (_from, request) => {
    const decoded = decodeCanonical(request, stateProtocol.requestBytesMax);
    if (!decoded.ok) return decoded;
    const parsed = requestSchema.safeParse(decoded.value);
    if (!parsed.success) return reject('malformed');
    const [round, wanted, index] = parsed.data;
    if (wanted !== stage) return reject('wrong-stage');
    const leaf = await replica.readLeaf(round, index);
    if (!leaf) return reject('other-round');
    return accept(encodeCanonical([leaf.root, leaf.bytes, leaf.proof]));
  });
}

export interface StateRequest {
  readonly transport: Transport;
  /** The stage that this replica holds. */
  readonly stage: number;
  readonly agreed: AgreedState;
  /** 32 bytes: names architecture and stage. */
  readonly plan: Uint8Array;
  readonly flatLength: number;
  readonly peers: readonly NodeId[];
  readonly signal: AbortSignal;
  /** Whether the round this replica leaves was closed with its contribution; null where that is not known. */
  readonly counted: boolean | null;
}

/**
 * All leaves of the agreed state, in order. A peer whose answer fails its proof is penalised and not asked again;
 * `state-unavailable` when every peer failed, holds another stage or has gone on to another round.
 */
export async function fetchState(request: StateRequest): Promise<Outcome<Uint8Array[]>> {
  const { stage, agreed, plan, flatLength, signal } = request;
  const count = leafCount(flatLength);
  const usable = new Set(request.peers);
  const leaves: Uint8Array[] = new Array(count);
  let next = 0;

  const checked = (index: number, answer: Uint8Array): Uint8Array | undefined => {
    const decoded = decodeCanonical(answer, stateProtocol.responseBytesMax);
    const parsed = answerSchema.safeParse(decoded.ok ? decoded.value : undefined);
    if (!parsed.success) return undefined;
    const [root, bytes, proof] = parsed.data;
    const hash = toHex(stateHashOfRoot(plan, agreed.round, count, root));
    const fits = hash === agreed.stateHash && bytes.length === leafBytes(flatLength, index);
    return fits && verifyMerkleProof(root, count, index, bytes, proof) ? bytes : undefined;
  };

  const fetchLeaf = async (index: number): Promise<boolean> => {
    const peers = [...usable];
    for (let attempt = 0; attempt < peers.length; attempt++) {
      const peer = peers[(index + attempt) % peers.length]!;
      if (!usable.has(peer)) continue;
      const body = encodeCanonical([agreed.round, stage, index]);
      const answer = await request.transport.request(peer, stateProtocol, body, signal);
      if (signal.aborted) return false;
      const leaf = answer.ok ? checked(index, answer.value) : undefined;
      if (leaf) {
        leaves[index] = leaf;
        return true;
      }
      usable.delete(peer);
      if (answer.ok) request.transport.penalize(peer, 'bad-state-leaf');
    }
    return false;
  };

  const worker = async (): Promise<boolean> => {
    while (next < count) if (!(await fetchLeaf(next++))) return false;
    return true;
  };
  const done = await Promise.all(Array.from({ length: leavesInFlight }, worker));
  return done.every(Boolean) ? accept(leaves) : reject('state-unavailable', `round ${agreed.round}`);
}

/** Fetches the agreed state and stands on it. The replica is unchanged unless all of it is there and right. */
export async function resynchronise(
  replica: StageReplica,
  request: StateRequest,
): Promise<Outcome<{ readonly round: number; readonly stateHash: HashHex }>> {
  const leaves = await fetchState(request);
  if (!leaves.ok) return leaves;
  const { agreed, counted } = request;
  return replica.install({ ...agreed, leaves: leaves.value, counted });
}
