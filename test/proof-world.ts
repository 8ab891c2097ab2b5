/**
 * For tests of proofs and audits: a ledger world with provers that make plausible claims of a round with a known agreed
 * state, and auditors that commit and reveal what they are told to find.
 */
import type { KeyPair } from '../src/identity/keys.ts';
import { auditsOwed } from '../src/ledger/duties.ts';
import { chainOf, numberKey } from '../src/ledger/money.ts';
import { intervalsOf, type ProofBody, proofKey } from '../src/ledger/proof.ts';
import { commit } from '../src/ledger/state.ts';
import type { DutyRow, Verdict } from '../src/ledger/tables.ts';
import type { Transaction } from '../src/ledger/transaction.ts';
import { auditCommit } from '../src/ledger/transactions/audit-commit.ts';
import { auditReveal } from '../src/ledger/transactions/audit-reveal.ts';
import { proof } from '../src/ledger/transactions/proof.ts';
import { verdictCommitment } from '../src/ledger/verdict.ts';
import { utf8 } from '../src/std/bytes.ts';
import { sha256 } from '../src/std/hash.ts';
import { type LedgerWorld, worldStartMs } from './ledger-world.ts';

export const hashOf = (...names: readonly (string | number)[]) => sha256(utf8(names.join(' ')));
const zeros = new Uint8Array(32);

/** State hash of w_r of a stage in these worlds. */
export const baseOf = (round: number, stage = 0) => hashOf('base', round, stage);

/** Puts the row of a closed round, so that claims of the next one, whose state it agrees on, are plausible. */
export function closeRound(
  world: LedgerWorld,
  round: number,
  contributions: readonly (readonly [number, string, Uint8Array, Uint8Array, number])[] = [],
): void {
  const stages = world.constants.stageLayers.length;
  const agreed = Array.from({ length: stages }, (_, stage) => [stage, baseOf(round + 1, stage)] as const);
  const row = { list: hashOf('list', round), contributions, stated: [], agreed };
  commit(world.state, [{ table: 'round', key: numberKey(round), row }]);
}

/** Time of the block that comes next. */
export function nextMs(world: LedgerWorld): number {
  return Math.max(chainOf(world.state).timeMs, worldStartMs) + 1_000;
}

export interface Prover {
  readonly key: KeyPair;
  /** The claim that follows from the last one, with what a test wants otherwise; honest hashes are by name. */
  claim(changes?: Partial<ProofBody>): ProofBody;
  transaction(body: ProofBody): Transaction;
  /** Applied in a block of its own; the key of its duty. */
  prove(changes?: Partial<ProofBody>): string;
}

/** `steps`: of each claim; a new round begins when the old one has no room. */
export function proverIn(world: LedgerWorld, key: KeyPair, steps = world.constants.innerSteps): Prover {
  const { constants, state } = world;
  const prover: Prover = {
    key,
    claim: (changes = {}) => {
      const row = state.get('prover', key.nodeId);
      const goesOn = row?.after && row.step + steps <= constants.innerSteps;
      const round = !row?.after ? 1 : goesOn ? row.round : row.round + 1;
      const firstStep = goesOn ? row.step : 0;
      const place = { round, stage: 0, firstStep, endStep: firstStep + steps, ...changes };
      if (!state.get('round', numberKey(place.round - 1))) closeRound(world, place.round - 1);
      const { microbatches, innerSteps, stageLayers, tokensPerBatch, policy } = constants;
      const batches = (place.endStep - place.firstStep) * microbatches;
      const firstBatch = (place.round * innerSteps + place.firstStep) * microbatches;
      const intervals = Math.max(0, intervalsOf(place, policy.intervalSteps));
      return {
        type: 'training',
        timestampMs: nextMs(world),
        tokens: batches * tokensPerBatch,
        batches,
        layers: stageLayers[place.stage] ?? 0,
        hasEmbedding: place.stage === 0,
        hasHead: place.stage === stageLayers.length - 1,
        nonce: (row?.nonce ?? 0) + 1,
        base: baseOf(place.round, place.stage),
        before: goesOn ? row.after! : hashOf('start', key.nodeId, place.round),
        states: Array.from({ length: Math.min(256, intervals) }, (_, i) =>
          hashOf('state', key.nodeId, place.round, place.firstStep, i),
        ),
        firstBatch,
        endBatch: firstBatch + batches,
        lossMicronats: 5_000_000,
        contribution: null,
        work: stageLayers.length === 1 ? null : hashOf('work', key.nodeId, place.round),
        ...place,
      };
    },
    transaction: (body) => world.sign(proof, body, key),
    prove: (changes) => {
      const body = prover.claim(changes);
      world.advance([prover.transaction(body)]);
      return proofKey(constants.networkId, key.nodeId, body);
    },
  };
  return prover;
}

/** What an auditor finds; undefined: it says nothing. */
export type Opinion = { readonly verdict: Verdict; readonly hash?: Uint8Array } | undefined;
export type Finding = (auditor: string, key: string, duty: DutyRow) => Opinion;

/** What an honest auditor of a true claim recomputes. */
export const honestHash = (key: string) => hashOf('recomputed', key);
export const findsTrue: Finding = (_auditor, key) => ({ verdict: 'valid', hash: honestHash(key) });
export const findsFalse: Finding = (_auditor, key) => ({ verdict: 'false', hash: honestHash(key) });

/** The transactions that members owe to open duties, for the next block. */
export function auditTransactions(
  world: LedgerWorld,
  keys: ReadonlyMap<string, KeyPair>,
  finding: Finding,
): Transaction[] {
  const { state, constants } = world;
  const transactions: Transaction[] = [];
  for (const [auditor, signer] of keys) {
    for (const { key, duty, next } of auditsOwed(state, auditor, constants.policy)) {
      const opinion = finding(auditor, key, duty);
      if (!opinion) continue;
      const { verdict, hash = zeros } = opinion;
      const reveal = { duty: key, verdict, hash, salt: hashOf('salt', auditor, key) };
      if (next === 'reveal') transactions.push(world.sign(auditReveal, reveal, signer));
      else {
        const commitment = verdictCommitment(constants.networkId, auditor, reveal);
        transactions.push(world.sign(auditCommit, { duty: key, commitment }, signer));
      }
    }
  }
  return transactions;
}

export function keysByNode(keys: readonly KeyPair[]): ReadonlyMap<string, KeyPair> {
  return new Map(keys.map((key) => [key.nodeId, key]));
}

/** Runs blocks in which founders audit, until no duty is left or so many blocks have passed. */
export function settleAll(world: LedgerWorld, finding: Finding, blocks = 60): void {
  const keys = keysByNode(world.founders);
  for (let i = 0; i < blocks && world.state.keys('duty').length > 0; i++) {
    world.advance(auditTransactions(world, keys, finding));
  }
}
