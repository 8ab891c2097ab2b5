/**
 * A node's claims on their way to the ledger, in order: each follows from the state that the one before ended in, so the
 * next is sent only once the last was taken, and one that got lost is sent again. It makes no claims and records nothing.
 */
import type { ProofBody } from '../ledger/proof.ts';
import { equalBytes } from '../std/bytes.ts';
import type { Outcome } from '../std/outcome.ts';

export interface Claims {
  /** The claim of the next steps. */
  add(body: ProofBody): void;
  /** After a block: what it took is done, and what is still due goes out. */
  settle(): void;
  /** Claims that are not taken yet. */
  readonly due: number;
}

export interface ClaimsOptions {
  /** State that the ledger's newest proof of this node ended in. */
  readonly newest: () => Uint8Array | null;
  /** Sends it with the time and nonce of now; the id under which it waits. */
  readonly send: (body: ProofBody) => Outcome<Uint8Array>;
  /** Whether a transaction still waits for its block. */
  readonly waits: (id: Uint8Array) => boolean;
  /** A claim will never be taken: nobody can follow from there. */
  readonly onLost: (body: ProofBody, code: string) => void;
}

/** More wait only where the ledger stands still. */
const dueMax = 16;
/** Blocks after which a refused claim is given up: what it needs on the ledger comes with the next ones. */
const attemptsMax = 8;

/** Refusals that more blocks may mend; after any other the claim is lost. */
const passing: ReadonlySet<string> = new Set([
  'round-unknown',
  'proof-out-of-order',
  'too-many-proofs',
  'too-many-of-author',
  'mempool-full',
  'stale-nonce',
  'rate-implausible',
]);

export function createClaims({ newest, send, waits, onLost }: ClaimsOptions): Claims {
  let due: ProofBody[] = [];
  let sent: Uint8Array | undefined;
  let attempts = 0;

  const giveUp = (code: string) => {
    const [first] = due;
    due = [];
    sent = undefined;
    attempts = 0;
    if (first) onLost(first, code);
  };
  const sendFirst = () => {
    const [first] = due;
    if (!first) return;
    const outcome = send(first);
    if (outcome.ok) sent = outcome.value;
    else if (!passing.has(outcome.code) || ++attempts > attemptsMax) giveUp(outcome.code);
  };
  const isTaken = (body: ProofBody) => {
    const after = newest();
    return after !== null && equalBytes(after, body.states.at(-1)!);
  };
  return {
    get due() {
      return due.length;
    },
    add: (body) => {
      due.push(body);
      if (due.length > dueMax) giveUp('too-many-due');
      else if (due.length === 1) sendFirst();
    },
    settle: () => {
      while (due[0] && isTaken(due[0])) {
        due.shift();
        sent = undefined;
        attempts = 0;
      }
      if (due[0] && !(sent && waits(sent))) sendFirst();
    },
  };
}
