/**
 * What must hold of consensus whatever happens: one payload at each height, the same order everywhere, one decision for
 * each round, epochs that begin alike everywhere and not before their predecessor is over, no honest member that
 * contradicts itself on the wire, and no evidence against one. Watches from outside, in omniscience.
 */

import { epochDomain, membersHash } from '../../src/consensus/epoch-end.ts';
import type { CertifiedStart, Equivocation } from '../../src/consensus/epoch-types.ts';
import { decodeEnvelope } from '../../src/consensus/epoch-wire.ts';
import { checkEvidence } from '../../src/consensus/equivocation.ts';
import { defaultLimits } from '../../src/consensus/limits.ts';
import { decodeMessage } from '../../src/consensus/messages.ts';
import type { DecidedBlock, SignatureScheme } from '../../src/consensus/types.ts';
import { toHex } from '../../src/std/bytes.ts';
import { holds } from '../scenario.ts';
import type { Schedule } from './schedule.ts';

export interface ConsensusChecker {
  /** An honest node's application took this decision; `round` is what the payload says. */
  decided(node: number, epoch: number, decided: DecidedBlock, round: number): void;
  /** An honest node sent this. */
  said(node: number, message: Uint8Array): void;
  /** An honest node entered an epoch. */
  began(node: number, start: CertifiedStart): void;
  /** An honest node has evidence. */
  accused(node: number, equivocation: Equivocation): void;
  /** The durable log of an honest node: rounds in the order applied. */
  log(node: number, rounds: readonly number[]): void;
  rounds(): number;
  epochs(): number;
  accusations(): number;
}

export interface CheckerOptions {
  readonly networkId: Uint8Array;
  readonly schedule: Schedule;
  readonly signatures: SignatureScheme;
  /** Node ids of those who may be accused. */
  readonly hostile: ReadonlySet<string>;
}

export function createConsensusChecker(options: CheckerOptions): ConsensusChecker {
  const { networkId, schedule, signatures, hostile } = options;
  const blocks = new Map<string, string>();
  const roundAt = new Map<number, string>();
  const roots = new Map<number, string>();
  const statements = new Map<string, string>();
  let accusations = 0;
  return {
    decided(node, epoch, { block, hash }, round) {
      const at = `${epoch}/${block.height}`;
      const name = toHex(hash);
      const known = blocks.get(at);
      holds(known === undefined || known === name, 'agreement', () => {
        return `node ${node} decides ${name.slice(0, 8)} at ${at}, another ${known?.slice(0, 8)}`;
      });
      blocks.set(at, name);
      const other = roundAt.get(round);
      holds(other === undefined || other === at, 'one-decision-a-round', () => {
        return `round ${round} at ${other} and ${at}`;
      });
      roundAt.set(round, at);
    },
    said(node, message) {
      const envelope = decodeEnvelope(message, defaultLimits);
      holds(envelope.ok, 'well-formed', () => `node ${node} sent no envelope`);
      const { epoch } = envelope.value;
      const decoded = decodeMessage(envelope.value.message, epochDomain(networkId, epoch), defaultLimits);
      holds(decoded.ok, 'well-formed', () => `node ${node} sent what cannot be read`);
      if (decoded.value.message.type !== 'vote') return;
      const { kind, member, height, blockHash } = decoded.value.message.vote;
      holds(epoch === 0 || roundAt.size >= epoch * schedule.rounds, 'epoch-after-epoch', () => {
        return `node ${node} votes in epoch ${epoch} after ${roundAt.size} rounds`;
      });
      const name = `${kind} of ${member} at ${epoch}/${height}`;
      const hash = toHex(blockHash);
      const before = statements.get(name);
      holds(before === undefined || before === hash, 'one-vote', () => `honest member said two: ${name}`);
      statements.set(name, hash);
      const other = kind === 'finalize' ? 'dummy' : kind === 'dummy' ? 'finalize' : undefined;
      holds(
        !other || !statements.has(`${other} of ${member} at ${epoch}/${height}`),
        'finalize-xor-dummy',
        () => name,
      );
    },
    began(node, { epoch, root, members }) {
      const name = toHex(root);
      holds((roots.get(epoch) ?? name) === name, 'one-beginning', () => `node ${node}, epoch ${epoch}`);
      roots.set(epoch, name);
      const scheduled = membersHash(schedule.membersOf(epoch));
      holds(toHex(membersHash(members)) === toHex(scheduled), 'right-members', () => `epoch ${epoch}`);
    },
    accused(node, { epoch, nodeId, bytes }) {
      accusations += 1;
      holds(hostile.has(nodeId), 'just-accusation', () => `node ${node} accuses ${nodeId.slice(0, 8)}`);
      const checked = checkEvidence(bytes, networkId, { members: schedule.membersOf(epoch), signatures });
      holds(checked.ok, 'just-accusation', () => `evidence of node ${node}: ${!checked.ok && checked.code}`);
    },
    log(node, rounds) {
      rounds.forEach((round, i) => {
        holds(round === i, 'exactly-once', () => `node ${node} applied ${rounds.slice(0, i + 1)}`);
      });
    },
    rounds: () => roundAt.size,
    epochs: () => roots.size,
    accusations: () => accusations,
  };
}
