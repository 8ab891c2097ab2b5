/**
 * What is known of a swarm on this machine, folded from its nodes' events. Pure data: `live-view-render.ts` turns it
 * into text, `live-screen.ts` puts that on a terminal. Knows nothing of processes.
 */
import type { NodeEvent } from '../peer/events.ts';
import { createLedgerView, type LedgerView, noteBlock } from './live-ledger.ts';

export type Role = 'honest' | 'hostile';

export interface NodeView {
  readonly name: string;
  readonly role: Role;
  /** 0 until it has said so. */
  stage: number;
  state: 'starting' | 'training' | 'stopped';
  nodeId: string | undefined;
  parameters: number | undefined;
  round: number;
  /** 1-based within the round; 0 before the first. */
  step: number;
  innerSteps: number | undefined;
  tokensPerSecond: number | undefined;
  loss: number | undefined;
  heldOutLoss: number | undefined;
  peers: number | undefined;
  /** Decimal micro-NEURO, with what is not paid out yet; as of its newest block. */
  earned: string | undefined;
}

/** What one node reported when it closed a round. */
export interface RoundReport {
  readonly stage: number;
  readonly stateHash: string;
  readonly bytesSent: number;
  readonly tokens: number;
}

export interface RoundView {
  readonly round: number;
  /** Of all stages that have reported; names where known, else the beginning of the node id. */
  accepted: readonly string[];
  rejected: readonly { readonly node: string; readonly code: string }[];
  /** By node name; honest nodes only: what a hostile one says is worth nothing. */
  readonly reports: Map<string, RoundReport>;
}

export interface LiveView {
  readonly title: string;
  readonly nodes: readonly NodeView[];
  /** Oldest first, at most `roundsKept`. */
  rounds: RoundView[];
  /** Held-out loss of w_r by r: 0 is before training, closing round r gives that of r + 1. */
  heldOutLosses: Map<number, number>;
  sample: { readonly round: number; readonly prompt: string; readonly text: string } | undefined;
  readonly ledger: LedgerView;
  /** Node ids whose punishment was told. */
  readonly slashed: Set<string>;
  /** What happened to nodes, newest last, at most `notesKept`. */
  notes: string[];
}

const roundsKept = 64;
const notesKept = 4;

export function createLiveView(
  title: string,
  nodes: readonly { readonly name: string; readonly role: Role }[],
): LiveView {
  const unknown = {
    nodeId: undefined,
    parameters: undefined,
    innerSteps: undefined,
    tokensPerSecond: undefined,
    loss: undefined,
    heldOutLoss: undefined,
    peers: undefined,
    earned: undefined,
  };
  return {
    title,
    nodes: nodes.map(({ name, role }) => ({
      name,
      role,
      stage: 0,
      state: 'starting',
      round: 0,
      step: 0,
      ...unknown,
    })),
    rounds: [],
    heldOutLosses: new Map(),
    sample: undefined,
    ledger: createLedgerView(),
    slashed: new Set(),
    notes: [],
  };
}

/** Folds one event in; the result is the lines that an output without a terminal shows for it. */
export function applyEvent(view: LiveView, name: string, event: NodeEvent): string[] {
  const node = view.nodes.find((each) => each.name === name);
  if (node === undefined) return [];
  switch (event.type) {
    case 'started':
      node.state = 'training';
      node.nodeId = event.nodeId;
      node.parameters = event.parameters;
      node.stage = event.stage.index;
      node.round = event.round;
      node.step = event.step;
      return [`${name}: started as process ${event.pid}, ${event.parameters} parameters`];
    case 'step':
      return applyStep(node, event);
    case 'round':
      return applyRound(view, node, event);
    case 'heldOut':
      return applyHeldOut(view, node, event.round, event.loss);
    case 'peers':
      node.peers = event.connected;
      return [];
    case 'sample':
      if (node.role === 'hostile' || (view.sample && view.sample.round >= event.round)) return [];
      view.sample = event;
      return [`sample ${describeWeights(event.round)}: ${oneLine(event.prompt + event.text)}`];
    case 'resync':
      return addNote(view, `${name}: fetched the agreed state of round ${event.toRound} (${event.reason})`);
    case 'restored':
      return addNote(view, `${name}: resumed from its snapshot at round ${event.round}, step ${event.step}`);
    case 'failover':
      return addNote(
        view,
        `${name}: stage ${event.stage + 1} goes on elsewhere after ${Math.round(event.silentMs)} ms (${event.code})`,
      );
    case 'refusedProof':
      if (node.role === 'hostile') return [];
      return addNote(view, `${name}: a proof of ${event.node.slice(0, 8)} is refused: ${event.code}`);
    case 'warning':
      return addNote(view, `${name}: ${event.code}${event.detail && `: ${oneLine(event.detail)}`}`);
    case 'stopped':
      node.state = 'stopped';
      return [`${name}: stopped (${event.reason})`];
    case 'finished':
      return [`${name}: closed its last round`];
    case 'block':
      return applyBlock(view, node, event);
    case 'audit':
      if (event.code === 'valid') return [];
      return addNote(
        view,
        `${name}: audit of ${nameOf(view, event.prover)}, round ${event.round}: ${event.code}`,
      );
    case 'contribution':
    case 'checkpoint':
    case 'fetched':
      return [];
  }
}

/** Blocks are the same at all nodes: the first honest one that tells of a punishment is enough. */
function applyBlock(view: LiveView, node: NodeView, event: NodeEvent & { type: 'block' }): string[] {
  node.earned = String(BigInt(event.balance) + BigInt(event.stake) + BigInt(event.pending));
  if (node.role === 'hostile') return [];
  const slashed = event.slashed.filter(({ node: guilty }) => !view.slashed.has(guilty));
  const notes = slashed.flatMap(({ node: guilty, reason, height }) => {
    view.slashed.add(guilty);
    return addNote(view, `${nameOf(view, guilty)} slashed in block ${height}: ${reason}`);
  });
  return [...notes, ...noteBlock(view.ledger, node.name, event, runningHonest(view))];
}

export function runningHonest(view: LiveView): string[] {
  return view.nodes
    .filter(({ role, state }) => role === 'honest' && state !== 'stopped')
    .map(({ name }) => name);
}

function nameOf(view: LiveView, nodeId: string): string {
  return view.nodes.find((each) => each.nodeId === nodeId)?.name ?? nodeId.slice(0, 8);
}

/** A process ended, whatever it had said before. */
export function applyExit(view: LiveView, name: string, how: string): string[] {
  const node = view.nodes.find((each) => each.name === name);
  if (node === undefined) return [];
  const wasStopped = node.state === 'stopped';
  node.state = 'stopped';
  node.peers = undefined;
  node.tokensPerSecond = undefined;
  return wasStopped ? [] : addNote(view, `${name}: ${how}`);
}

export function addNote(view: LiveView, note: string): string[] {
  view.notes = [...view.notes, note].slice(-notesKept);
  return [note];
}

/** Steps between two plain lines of one node. */
const plainSteps = 10;

function applyStep(node: NodeView, event: NodeEvent & { type: 'step' }): string[] {
  const isFirst = node.loss === undefined;
  node.state = 'training';
  node.round = event.round;
  node.step = event.step;
  node.innerSteps = event.innerSteps;
  node.loss = event.loss;
  node.tokensPerSecond = event.tokensPerSecond;
  if (!isFirst && event.step % plainSteps !== 0 && event.step !== event.innerSteps) return [];
  // A node that drives nothing itself has no speed of its own.
  const speed = event.tokensPerSecond > 0 ? `, ${Math.round(event.tokensPerSecond)} tokens/s` : '';
  return [
    `${node.name}: round ${event.round} step ${describeStep(event.step, event.innerSteps)}, loss ${event.loss.toFixed(3)}${speed}`,
  ];
}

/** Not every node evaluates; the first honest one that did is believed, all compute on the same weights. */
function applyHeldOut(view: LiveView, node: NodeView, weightsRound: number, loss: number): string[] {
  node.heldOutLoss = loss;
  if (node.role === 'hostile' || view.heldOutLosses.has(weightsRound)) return [];
  view.heldOutLosses.set(weightsRound, loss);
  return [`held-out loss ${describeWeights(weightsRound)}: ${loss.toFixed(3)}`];
}

/** `7/20`; without the total where a stage that serves several Drivers makes more steps than one of them. */
export function describeStep(step: number, innerSteps: number | undefined): string {
  return innerSteps !== undefined && step > innerSteps ? String(step) : `${step}/${innerSteps ?? '-'}`;
}

/** The weights that round `round` starts from, as people count: `before training`, `after round 0`. */
export function describeWeights(round: number): string {
  return round === 0 ? 'before training' : `after round ${round - 1}`;
}

function applyRound(view: LiveView, node: NodeView, event: NodeEvent & { type: 'round' }): string[] {
  const heldOut =
    event.heldOutLoss === null ? [] : applyHeldOut(view, node, event.round + 1, event.heldOutLoss);
  if (node.role === 'hostile') return heldOut;
  const nameOf = (nodeId: string) =>
    view.nodes.find((each) => each.nodeId === nodeId)?.name ?? nodeId.slice(0, 8);
  let round = view.rounds.find((each) => each.round === event.round);
  const lines: string[] = [];
  if (round === undefined) {
    round = {
      round: event.round,
      accepted: event.contributions.map(nameOf),
      rejected: event.rejected.map(({ node: nodeId, code }) => ({ node: nameOf(nodeId), code })),
      reports: new Map(),
    };
    view.rounds = [...view.rounds, round].sort((a, b) => a.round - b.round).slice(-roundsKept);
    const rejected = round.rejected.map((each) => `${each.node} ${each.code}`).join(', ');
    const counts = `${round.accepted.length} accepted, ${round.rejected.length} rejected`;
    lines.push(`round ${event.round}: ${counts}${rejected && ` (${rejected})`}`);
  }
  round.accepted = [...new Set([...round.accepted, ...event.contributions.map(nameOf)])];
  const { stateHash, bytesSent, tokens } = event;
  round.reports.set(node.name, { stage: node.stage, stateHash, bytesSent, tokens });
  if (round.reports.size >= runningHonest(view).length)
    lines.push(`round ${event.round}: ${describeAgreement(round)}`);
  return [...lines, ...heldOut];
}

/**
 * The state hash that nodes reported, those of each stage by themselves: `same state 3fa9c1 on 4 nodes`, or which nodes
 * differ.
 */
export function describeAgreement(round: RoundView): string {
  const stages = [...Map.groupBy(round.reports, ([, report]) => report.stage)].sort(([a], [b]) => a - b);
  if (stages.length === 0) return 'no state reported';
  const described = stages.map(([, reports]) => describeStage(reports));
  const differing = described.filter(({ differs }) => differs);
  if (differing.length > 0) return `STATES DIFFER: ${differing.map(({ text }) => text).join('; ')}`;
  const where = stages.length === 1 ? '' : ' in each stage:';
  return `same state${where} ${described.map(({ text }) => text).join(', ')}`;
}

function describeStage(reports: readonly (readonly [string, RoundReport])[]) {
  const byHash = Map.groupBy(reports, ([, report]) => report.stateHash);
  const [largest, ...others] = [...byHash].sort(([, a], [, b]) => b.length - a.length);
  const [hash, holders] = largest!;
  const count = `${holders.length} ${holders.length === 1 ? 'node' : 'nodes'}`;
  if (others.length === 0) return { differs: false, text: `${hash.slice(0, 6)} on ${count}` };
  const different = others.flatMap(([, differing]) => differing.map(([name]) => name));
  return { differs: true, text: `${different.join(', ')} not ${hash.slice(0, 6)}` };
}

export function oneLine(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: a model may generate anything, a terminal must not obey it.
  return text.replace(/[\u0000-\u001f\u007f-\u009f\s]+/g, ' ').trim();
}
