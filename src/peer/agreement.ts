/**
 * Which state each cohort has agreed on: gossips this member's statement after every outer step, collects those of
 * others, and asks peers for theirs when it has just arrived. It fetches nothing and changes no weights.
 */
import { z } from 'zod';
import {
  type AgreedState,
  createStatementBook,
  decodeStatement,
  makeStatement,
  type Statement,
  statementBytesMax,
  statementFields,
  statementOf,
} from '../diloco/statement.ts';
import type { KeyPair } from '../identity/keys.ts';
import { statusProtocol } from '../net/protocol.ts';
import type { NodeId, Transport } from '../net/transport.ts';
import { must } from '../std/assert.ts';
import { type Canonical, decodeCanonical, encodeCanonical } from '../std/codec.ts';
import type { HashHex } from '../std/hash.ts';
import { accept, reject } from '../std/outcome.ts';
import type { NetworkManifest } from './network.ts';

const topic = 'state';
/** Statements in one status answer. */
const statementsMax = 256;

export interface AgreementTracker {
  /** States where this node stands, and tells the others if it is a member of its stage's cohort. */
  state(round: number, stateHash: HashHex): Promise<void>;
  /** Of this node's own stage. */
  newest(): AgreedState | undefined;
  /** Of this node's own stage, unless another is named. */
  agreed(round: number, stage?: number): HashHex | undefined;
  /** Asks every connected peer what it knows; resolves when all have answered or failed. */
  inquire(signal?: AbortSignal): Promise<void>;
  onChange(listener: () => void): () => void;
  close(): void;
}

export interface AgreementOptions {
  readonly network: NetworkManifest;
  /** The stage that this node holds. */
  readonly stage: number;
  readonly key: KeyPair;
  readonly transport: Transport;
}

export function trackAgreement({ network, stage, key, transport }: AgreementOptions): AgreementTracker {
  const { networkId, members } = network;
  /** By stage: each cohort agrees by itself. */
  const books = Array.from({ length: network.training.stages }, (_, index) =>
    createStatementBook(members.filter((member) => member.stage === index)),
  );
  const ownBook = must(books[stage], `stage ${stage}`);
  const listeners = new Set<() => void>();
  const isMember = members.some((member) => member.nodeId === key.nodeId && member.stage === stage);
  let own: Statement | undefined;

  const tellListeners = () => {
    for (const listener of [...listeners]) listener();
  };

  const take = (statement: Statement) => {
    const added = books[statement.stage]?.add(statement) ?? reject('wrong-stage');
    if (added.ok) tellListeners();
    // Who passes such a statement on may be honest: only its author is to blame.
    else if (added.code === 'equivocation') transport.penalize(statement.nodeId, added.code);
  };

  const unsubscribe = transport.subscribe(topic, statementBytesMax, (from, message) => {
    const decoded = decodeStatement(networkId, message);
    if (decoded.ok) take(decoded.value);
    else transport.penalize(from, decoded.code);
  });

  const unhandle = transport.handle(statusProtocol, async () => {
    // A member states for one stage only, so this is one statement of each at most.
    const known = books.flatMap((book) => {
      const newest = book.newest();
      return newest ? book.of(newest.round) : [];
    });
    const fields: Canonical[] = known.slice(0, statementsMax).map(statementFields);
    if (own && !known.some((one) => one.nodeId === own!.nodeId)) fields.push(statementFields(own));
    return accept(encodeCanonical(fields));
  });

  const ask = async (peer: NodeId, signal?: AbortSignal) => {
    const answer = await transport.request(peer, statusProtocol, new Uint8Array([0x80]), signal);
    if (!answer.ok) return;
    const decoded = decodeCanonical(answer.value, statusProtocol.responseBytesMax);
    const parsed = z
      .array(z.unknown())
      .max(statementsMax + 1)
      .safeParse(decoded.ok ? decoded.value : undefined);
    if (!parsed.success) return transport.penalize(peer, 'malformed');
    for (const fields of parsed.data) {
      const statement = statementOf(networkId, fields);
      if (!statement.ok) return transport.penalize(peer, statement.code);
      take(statement.value);
    }
  };

  return {
    state: async (round, stateHash) => {
      if (!isMember) return;
      const statement = makeStatement(networkId, { round, stage, stateHash }, key);
      // A member that found itself different stands here for the second time: what it said first stays said.
      if (!ownBook.add(statement).ok) return;
      own = statement;
      tellListeners();
      await transport.publish(topic, encodeCanonical(statementFields(statement)));
    },
    newest: () => ownBook.newest(),
    agreed: (round, of = stage) => books[of]?.agreed(round),
    inquire: async (signal) => {
      await Promise.all(transport.peers().map((peer) => ask(peer, signal)));
    },
    onChange: (listener) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    close: () => {
      unsubscribe();
      unhandle();
    },
  };
}
