/**
 * What a node says about itself, folded from its events: the document of `GET /api/status`, and what the metrics are
 * made of. Every value survives JSON. Knows nothing of HTTP.
 */
import type { NodeEvent } from '../peer/events.ts';
import type { LedgerStatus } from '../peer/ledger-report.ts';
import type { PaymentStatus } from '../peer/payments.ts';

/** The part of the model that a node holds. */
export interface StageFacts {
  /** From 0. */
  readonly index: number;
  readonly count: number;
  readonly firstLayer: number;
  readonly endLayer: number;
  /** `driver` holds the embedding, `validator` the head, `worker` neither. */
  readonly roles: readonly ('driver' | 'worker' | 'validator')[];
}

/** How work moves through the stages, as this node sees it. */
export interface PipelineStatus {
  /** Nodes known to hold each stage, this one included. */
  readonly replicas: readonly number[];
  /** Tasks waiting, by class. */
  readonly queue: Readonly<Record<string, number>>;
  readonly queueRefused: number;
  /** Of the time in which there was work; null before there was any. */
  readonly utilisation: number | null;
  /** No replica of the next stage can be had. */
  readonly starving: boolean;
  readonly failovers: number;
  readonly lostMicrobatches: number;
  readonly convictedDrivers: number;
}

/** What does not change while the node runs. */
export interface NodeFacts {
  readonly pid: number;
  readonly version: string;
  /** Hex, as are all hashes. */
  readonly nodeId: string;
  readonly network: { readonly name: string; readonly id: string };
  /** Of the stage that this node holds. */
  readonly parameters: number;
  readonly stage: StageFacts;
  /** `default`, `mean`, `median`, … and how many hostile contributions it withstands. */
  readonly aggregator: { readonly name: string; readonly toleratedHostile: number };
  /** The tensor engine's id, e.g. `native-cpu`, and the provider it runs on. */
  readonly engine: { readonly id: string; readonly provider: string };
  /** Milliseconds since the Unix epoch. */
  readonly startedAtMs: number;
}

export interface NodeStatus {
  readonly pid: number;
  readonly version: string;
  readonly nodeId: string;
  readonly network: { readonly name: string; readonly id: string };
  readonly parameters: number;
  readonly stage: StageFacts;
  readonly pipeline: PipelineStatus;
  readonly round: number;
  /** 1-based within the round; 0 before the first. */
  readonly step: number;
  readonly innerSteps: number | null;
  /** Of the last inner step. */
  readonly loss: number | null;
  readonly heldOutLoss: number | null;
  readonly tokensPerSecond: number | null;
  /** Connected peers, members or not. */
  readonly peers: number;
  readonly members: {
    /** Who votes in the ledger's running epoch. */
    readonly total: number;
    /** Of those, this node included. */
    readonly connected: number;
    /** Members that may fail in any way, lie included, while blocks are decided and rounds close. */
    readonly toleratedFailures: number;
  };
  readonly ledger: LedgerStatus;
  /** Earned and paid for inference. */
  readonly payments: PaymentStatus;
  readonly aggregator: { readonly name: string; readonly toleratedHostile: number };
  readonly engine: { readonly id: string; readonly provider: string };
  /** After the last outer step; null before the first since the start. */
  readonly stateHash: string | null;
  readonly uptimeMs: number;
  /** Since the start of this process. Bytes are counted when a round closes. */
  readonly totals: {
    readonly steps: number;
    readonly tokens: number;
    readonly rounds: number;
    readonly bytesSent: number;
    readonly bytesReceived: number;
    readonly contributionsAccepted: number;
    /** By code. */
    readonly contributionsRejected: Readonly<Record<string, number>>;
    readonly resyncs: number;
    readonly checkpoints: number;
    readonly warnings: number;
  };
}

export interface StatusKeeper {
  apply(event: NodeEvent): void;
  status(nowMs: number, pipeline: PipelineStatus, ledger: LedgerStatus, payments: PaymentStatus): NodeStatus;
}

/** Codes come from our own screening, but a map that peers can make grow has a bound all the same. */
const rejectionCodesMax = 64;

export function keepStatus(facts: NodeFacts): StatusKeeper {
  const { startedAtMs, ...fixed } = facts;
  let now: Pick<NodeStatus, 'round' | 'step' | 'innerSteps' | 'loss' | 'heldOutLoss' | 'tokensPerSecond'> = {
    round: 0,
    step: 0,
    innerSteps: null,
    loss: null,
    heldOutLoss: null,
    tokensPerSecond: null,
  };
  let peers = 0;
  let membersConnected = 0;
  let stateHash: string | null = null;
  let totals = {
    steps: 0,
    tokens: 0,
    rounds: 0,
    bytesSent: 0,
    bytesReceived: 0,
    contributionsAccepted: 0,
    resyncs: 0,
    checkpoints: 0,
    warnings: 0,
  };
  const rejected = new Map<string, number>();

  const applyRound = (event: NodeEvent & { type: 'round' }) => {
    stateHash = event.stateHash;
    now = { ...now, round: event.round + 1, step: 0, heldOutLoss: event.heldOutLoss ?? now.heldOutLoss };
    totals = {
      ...totals,
      rounds: totals.rounds + 1,
      bytesSent: totals.bytesSent + event.bytesSent,
      bytesReceived: totals.bytesReceived + event.bytesReceived,
      contributionsAccepted: totals.contributionsAccepted + event.contributions.length,
    };
    for (const { code } of event.rejected) {
      const key = rejected.has(code) || rejected.size < rejectionCodesMax ? code : 'other';
      rejected.set(key, (rejected.get(key) ?? 0) + 1);
    }
  };

  return {
    apply(event) {
      switch (event.type) {
        case 'started':
          now = { ...now, round: event.round, step: event.step };
          return;
        case 'step': {
          const { round, step, innerSteps, loss, tokensPerSecond } = event;
          now = { ...now, round, step, innerSteps, loss, tokensPerSecond };
          totals = { ...totals, steps: totals.steps + 1, tokens: totals.tokens + event.tokens };
          return;
        }
        case 'round':
          applyRound(event);
          return;
        case 'heldOut':
          now = { ...now, heldOutLoss: event.loss };
          return;
        case 'resync':
          now = { ...now, round: event.toRound, step: 0 };
          totals = { ...totals, resyncs: totals.resyncs + 1 };
          return;
        case 'restored':
          now = { ...now, round: event.round, step: event.step };
          return;
        case 'peers':
          peers = event.connected;
          membersConnected = event.membersConnected;
          return;
        case 'checkpoint':
          totals = { ...totals, checkpoints: totals.checkpoints + 1 };
          return;
        case 'warning':
          totals = { ...totals, warnings: totals.warnings + 1 };
          return;
        case 'contribution':
        case 'block':
        case 'audit':
        case 'failover':
        case 'sample':
        case 'finished':
        case 'stopped':
          return;
      }
    },
    status: (nowMs, pipeline, ledger, payments) => ({
      ...fixed,
      pipeline,
      ledger,
      payments,
      ...now,
      peers,
      members: {
        total: ledger.members,
        connected: membersConnected,
        toleratedFailures: ledger.toleratedFailures,
      },
      stateHash,
      uptimeMs: nowMs - startedAtMs,
      totals: { ...totals, contributionsRejected: Object.fromEntries(rejected) },
    }),
  };
}
