/**
 * State statements: each member signs the state hash that its stage stands on after every outer step. A hash is agreed
 * when members with more than a third of the cohort's weight state it, so at least one honest member does, and no other
 * hash has as much. Statements compare nodes every round and let a newcomer recognise the right state.
 */
import { z } from 'zod';
import { type KeyPair, nodeIdOf, signDigest, verifyDigest } from '../identity/keys.ts';
import { fromHex, toHex } from '../std/bytes.ts';
import { type Canonical, decodeCanonical, encodeCanonical } from '../std/codec.ts';
import { type HashHex, taggedHash } from '../std/hash.ts';
import { accept, type Outcome, reject } from '../std/outcome.ts';

export interface Statement {
  readonly round: number;
  /** The stage it is about, counted from 0. */
  readonly stage: number;
  readonly stateHash: HashHex;
  readonly nodeId: string;
  readonly publicKey: Uint8Array;
  readonly signature: Uint8Array;
}

export interface WeightedMember {
  readonly nodeId: string;
  readonly weight: number;
}

export const statementBytesMax = 256;

const bytes = (length: number) => z.instanceof(Uint8Array).refine((value) => value.length === length);
const wireSchema = z.tuple([
  z.number().int().min(0),
  z.number().int().min(0),
  bytes(32),
  bytes(33),
  bytes(64),
]);

type Body = Pick<Statement, 'round' | 'stage' | 'stateHash'>;

function digestOf(networkId: Uint8Array, { round, stage, stateHash }: Body): Uint8Array {
  const fields = encodeCanonical([round, stage, fromHex(stateHash)]);
  return taggedHash('neuroshard/statement/2', networkId, fields);
}

export function makeStatement(networkId: Uint8Array, body: Body, key: KeyPair): Statement {
  const signature = signDigest(digestOf(networkId, body), key.secretKey);
  return { ...body, nodeId: key.nodeId, publicKey: key.publicKey, signature };
}

export function statementFields(one: Statement): Canonical {
  return [one.round, one.stage, fromHex(one.stateHash), one.publicKey, one.signature];
}

/** `malformed-statement` or `bad-signature`. */
export function statementOf(networkId: Uint8Array, fields: unknown): Outcome<Statement> {
  const parsed = wireSchema.safeParse(fields);
  if (!parsed.success) return reject('malformed-statement');
  const [round, stage, hash, publicKey, signature] = parsed.data;
  const body = { round, stage, stateHash: toHex(hash) };
  if (!verifyDigest(digestOf(networkId, body), signature, publicKey)) return reject('bad-signature');
  return accept({ ...body, nodeId: nodeIdOf(publicKey), publicKey, signature });
}

export function decodeStatement(networkId: Uint8Array, message: Uint8Array): Outcome<Statement> {
  const decoded = decodeCanonical(message, statementBytesMax);
  return decoded.ok ? statementOf(networkId, decoded.value) : decoded;
}

export interface AgreedState {
  readonly round: number;
  readonly stateHash: HashHex;
}

/** The statements of one cohort. */
export interface StatementBook {
  /** Keeps a verified statement about the cohort's stage; those of others than its members, and a member's second one for a round, are refused. */
  add(statement: Statement): Outcome<Statement>;
  /** The agreed hash of a round, if there is one. */
  agreed(round: number): HashHex | undefined;
  /** The newest round with an agreed hash. */
  newest(): AgreedState | undefined;
  of(round: number): readonly Statement[];
}

/** Rounds kept; older statements are forgotten. */
const roundsKept = 4;
/** A statement further ahead than this of the newest agreed round is not kept. */
const roundsAhead = 1_000_000;

/** `members`: those of the cohort. */
export function createStatementBook(members: readonly WeightedMember[]): StatementBook {
  const weights = new Map(members.map((member) => [member.nodeId, member.weight]));
  const total = members.reduce((sum, member) => sum + member.weight, 0);
  /** Newest statement of each member, and those of the rounds kept. */
  const rounds = new Map<number, Map<string, Statement>>();

  const agreed = (round: number): HashHex | undefined => {
    const tally = new Map<HashHex, number>();
    for (const { nodeId, stateHash } of rounds.get(round)?.values() ?? []) {
      tally.set(stateHash, (tally.get(stateHash) ?? 0) + weights.get(nodeId)!);
    }
    const [first, second] = [...tally].sort((a, b) => b[1] - a[1]);
    return first && 3 * first[1] > total && first[1] > (second?.[1] ?? 0) ? first[0] : undefined;
  };
  const newest = (): AgreedState | undefined => {
    for (const round of [...rounds.keys()].sort((a, b) => b - a)) {
      const hash = agreed(round);
      if (hash) return { round, stateHash: hash };
    }
    return undefined;
  };
  return {
    add: (statement) => {
      if (!weights.has(statement.nodeId)) return reject('not-a-member');
      const top = newest()?.round ?? 0;
      if (statement.round + roundsKept <= top) return reject('stale-statement');
      if (statement.round > top + roundsAhead) return reject('future-statement');
      const round = rounds.get(statement.round) ?? new Map<string, Statement>();
      const known = round.get(statement.nodeId);
      if (known && known.stateHash !== statement.stateHash) return reject('equivocation');
      round.set(statement.nodeId, statement);
      rounds.set(statement.round, round);
      forgetOld(rounds, newest()?.round ?? 0, statement.nodeId);
      return accept(statement);
    },
    agreed,
    newest,
    of: (round) => [...(rounds.get(round)?.values() ?? [])],
  };
}

/** Keeps the book bounded: recent rounds, and few rounds ahead of the agreed one for any one member. */
function forgetOld(rounds: Map<number, Map<string, Statement>>, newestRound: number, nodeId: string): void {
  for (const round of rounds.keys()) if (round + roundsKept <= newestRound) rounds.delete(round);
  const ahead = [...rounds].filter(([round, statements]) => round > newestRound && statements.has(nodeId));
  for (const [round, statements] of ahead.sort((a, b) => a[0] - b[0]).slice(0, -roundsKept)) {
    statements.delete(nodeId);
    if (statements.size === 0) rounds.delete(round);
  }
}
