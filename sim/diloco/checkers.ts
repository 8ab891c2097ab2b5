/**
 * What must hold of training together, whatever happens: one list for a round, one state after it, nothing counted
 * twice, nothing lost. Watches honest nodes from outside, in omniscience; it computes nothing of its own.
 */
import type { RoundRequest } from '../../src/diloco/replica.ts';
import { decodeRoundList, type RoundList, shareOf } from '../../src/diloco/round-list.ts';
import { listOf } from '../../src/peer/block-voting.ts';
import type { TakenBlock } from '../../src/peer/ledger.ts';
import type { NetworkManifest } from '../../src/peer/network.ts';
import { toHex } from '../../src/std/bytes.ts';
import { type HashHex, sha256Hex } from '../../src/std/hash.ts';
import { holds } from '../scenario.ts';

export interface DilocoChecker {
  /** An honest node applies a block of the ledger. */
  applies(node: number, taken: TakenBlock): void;
  /** An honest node has made this contribution. After a crash it may make another one to the same round. */
  made(nodeId: string, round: number, blobHash: HashHex): void;
  /** The honest node that made this blob. */
  authorOf(blobHash: HashHex): string | undefined;
  /** An honest node takes the outer step of this list. */
  closing(node: number, request: RoundRequest): void;
  /** An honest node stands at the start of a round. */
  stands(node: number, round: number, stateHash: HashHex): void;
  /** An honest node took a state from others. */
  installed(node: number, round: number, stateHash: HashHex): void;
  /** The lists by which a stage's rounds were closed, by round. */
  closed(stage: number): ReadonlyMap<number, RoundRequest>;
  /** A stage's state hash at the start of each round. */
  states(stage: number): ReadonlyMap<number, HashHex>;
  /** The newest round that any honest node has stood in. */
  newestRound(): number;
  /** The newest round whose list names this node; −1: none. */
  lastListed(nodeId: string): number;
}

/** `honest`: node ids; elsewhere a node is its index, and what it says is of the stage that it holds. */
export function createDilocoChecker(
  network: Pick<NetworkManifest, 'networkId' | 'training'>,
  honest: ReadonlySet<string>,
  stageOf: (node: number) => number,
): DilocoChecker {
  const { stages } = network.training;
  const ofStages = <T>() => Array.from({ length: stages }, () => new Map<number, T>());
  const blocks = new Map<number, HashHex>();
  const blockOf = new Map<number, number>();
  const contributions = new Map<string, Set<HashHex>>();
  const authors = new Map<HashHex, string>();
  const lists = new Map<number, RoundList>();
  const closed = ofStages<{ request: RoundRequest; name: string }>();
  const states = ofStages<HashHex>();
  const listed = new Map<string, number>();

  const stands = (node: number, round: number, stateHash: HashHex) => {
    const stage = stageOf(node);
    const known = states[stage]!.get(round) ?? stateHash;
    states[stage]!.set(round, known);
    holds(known === stateHash, 'agreement', () => {
      return `node ${node} stands at round ${round} of stage ${stage} in state ${stateHash.slice(0, 8)}, another in ${known.slice(0, 8)}`;
    });
  };

  return {
    applies(node, { block, hash }) {
      const name = toHex(hash);
      const known = blocks.get(block.number);
      holds(known === undefined || known === name, 'agreement', () => {
        return `node ${node} applies ${name.slice(0, 8)} as block ${block.number}, another ${known?.slice(0, 8)}`;
      });
      if (known) return;
      blocks.set(block.number, name);
      const payload = listOf(block);
      if (!payload) return;
      const list = decodeRoundList(network.networkId, payload);
      holds(list.ok, 'validity', () => `block ${block.number} decides no round list`);
      const { round } = list.value;
      lists.set(round, list.value);
      const other = blockOf.get(round);
      holds(other === undefined, 'one-decision-a-round', () => {
        return `round ${round} is decided in blocks ${other} and ${block.number}`;
      });
      blockOf.set(round, block.number);
    },
    made(nodeId, round, blobHash) {
      const key = `${nodeId} ${round}`;
      authors.set(blobHash, nodeId);
      contributions.set(key, (contributions.get(key) ?? new Set()).add(blobHash));
    },
    authorOf: (blobHash) => authors.get(blobHash),
    closing(node, request) {
      const { round } = request;
      const entries = request.contributions.map(({ nodeId, batches, blob }) => {
        return { nodeId, batches, blobHash: sha256Hex(blob) };
      });
      const name = JSON.stringify(entries);
      const stage = stageOf(node);
      const known = closed[stage]!.get(round);
      holds(known === undefined || known.name === name, 'agreement', () => {
        return `node ${node} closes round ${round} with ${name}, another with ${known?.name}`;
      });
      if (known) return;
      closed[stage]!.set(round, { request, name });
      const list = lists.get(round);
      if (list) sameShare(list, stage, entries);
      const nodes = new Set(entries.map(({ nodeId }) => nodeId));
      holds(nodes.size === entries.length, 'counted-once', () => `a node twice in round ${round}: ${name}`);
      for (const { nodeId, blobHash } of entries) {
        listed.set(nodeId, Math.max(round, listed.get(nodeId) ?? -1));
        if (!honest.has(nodeId)) continue;
        holds(contributions.get(`${nodeId} ${round}`)?.has(blobHash) === true, 'counted-once', () => {
          return `round ${round} counts a blob of ${nodeId.slice(0, 8)} that it did not make for it`;
        });
      }
    },
    stands,
    installed(node, round, stateHash) {
      holds(states[stageOf(node)]!.has(round), 'agreement', () => {
        return `node ${node} takes a state of round ${round} in which no honest node ever stood`;
      });
      stands(node, round, stateHash);
    },
    closed: (stage) => new Map([...closed[stage]!].map(([round, { request }]) => [round, request])),
    states: (stage) => states[stage]!,
    newestRound: () => Math.max(...states.flatMap((ofStage) => [...ofStage.keys()])),
    lastListed: (nodeId) => listed.get(nodeId) ?? -1,
  };
}

/** A stage closes with what the decided list says of it, or with nothing where the list was wrong about its base. */
function sameShare(
  list: RoundList,
  stage: number,
  entries: readonly { readonly nodeId: string; readonly blobHash: HashHex }[],
): void {
  const listed = shareOf(list, stage).contributions;
  const names = (some: typeof entries) => some.map(({ nodeId, blobHash }) => `${nodeId} ${blobHash}`).join();
  holds(entries.length === 0 || names(listed) === names(entries), 'agreement', () => {
    return `stage ${stage} closes round ${list.round} with ${names(entries)}, decided is ${names(listed)}`;
  });
}
