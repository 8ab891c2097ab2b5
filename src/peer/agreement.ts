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
  type StatementBook,
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

interface Agreement {
  readonly options: AgreementOptions;
  /** By stage: each cohort agrees by itself. */
  readonly books: readonly StatementBook[];
  readonly ownBook: StatementBook;
  /** Of its own stage's cohort. */
  readonly isMember: boolean;
  readonly listeners: Set<() => void>;
  /** The newest of this node's own. */
  own: Statement | undefined;
}

export function trackAgreement(options: AgreementOptions): AgreementTracker {
  const { network, stage, key, transport } = options;
  const books = Array.from({ length: network.training.stages }, (_, index) =>
    createStatementBook(network.members.filter((member) => member.stage === index)),
  );
  const ownBook = must(books[stage], `stage ${stage}`);
  const isMember = network.members.some((member) => member.nodeId === key.nodeId && member.stage === stage);
  const listeners = new Set<() => void>();
  const a: Agreement = { options, books, ownBook, isMember, listeners, own: undefined };
  const unsubscribe = transport.subscribe(topic, statementBytesMax, (from, message) => {
    const decoded = decodeStatement(network.networkId, message);
    if (decoded.ok) take(a, decoded.value);
    else transport.penalize(from, decoded.code);
  });
  const unhandle = transport.handle(statusProtocol, async () => accept(encodeCanonical(statusOf(a))));
  return {
    state: (round, stateHash) => state(a, round, stateHash),
    newest: () => ownBook.newest(),
    agreed: (round, of = stage) => books[of]?.agreed(round),
    inquire: async (signal) => {
      await Promise.all(transport.peers().map((peer) => ask(a, peer, signal)));
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

async function state(a: Agreement, round: number, stateHash: HashHex): Promise<void> {
  const { network, stage, key, transport } = a.options;
  if (!a.isMember) return;
  const statement = makeStatement(network.networkId, { round, stage, stateHash }, key);
  // A member that found itself different stands here for the second time: what it said first stays said.
  if (!a.ownBook.add(statement).ok) return;
  a.own = statement;
  tellListeners(a);
  await transport.publish(topic, encodeCanonical(statementFields(statement)));
}

function take(a: Agreement, statement: Statement): void {
  const added = a.books[statement.stage]?.add(statement) ?? reject('wrong-stage');
  if (added.ok) tellListeners(a);
  // Who passes such a statement on may be honest: only its author is to blame.
  else if (added.code === 'equivocation') a.options.transport.penalize(statement.nodeId, added.code);
}

function tellListeners({ listeners }: Agreement): void {
  for (const listener of [...listeners]) listener();
}

/** The newest statements of all cohorts, and this node's own. */
function statusOf({ books, own }: Agreement): Canonical[] {
  // A member states for one stage only, so this is one statement of each at most.
  const known = books.flatMap((book) => {
    const newest = book.newest();
    return newest ? book.of(newest.round) : [];
  });
  const fields: Canonical[] = known.slice(0, statementsMax).map(statementFields);
  if (own && !known.some((one) => one.nodeId === own.nodeId)) fields.push(statementFields(own));
  return fields;
}

async function ask(a: Agreement, peer: NodeId, signal?: AbortSignal): Promise<void> {
  const { network, transport } = a.options;
  const answer = await transport.request(peer, statusProtocol, new Uint8Array([0x80]), signal);
  if (!answer.ok) return;
  const decoded = decodeCanonical(answer.value, statusProtocol.responseBytesMax);
  const parsed = z
    .array(z.unknown())
    .max(statementsMax + 1)
    .safeParse(decoded.ok ? decoded.value : undefined);
  if (!parsed.success) return transport.penalize(peer, 'malformed');
  for (const fields of parsed.data) {
    const statement = statementOf(network.networkId, fields);
    if (!statement.ok) return transport.penalize(peer, statement.code);
    take(a, statement.value);
  }
}
