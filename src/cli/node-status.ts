/** `node status`: asks a running node's API what it is doing. */
import type { Command } from 'commander';
import type { NodeStatus, PipelineStatus } from '../api/status.ts';
import { formatNeuro } from '../ledger/neuro.ts';
import type { LedgerStatus } from '../peer/ledger-report.ts';
import type { PaymentStatus } from '../peer/payments.ts';
import { CodedError } from '../std/outcome.ts';
import { action, type CommandResult, commandGroup, defineCommand } from './command.ts';
import { port } from './parse.ts';
import { formatBytes, formatCount, formatDuration } from './progress.ts';

interface StatusOptions {
  readonly host: string;
  readonly port: number;
}

const timeoutMs = 5_000;

export function register(program: Command): void {
  defineCommand(commandGroup(program, 'node', 'run one node of a network'), {
    name: 'status',
    summary: 'what a running node is doing',
    description: `Asks the node on this machine (or another whose API is reachable) for its round, loss, speed and peers, what the ledger says, and how many members may fail.`,
    examples: [
      ['node status', 'the node on the usual port'],
      ['node status --port 8001 --json', 'another one, for a program'],
    ],
  })
    .option('--host <address>', "where the node's API listens", '127.0.0.1')
    .option('--port <port>', 'and on which port', port, 8000)
    .action(action<StatusOptions>((options, run) => showStatus(options, run.signal)));
}

async function showStatus(
  { host, port: apiPort }: StatusOptions,
  signal: AbortSignal,
): Promise<CommandResult> {
  const url = `http://${host.includes(':') ? `[${host}]` : host}:${apiPort}/api/status`;
  const status = await fetchStatus(url, signal);
  return { json: status, text: describeStatus(status) };
}

async function fetchStatus(url: string, signal: AbortSignal): Promise<NodeStatus> {
  let response: Response;
  try {
    response = await fetch(url, { signal: AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)]) });
  } catch (error) {
    signal.throwIfAborted();
    const advice = 'is it running, and is this its API port?';
    throw new CodedError('no-node', `no node answers at ${url}: ${advice}`, { cause: error });
  }
  const status = (await response.json().catch(() => undefined)) as NodeStatus | undefined;
  if (
    !response.ok ||
    typeof status?.nodeId !== 'string' ||
    typeof status.ledger !== 'object' ||
    typeof status.payments !== 'object'
  ) {
    throw new CodedError('not-a-node', `what answers at ${url} is not a node of NeuroShard`);
  }
  return status;
}

export function describeStatus(status: NodeStatus): string {
  const { members, totals } = status;
  const rejected = Object.values(totals.contributionsRejected).reduce((sum, count) => sum + count, 0);
  const loss = (value: number | null) => value?.toFixed(3) ?? 'not yet';
  const rows: (readonly [string, string])[] = [
    ['node', `${status.nodeId.slice(0, 16)} (process ${status.pid}, up ${formatDuration(status.uptimeMs)})`],
    ['network', `${status.network.name} (${status.network.id.slice(0, 16)})`],
    ['model', `${formatCount(status.parameters)} parameters, engine ${status.engine.id}`],
    ['stage', describeStage(status)],
    ...(status.stage.count > 1 ? [['pipeline', describePipeline(status.pipeline)] as const] : []),
    ['training', `round ${status.round}, step ${status.step}/${status.innerSteps ?? '-'}`],
    ['loss', `${loss(status.loss)} (held-out ${loss(status.heldOutLoss)})`],
    ['speed', status.tokensPerSecond === null ? 'not yet' : `${Math.round(status.tokensPerSecond)} tokens/s`],
    ['peers', `${status.peers} connected`],
    ['members', `${members.connected} of ${members.total} connected, ${members.toleratedFailures} may fail`],
    ['ledger', describeLedger(status.ledger)],
    ['balance', describeBalance(status.ledger)],
    ['inference', describePayments(status.payments)],
    ['aggregator', `${status.aggregator.name}, withstands ${status.aggregator.toleratedHostile} hostile`],
    [
      'contributions',
      `${totals.contributionsAccepted} accepted, ${rejected} rejected in ${totals.rounds} rounds`,
    ],
    ['traffic', `${formatBytes(totals.bytesSent)} sent, ${formatBytes(totals.bytesReceived)} received`],
    ['state', status.stateHash?.slice(0, 16) ?? 'not yet'],
  ];
  return rows.map(([name, value]) => `${name.padEnd(14)}${value}`).join('\n');
}

function describeLedger({ number, stateRoot, epoch, votes, waiting }: LedgerStatus): string {
  const role = votes ? 'this node votes' : 'this node follows';
  return `block ${number}, epoch ${epoch}, state root ${stateRoot.slice(0, 16)}; ${waiting} waiting; ${role}`;
}

function describeBalance({ balance, stake, pending, supply, answered }: LedgerStatus): string {
  const [has, staked, earned, all] = [balance, stake, pending, supply].map((amount) =>
    formatNeuro(BigInt(amount)),
  );
  return `${has} NEURO, ${staked} staked, ${earned} pending, ${answered} challenges answered; supply ${all}`;
}

function describePayments({ tokenPrice, earned, paid, unclaimed, due }: PaymentStatus): string {
  if (tokenPrice === '0') return 'free in this network';
  const [price, got, open, spent, owed] = [tokenPrice, earned, unclaimed, paid, due].map((amount) =>
    formatNeuro(BigInt(amount)),
  );
  return `${price} NEURO for 1,000 tokens; ${got} earned and ${open} unclaimed, ${spent} paid and ${owed} due since the start`;
}

function describeStage({ stage, pipeline }: NodeStatus): string {
  const layers = `layers ${stage.firstLayer} to ${stage.endLayer - 1}`;
  if (stage.count === 1) return `the whole model, ${layers}`;
  const replicas = pipeline.replicas.join(' ');
  return `${stage.index + 1} of ${stage.count} (${stage.roles.join(', ')}), ${layers}; replicas by stage: ${replicas}`;
}

function describePipeline(pipeline: PipelineStatus): string {
  const waiting = Object.values(pipeline.queue).reduce((sum, depth) => sum + depth, 0);
  const utilisation = pipeline.utilisation === null ? '-' : `${Math.round(100 * pipeline.utilisation)}%`;
  const starving = pipeline.starving ? ', WAITING FOR THE NEXT STAGE' : '';
  return `${waiting} waiting, ${utilisation} utilised, ${pipeline.failovers} failovers, ${pipeline.lostMicrobatches} microbatches lost${starving}`;
}
