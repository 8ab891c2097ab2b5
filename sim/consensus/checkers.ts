/**
 * What must hold of consensus whatever happens: one payload at each height, the same order everywhere, one decision for
 * each round, and no honest member that contradicts itself on the wire. Watches from outside, in omniscience.
 */
import { defaultLimits } from '../../src/consensus/limits.ts';
import { decodeMessage } from '../../src/consensus/messages.ts';
import type { DecidedBlock } from '../../src/consensus/types.ts';
import { toHex } from '../../src/std/bytes.ts';
import { holds } from '../scenario.ts';

export interface ConsensusChecker {
  /** An honest node's application took this decision; `round` is what the payload says. */
  decided(node: number, decided: DecidedBlock, round: number): void;
  /** An honest node sent this. */
  said(node: number, message: Uint8Array): void;
  /** The durable log of an honest node: rounds in the order applied. */
  log(node: number, rounds: readonly number[]): void;
  rounds(): number;
}

export function createConsensusChecker(networkId: Uint8Array): ConsensusChecker {
  const blocks = new Map<number, string>();
  const roundAt = new Map<number, number>();
  const statements = new Map<string, string>();
  return {
    decided(node, { block, hash }, round) {
      const name = toHex(hash);
      const known = blocks.get(block.height);
      holds(known === undefined || known === name, 'agreement', () => {
        return `node ${node} decides ${name.slice(0, 8)} at height ${block.height}, another ${known?.slice(0, 8)}`;
      });
      blocks.set(block.height, name);
      const height = roundAt.get(round);
      holds(height === undefined || height === block.height, 'one-decision-a-round', () => {
        return `round ${round} at heights ${height} and ${block.height}`;
      });
      roundAt.set(round, block.height);
    },
    said(node, message) {
      const decoded = decodeMessage(message, networkId, defaultLimits);
      holds(decoded.ok, 'well-formed', () => `node ${node} sent what cannot be read`);
      if (decoded.value.message.type !== 'vote') return;
      const { kind, member, height, blockHash } = decoded.value.message.vote;
      const name = `${kind} of ${member} at ${height}`;
      const hash = toHex(blockHash);
      const before = statements.get(name);
      holds(before === undefined || before === hash, 'one-vote', () => `honest member said two: ${name}`);
      statements.set(name, hash);
      const other = kind === 'finalize' ? 'dummy' : kind === 'dummy' ? 'finalize' : undefined;
      holds(
        !other || !statements.has(`${other} of ${member} at ${height}`),
        'finalize-xor-dummy',
        () => name,
      );
    },
    log(node, rounds) {
      rounds.forEach((round, i) => {
        holds(round === i, 'exactly-once', () => `node ${node} applied ${rounds.slice(0, i + 1)}`);
      });
    },
    rounds: () => roundAt.size,
  };
}
