/**
 * A node's status as Prometheus text, version 0.0.4. A value that is not known yet is left out.
 * Source: https://prometheus.io/docs/instrumenting/exposition_formats/
 */
import type { PaymentStatus } from '../peer/payments.ts';
import type { TextCounts } from './openai/counters.ts';
import type { NodeStatus, PipelineStatus, StageFacts } from './status.ts';

type Sample = readonly [labels: Readonly<Record<string, string>>, value: number | null];

export const metricsContentType = 'text/plain; version=0.0.4; charset=utf-8';

/** `text`: of a node that answers prompts. */
export function renderMetrics(status: NodeStatus, text?: TextCounts): string {
  const { totals, members } = status;
  const info = {
    version: status.version,
    node: status.nodeId,
    network: status.network.name,
    engine: status.engine.id,
    aggregator: status.aggregator.name,
  };
  const rejected = Object.entries(totals.contributionsRejected).map(
    ([code, count]): Sample => [{ code }, count],
  );
  return [
    metric('info', 'gauge', 'What this node is; always 1.', [[info, 1]]),
    metric('uptime_seconds', 'gauge', 'Since the process started.', single(status.uptimeMs / 1000)),
    metric('parameters', 'gauge', 'Of the model this node trains.', single(status.parameters)),
    metric('round', 'gauge', 'The round that is being trained.', single(status.round)),
    metric('step', 'gauge', 'Inner steps made in this round.', single(status.step)),
    metric('loss', 'gauge', 'Training loss of the last inner step, nats per token.', single(status.loss)),
    metric(
      'held_out_loss',
      'gauge',
      'Held-out loss last measured, nats per token.',
      single(status.heldOutLoss),
    ),
    metric(
      'tokens_per_second',
      'gauge',
      'Training speed of the last inner step.',
      single(status.tokensPerSecond),
    ),
    metric('peers', 'gauge', 'Connected peers.', single(status.peers)),
    metric('members', 'gauge', 'Members with a vote, by whether they are connected.', [
      [{ state: 'connected' }, members.connected],
      [{ state: 'away' }, Math.max(0, members.total - members.connected)],
    ]),
    metric('steps_total', 'counter', 'Inner steps made.', single(totals.steps)),
    metric('tokens_total', 'counter', 'Tokens trained on.', single(totals.tokens)),
    metric('rounds_total', 'counter', 'Rounds closed.', single(totals.rounds)),
    metric(
      'bytes_total',
      'counter',
      'Bytes on the wire, all overheads included, counted when a round closes.',
      [
        [{ direction: 'sent' }, totals.bytesSent],
        [{ direction: 'received' }, totals.bytesReceived],
      ],
    ),
    metric(
      'contributions_accepted_total',
      'counter',
      'Contributions in closed rounds.',
      single(totals.contributionsAccepted),
    ),
    metric('contributions_rejected_total', 'counter', 'Contributions rejected, by reason.', rejected),
    metric(
      'resyncs_total',
      'counter',
      'Times an agreed state was fetched from others.',
      single(totals.resyncs),
    ),
    metric('checkpoints_total', 'counter', 'Snapshots written.', single(totals.checkpoints)),
    metric('warnings_total', 'counter', 'Warnings logged.', single(totals.warnings)),
    ...ledgerMetrics(status),
    ...paymentMetrics(status.payments),
    ...pipelineMetrics(status.stage, status.pipeline),
    ...(text ? textMetrics(text) : []),
  ].join('');
}

/** Amounts are micro-NEURO: above 2^53 the last digits are rounded, as every reader of such metrics would. */
function ledgerMetrics({ ledger, members }: NodeStatus): string[] {
  return [
    metric('ledger_block', 'gauge', 'Number of the newest final block.', single(ledger.number)),
    metric('ledger_epoch', 'gauge', 'The epoch whose members vote.', single(ledger.epoch)),
    metric('ledger_waiting', 'gauge', 'Transactions that wait for a block.', single(ledger.waiting)),
    metric(
      'tolerated_failures',
      'gauge',
      'Members that may fail while blocks are still decided.',
      single(members.toleratedFailures),
    ),
    metric('supply_micro_neuro', 'gauge', 'Minted less burned.', single(Number(ledger.supply))),
    metric(
      'account_micro_neuro',
      'gauge',
      'What this node has: to spend, staked, and earned but not paid out.',
      (['balance', 'stake', 'pending'] as const).map((part): Sample => [{ part }, Number(ledger[part])]),
    ),
    metric(
      'challenges_answered',
      'counter',
      'Questions about held weights that this node answered on the ledger.',
      single(ledger.answered),
    ),
  ];
}

/** Of inference; amounts as above. */
function paymentMetrics(payments: PaymentStatus): string[] {
  const { served, refused, bought, earned, paid, unclaimed, due, escrowed } = payments;
  return [
    metric('inference_positions_total', 'counter', 'Served to peers, refused unpaid, and bought of peers.', [
      [{ what: 'served' }, served],
      [{ what: 'refused' }, refused],
      [{ what: 'bought' }, bought],
    ]),
    metric('inference_micro_neuro_total', 'counter', 'Earned and paid for inference, in final blocks.', [
      [{ what: 'earned' }, Number(earned)],
      [{ what: 'paid' }, Number(paid)],
    ]),
    metric('inference_micro_neuro', 'gauge', 'In receipts not claimed yet, due to peers, and in escrows.', [
      [{ what: 'unclaimed' }, Number(unclaimed)],
      [{ what: 'due' }, Number(due)],
      [{ what: 'escrowed' }, Number(escrowed)],
    ]),
  ];
}

/** Stages are counted from 0, as everywhere outside what people read. */
function pipelineMetrics(stage: StageFacts, pipeline: PipelineStatus): string[] {
  const held = { stage: String(stage.index), stages: String(stage.count), roles: stage.roles.join(' ') };
  const replicas = pipeline.replicas.map((count, index): Sample => [{ stage: String(index) }, count]);
  const depths = Object.entries(pipeline.queue).map(([of, depth]): Sample => [{ class: of }, depth]);
  return [
    metric('stage_info', 'gauge', 'The stage this node holds; always 1.', [[held, 1]]),
    metric('stage_replicas', 'gauge', 'Nodes known to hold a stage, this one included.', replicas),
    metric('queue_depth', 'gauge', 'Tasks that wait for compute, by class.', depths),
    metric('queue_refused_total', 'counter', 'Tasks refused by a full queue.', single(pipeline.queueRefused)),
    metric(
      'utilisation_ratio',
      'gauge',
      'Share of the time with work in which this node computed.',
      single(pipeline.utilisation),
    ),
    metric(
      'pipeline_starving',
      'gauge',
      'Whether no replica of the next stage can be had.',
      single(pipeline.starving ? 1 : 0),
    ),
    metric(
      'failovers_total',
      'counter',
      'Replicas of the next stage given up for another.',
      single(pipeline.failovers),
    ),
    metric(
      'microbatches_lost_total',
      'counter',
      'Own microbatches that no replica would take.',
      single(pipeline.lostMicrobatches),
    ),
    metric(
      'convicted_drivers',
      'gauge',
      'Drivers found to train on batches that are not theirs.',
      single(pipeline.convictedDrivers),
    ),
  ];
}

function textMetrics(text: TextCounts): string[] {
  const requests = text.requests.map(
    ({ route, status, count }): Sample => [{ route, status: String(status) }, count],
  );
  const ended = Object.entries(text.ended).map(([reason, count]): Sample => [{ reason }, count]);
  return [
    metric('text_requests_total', 'counter', 'Requests under /v1, by route and HTTP status.', requests),
    metric('text_tokens_total', 'counter', 'Tokens of prompts taken and of answers drawn.', [
      [{ kind: 'prompt' }, text.promptTokens],
      [{ kind: 'completion' }, text.completionTokens],
    ]),
    metric('text_generations', 'gauge', 'Generations that run.', [[{}, text.generations]]),
    metric('text_streams', 'gauge', 'Answers that are being streamed.', [[{}, text.streams]]),
    metric('text_generations_ended_total', 'counter', 'Generations that ended, by reason.', ended),
  ];
}

function single(value: number | null): Sample[] {
  return [[{}, value]];
}

function metric(name: string, type: 'gauge' | 'counter', help: string, samples: readonly Sample[]): string {
  const lines = samples.flatMap(([labels, value]) => {
    if (value === null) return [];
    const pairs = Object.entries(labels).map(([key, text]) => `${key}="${escapeLabel(text)}"`);
    return [`neuroshard_${name}${pairs.length > 0 ? `{${pairs.join(',')}}` : ''} ${formatValue(value)}\n`];
  });
  if (lines.length === 0) return '';
  return `# HELP neuroshard_${name} ${help}\n# TYPE neuroshard_${name} ${type}\n${lines.join('')}`;
}

function escapeLabel(text: string): string {
  return text.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n');
}

function formatValue(value: number): string {
  if (Number.isFinite(value)) return String(value);
  return Number.isNaN(value) ? 'NaN' : value > 0 ? '+Inf' : '-Inf';
}
