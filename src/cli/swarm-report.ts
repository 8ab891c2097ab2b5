/**
 * What a swarm run came to: nodes' events in, one report out. Pure; knows no processes. Field names are part of the
 * `--json` interface.
 */
import type { NodeEvent, RejectedContribution } from '../peer/events.ts';

export interface RoundReport {
  readonly round: number;
  /** Mean over the honest nodes that trained. */
  trainingLoss: number | null;
  heldOutLoss: number | null;
  /** Nodes whose contribution counted. */
  contributions: readonly string[];
  readonly rejected: RejectedContribution[];
  readonly bytesSent: Record<string, number>;
  readonly stateHashes: Record<string, string>;
  /** Whether the honest nodes of each stage stand on one hash. */
  statesAgree: boolean;
  tokens: number;
  wallMs: number;
}

export interface SwarmReport {
  readonly rounds: readonly RoundReport[];
  /** Training loss of every inner step, the mean over the honest Drivers that made it. */
  readonly losses: readonly number[];
  readonly initialHeldOutLoss: number | null;
  readonly finalHeldOutLoss: number | null;
  /** Of the honest nodes after the last round that all of them closed. */
  readonly stateHashes: Readonly<Record<string, string>>;
  readonly stateHashesAgree: boolean;
  readonly tokens: number;
  readonly tokensPerSecond: number;
  readonly bytesPerNodePerInnerStep: number;
  /** Bytes of fp32 ring all-reduce at every step, 8P(N−1)/N, over bytes sent. */
  readonly communicationReduction: number;
  /** Times that a replica of a next stage was given up for another one. */
  readonly failovers: number;
  /** Of the ledger, by honest node, after the newest block that all of them told of. */
  readonly stateRoots: Readonly<Record<string, string>>;
  /** Whether all of them have told of blocks, and none of another root after the same block. */
  readonly stateRootsAgree: boolean;
  /** Micro-NEURO, minted less burned. */
  readonly supply: string;
  /** With all that was taken from them, in micro-NEURO, and how many proofs they had made by then. */
  readonly slashed: readonly SlashedNode[];
  /** Proofs that honest nodes refused as they came, by author and code. */
  readonly refusedProofs: readonly { readonly node: string; readonly code: string; readonly times: number }[];
  /** Micro-NEURO of each honest node: to spend, staked, and earned but not paid out. */
  readonly balances: Readonly<Record<string, NodeBalance>>;
}

export interface SlashedNode {
  readonly node: string;
  readonly reason: string;
  /** Of the block. */
  readonly height: number;
  readonly amount: string;
  readonly proofs: number;
}

export interface NodeBalance {
  readonly balance: string;
  readonly stake: string;
  readonly pending: string;
  /** Challenges about held weights answered so far. */
  readonly answered: number;
}

export interface SwarmShape {
  /** All nodes, hostile ones too. */
  readonly nodes: readonly {
    readonly name: string;
    readonly nodeId: string;
    readonly hostile: boolean;
    readonly stage: number;
  }[];
  /** Of the whole model. */
  readonly parameters: () => number;
  readonly innerSteps: number;
}

export interface SwarmRecorder {
  record(name: string, event: NodeEvent, atMs: number): void;
  /** Rounds so far, in order. */
  rounds(): readonly RoundReport[];
  /** The highest round that every honest node has closed; −1 before the first. */
  closedByAll(): number;
  report(): SwarmReport;
}

interface Recording {
  readonly shape: SwarmShape;
  /** Names of the nodes whose word is taken. */
  readonly honest: ReadonlySet<string>;
  /** By node. */
  readonly stages: ReadonlyMap<string, number>;
  readonly nameOf: (nodeId: string) => string;
  readonly rounds: Map<number, RoundReport>;
  /** Training losses of the Drivers, by round and by inner step of the whole run. */
  readonly losses: Map<number, number[]>;
  readonly stepLosses: Map<number, number[]>;
  readonly blocks: Blocks;
  readonly refusals: Map<string, number>;
  failovers: number;
  initialHeldOutLoss: number | null;
  firstStepMs: number | undefined;
  /** When the last round was closed. */
  lastMs: number;
}

export function createSwarmRecorder(shape: SwarmShape): SwarmRecorder {
  const names = new Map(shape.nodes.map((node) => [node.nodeId, node.name]));
  const recording: Recording = {
    shape,
    honest: new Set(shape.nodes.filter((node) => !node.hostile).map((node) => node.name)),
    stages: new Map(shape.nodes.map((node) => [node.name, node.stage])),
    nameOf: (nodeId) => names.get(nodeId) ?? nodeId,
    rounds: new Map(),
    losses: new Map(),
    stepLosses: new Map(),
    blocks: { newest: new Map(), roots: new Map(), agree: true },
    refusals: new Map(),
    failovers: 0,
    initialHeldOutLoss: null,
    firstStepMs: undefined,
    lastMs: 0,
  };
  return {
    record: (name, event, atMs) => {
      if (recording.honest.has(name)) record(recording, name, event, atMs);
    },
    rounds: () => inOrder(recording),
    closedByAll: () => complete(recording).at(-1)?.round ?? -1,
    report: () => reportOf(recording),
  };
}

function inOrder({ rounds }: Recording): RoundReport[] {
  return [...rounds.values()].sort((a, b) => a.round - b.round);
}

/** Rounds that every honest node has closed. */
function complete(r: Recording): RoundReport[] {
  return inOrder(r).filter((one) => Object.keys(one.stateHashes).length === r.honest.size);
}

function record(r: Recording, name: string, event: NodeEvent, atMs: number): void {
  switch (event.type) {
    case 'step': {
      r.firstStepMs ??= atMs;
      const step = event.round * r.shape.innerSteps + event.step - 1;
      if (r.stages.get(name) === 0) add(r.stepLosses, step, event.loss);
      break;
    }
    case 'failover':
      r.failovers++;
      break;
    case 'refusedProof':
      countRefusal(r.refusals, name, event);
      break;
    case 'block':
      keepBlock(r.blocks, name, event);
      break;
    case 'heldOut':
      r.initialHeldOutLoss ??= event.loss;
      break;
    case 'round':
      r.lastMs = atMs;
      closeRound(r, name, event);
  }
}

/** All values of the key, this one included. */
function add(lists: Map<number, number[]>, key: number, value: number): readonly number[] {
  const all = [...(lists.get(key) ?? []), value];
  lists.set(key, all);
  return all;
}

function closeRound(r: Recording, name: string, event: NodeEvent & { readonly type: 'round' }): void {
  const { rounds, stages, nameOf } = r;
  const report = rounds.get(event.round) ?? emptyRound(event.round);
  rounds.set(event.round, report);
  report.stateHashes[name] = event.stateHash;
  report.statesAgree = agreeByStage(report.stateHashes, stages);
  report.bytesSent[name] = event.bytesSent;
  report.tokens += event.tokens;
  report.wallMs = Math.max(report.wallMs, event.wallMs);
  // A node tells of its own stage's.
  report.contributions = [...new Set([...report.contributions, ...event.contributions.map(nameOf)])];
  // Nodes may refuse different things before the decision; the report keeps every reason once.
  for (const { node, code } of event.rejected) {
    const known = report.rejected.some((one) => one.node === nameOf(node) && one.code === code);
    if (!known) report.rejected.push({ node: nameOf(node), code });
  }
  report.heldOutLoss = event.heldOutLoss ?? report.heldOutLoss;
  // Nodes of later stages see the same microbatches again.
  if (event.trainingLoss !== null && stages.get(name) === 0)
    report.trainingLoss = mean(add(r.losses, event.round, event.trainingLoss));
}

function reportOf(r: Recording): SwarmReport {
  const { shape, honest, nameOf } = r;
  const all = inOrder(r);
  const done = complete(r);
  const tokens = all.reduce((sum, one) => sum + one.tokens, 0);
  const seconds = Math.max(0.001, (r.lastMs - (r.firstStepMs ?? r.lastMs)) / 1000);
  const bytesPerNodePerInnerStep = bytesPerStep(done, honest.size, shape.innerSteps);
  const perStep = (8 * shape.parameters() * (shape.nodes.length - 1)) / shape.nodes.length;
  return {
    rounds: all,
    losses: [...r.stepLosses].sort((a, b) => a[0] - b[0]).map(([, values]) => mean(values)),
    initialHeldOutLoss: r.initialHeldOutLoss,
    finalHeldOutLoss: all.findLast((one) => one.heldOutLoss !== null)?.heldOutLoss ?? null,
    stateHashes: done.at(-1)?.stateHashes ?? {},
    stateHashesAgree: done.every((one) => one.statesAgree),
    tokens,
    tokensPerSecond: tokens / seconds,
    bytesPerNodePerInnerStep,
    failovers: r.failovers,
    ...ledgerReport(r.blocks, [...honest], nameOf),
    refusedProofs: refusedProofs(r.refusals, nameOf),
    communicationReduction: bytesPerNodePerInnerStep > 0 ? perStep / bytesPerNodePerInnerStep : 0,
  };
}

type BlockEvent = NodeEvent & { readonly type: 'block' };

/** The newest block that every node has told of; of those that are gone, what was in reach when they went. */
function newestOfAll(blocks: Blocks['newest'], honest: readonly string[]): number {
  const last = honest.map((name) => Math.max(0, ...(blocks.get(name)?.keys() ?? [])));
  const inReach = last.filter((number) => number > Math.max(...last) - blocksKept);
  return Math.min(...inReach);
}

interface Blocks {
  /** By node and number. */
  readonly newest: Map<string, Map<number, BlockEvent>>;
  /** By number, as the first node told. */
  readonly roots: Map<number, string>;
  /** Whether all told the same root after every block. */
  agree: boolean;
}

/** Blocks kept of each node: they are told of within moments of each other. */
const blocksKept = 32;

function keepBlock(blocks: Blocks, name: string, event: BlockEvent): void {
  const root = blocks.roots.get(event.number) ?? event.stateRoot;
  blocks.roots.set(event.number, root);
  if (root !== event.stateRoot) blocks.agree = false;
  const kept = blocks.newest.get(name) ?? new Map<number, BlockEvent>();
  blocks.newest.set(name, kept.set(event.number, event));
  for (const number of kept.keys()) if (number <= event.number - blocksKept) kept.delete(number);
}

/** Under 'node id/code/who told': every honest node refuses the same proof. */
function countRefusal(
  refusals: Map<string, number>,
  name: string,
  { node, code }: NodeEvent & { readonly type: 'refusedProof' },
): void {
  const key = `${node}/${code}/${name}`;
  refusals.set(key, (refusals.get(key) ?? 0) + 1);
}

/** As often as the node that saw most of them says. */
function refusedProofs(
  refusals: ReadonlyMap<string, number>,
  nameOf: (nodeId: string) => string,
): SwarmReport['refusedProofs'] {
  const most = new Map<string, number>();
  for (const [key, times] of refusals) {
    const which = key.slice(0, key.lastIndexOf('/'));
    most.set(which, Math.max(times, most.get(which) ?? 0));
  }
  return [...most].map(([which, times]) => {
    const [node, code] = which.split('/') as [string, string];
    return { node: nameOf(node), code, times };
  });
}

function ledgerReport(
  { newest: blocks, agree }: Blocks,
  honest: readonly string[],
  nameOf: (nodeId: string) => string,
) {
  const newest = newestOfAll(blocks, honest);
  const at = honest.flatMap((name) => {
    const event = blocks.get(name)?.get(newest);
    return event ? [[name, event] as const] : [];
  });
  return {
    stateRoots: Object.fromEntries(at.map(([name, { stateRoot }]) => [name, stateRoot])),
    stateRootsAgree: agree && honest.every((name) => blocks.has(name)),
    supply: at[0]?.[1].supply ?? '0',
    slashed: (at[0]?.[1].slashed ?? []).map((one) => ({ ...one, node: nameOf(one.node) })),
    balances: Object.fromEntries(
      at.map(([name, { balance, stake, pending, answered }]) => [
        name,
        { balance, stake, pending, answered },
      ]),
    ),
  };
}

function emptyRound(round: number): RoundReport {
  return {
    round,
    trainingLoss: null,
    heldOutLoss: null,
    contributions: [],
    rejected: [],
    bytesSent: {},
    stateHashes: {},
    statesAgree: true,
    tokens: 0,
    wallMs: 0,
  };
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

function agreeByStage(
  hashes: Readonly<Record<string, string>>,
  stages: ReadonlyMap<string, number>,
): boolean {
  const byStage = new Map<number | undefined, string>();
  return Object.entries(hashes).every(([name, hash]) => {
    const stage = stages.get(name);
    const first = byStage.get(stage) ?? hash;
    byStage.set(stage, first);
    return first === hash;
  });
}

/** Mean bytes sent by an honest node for each inner step of the rounds that all of them closed. */
function bytesPerStep(rounds: readonly RoundReport[], nodes: number, innerSteps: number): number {
  if (rounds.length === 0) return 0;
  const bytes = rounds.flatMap((one) => Object.values(one.bytesSent)).reduce((a, b) => a + b, 0);
  return bytes / (rounds.length * nodes * innerSteps);
}
