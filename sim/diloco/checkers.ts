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

interface Watched {
  readonly network: Pick<NetworkManifest, 'networkId' | 'training'>;
  readonly honest: ReadonlySet<string>;
  readonly stageOf: (node: number) => number;
  /** Hashes by number, and of each round's list the number of its block. */
  readonly blocks: Map<number, HashHex>;
  readonly blockOf: Map<number, number>;
  readonly lists: Map<number, RoundList>;
  /** By `node id round`. */
  readonly contributions: Map<string, Set<HashHex>>;
  readonly authors: Map<HashHex, string>;
  /** By stage and round. */
  readonly closed: readonly Map<number, { readonly request: RoundRequest; readonly name: string }>[];
  readonly states: readonly Map<number, HashHex>[];
  /** By node id, the newest round whose list names it. */
  readonly listed: Map<string, number>;
}

/** `honest`: node ids; elsewhere a node is its index, and what it says is of the stage that it holds. */
export function createDilocoChecker(
  network: Pick<NetworkManifest, 'networkId' | 'training'>,
  honest: ReadonlySet<string>,
  stageOf: (node: number) => number,
): DilocoChecker {
  const { stages } = network.training;
  const ofStages = <T>() => Array.from({ length: stages }, () => new Map<number, T>());
  const w: Watched = {
    network,
    honest,
    stageOf,
    blocks: new Map(),
    blockOf: new Map(),
    lists: new Map(),
    contributions: new Map(),
    authors: new Map(),
    closed: ofStages(),
    states: ofStages(),
    listed: new Map(),
  };
  return {
    applies: (node, taken) => applies(w, node, taken),
    made(nodeId, round, blobHash) {
      const key = `${nodeId} ${round}`;
      w.authors.set(blobHash, nodeId);
      w.contributions.set(key, (w.contributions.get(key) ?? new Set()).add(blobHash));
    },
    authorOf: (blobHash) => w.authors.get(blobHash),
    closing: (node, request) => closing(w, node, request),
    stands: (node, round, stateHash) => stands(w, node, round, stateHash),
    installed(node, round, stateHash) {
      holds(w.states[stageOf(node)]!.has(round), 'agreement', () => {
        return `node ${node} takes a state of round ${round} in which no honest node ever stood`;
      });
      stands(w, node, round, stateHash);
    },
    closed: (stage) => new Map([...w.closed[stage]!].map(([round, { request }]) => [round, request])),
    states: (stage) => w.states[stage]!,
    newestRound: () => Math.max(...w.states.flatMap((ofStage) => [...ofStage.keys()])),
    lastListed: (nodeId) => w.listed.get(nodeId) ?? -1,
  };
}

function applies(w: Watched, node: number, { block, hash }: TakenBlock): void {
  const name = toHex(hash);
  const known = w.blocks.get(block.number);
  holds(known === undefined || known === name, 'agreement', () => {
    return `node ${node} applies ${name.slice(0, 8)} as block ${block.number}, another ${known?.slice(0, 8)}`;
  });
  if (known) return;
  w.blocks.set(block.number, name);
  const payload = listOf(block);
  if (!payload) return;
  const list = decodeRoundList(w.network.networkId, payload);
  holds(list.ok, 'validity', () => `block ${block.number} decides no round list`);
  const { round } = list.value;
  w.lists.set(round, list.value);
  const other = w.blockOf.get(round);
  holds(other === undefined, 'one-decision-a-round', () => {
    return `round ${round} is decided in blocks ${other} and ${block.number}`;
  });
  w.blockOf.set(round, block.number);
}

function closing(w: Watched, node: number, request: RoundRequest): void {
  const { round } = request;
  const entries = request.contributions.map(({ nodeId, batches, blob }) => {
    return { nodeId, batches, blobHash: sha256Hex(blob) };
  });
  const name = JSON.stringify(entries);
  const stage = w.stageOf(node);
  const known = w.closed[stage]!.get(round);
  holds(known === undefined || known.name === name, 'agreement', () => {
    return `node ${node} closes round ${round} with ${name}, another with ${known?.name}`;
  });
  if (known) return;
  w.closed[stage]!.set(round, { request, name });
  const list = w.lists.get(round);
  if (list) sameShare(list, stage, entries);
  const nodes = new Set(entries.map(({ nodeId }) => nodeId));
  holds(nodes.size === entries.length, 'counted-once', () => `a node twice in round ${round}: ${name}`);
  for (const { nodeId, blobHash } of entries) {
    w.listed.set(nodeId, Math.max(round, w.listed.get(nodeId) ?? -1));
    if (!w.honest.has(nodeId)) continue;
    holds(w.contributions.get(`${nodeId} ${round}`)?.has(blobHash) === true, 'counted-once', () => {
      return `round ${round} counts a blob of ${nodeId.slice(0, 8)} that it did not make for it`;
    });
  }
}

function stands({ stageOf, states }: Watched, node: number, round: number, stateHash: HashHex): void {
  const stage = stageOf(node);
  const known = states[stage]!.get(round) ?? stateHash;
  states[stage]!.set(round, known);
  holds(known === stateHash, 'agreement', () => {
    return `node ${node} stands at round ${round} of stage ${stage} in state ${stateHash.slice(0, 8)}, another in ${known.slice(0, 8)}`;
  });
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
