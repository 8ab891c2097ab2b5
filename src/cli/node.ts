/** `node start`: one node of a network. */
import { existsSync } from 'node:fs';
import { availableParallelism, homedir } from 'node:os';
import { join } from 'node:path';
import type { Command } from 'commander';
import { type Checkpoint, parseCheckpoint } from '../consensus/checkpoint.ts';
import { formatNeuro } from '../ledger/neuro.ts';
import type { NodeEvent } from '../peer/events.ts';
import { machineMemoryBytes } from '../platform/nodejs/machine.ts';
import { apiKeysOf } from './api-keys.ts';
import { action, type CommandResult, type CommandRun, commandGroup, defineCommand } from './command.ts';
import { UsageError } from './errors.ts';
import { describeStep } from './live-view.ts';
import type { NodeRunOptions } from './node-run.ts';
import { hasParentChannel, sendToParent } from './parent-process.ts';
import { byteCount, collect, decimal, integer, oneOf, port } from './parse.ts';
import { formatBytes, formatCount } from './progress.ts';
import { auditShareOption } from './shared-options.ts';

/** The rest is for the system, the file cache and what the bill does not count. */
const memoryShare = 0.75;

export interface NodeStartOptions {
  readonly network?: string;
  readonly data: string;
  readonly dataset?: string;
  readonly listen?: readonly string[];
  readonly announce?: readonly string[];
  readonly bootstrap?: readonly string[];
  readonly local?: boolean;
  readonly mdns?: boolean;
  readonly upnp?: boolean;
  readonly relay?: 'server' | 'client';
  readonly api: boolean;
  readonly host: string;
  readonly port: number;
  readonly apiKey?: readonly string[];
  readonly apiKeyFile?: string;
  readonly engine: 'native' | 'wasm';
  readonly provider: 'cpu' | 'webgpu' | 'cuda';
  readonly threads: number;
  readonly memory?: number;
  readonly rounds?: number;
  readonly heldOutBatches: number;
  readonly samples?: boolean;
  readonly checkpoint?: Checkpoint;
  readonly checkpointSeconds: number;
  readonly auditShare?: number;
}

export function register(program: Command): void {
  const group = commandGroup(program, 'node', 'run one node of a network, or ask a running one');
  nodeStartCommand(group).action(action<NodeStartOptions>(nodeStart));
}

/** The options of a node; the hostile nodes of the simulation take the same and more. */
export function nodeStartCommand(group: Command): Command {
  const command = defineCommand(group, {
    name: 'start',
    summary: 'join a network and train',
    description:
      'Joins the network of a manifest, catches up with it, trains on this node’s part of the dataset and exchanges ' +
      'contributions each round, until Ctrl-C. Started again it goes on from its last snapshot.',
    examples: [
      ['node start --network network.json', 'join with what the manifest says'],
      ['node start --network network.json --bootstrap /ip4/203.0.113.5/tcp/4001', 'by way of a known node'],
      ['node start', 'later: go on with the network of the data folder'],
    ],
  });
  return trainingOptions(engineOptions(apiOptions(networkOptions(auditShareOption(command)))));
}

function networkOptions(command: Command): Command {
  return command
    .option(
      '--network <file>',
      'the network manifest, from whoever made it with network create (default: network.json of the data folder)',
    )
    .option('--data <folder>', 'key, snapshots and logs of this node', join(homedir(), '.neuroshard'))
    .option(
      '--dataset <place>',
      'folder or http(s) address of the dataset (default: the one shipped, or from other nodes)',
    )
    .option(
      '--listen <address>',
      'address to listen on, repeatable (default: /ip4/0.0.0.0/tcp/4001)',
      collect,
    )
    .option(
      '--announce <address>',
      'what others are told to dial instead, where a port is forwarded to this node; repeatable',
      collect,
    )
    .option('--bootstrap <address>', 'a node to begin with, repeatable; added to the manifest’s', collect)
    .option('--local', 'all nodes are on this machine: nothing leaves loopback')
    .option('--mdns', 'find nodes of the local network')
    .option('--upnp', 'ask the router for a port')
    .option(
      '--relay <role>',
      'server: relay for nodes that cannot be dialled; client: ask for a relay',
      oneOf('role', ['server', 'client'] as const),
    );
}

function apiOptions(command: Command): Command {
  return command
    .option('--no-api', 'do not serve the HTTP API')
    .option('--host <address>', 'address of the HTTP API', '127.0.0.1')
    .option('--port <port>', 'port of the HTTP API', port, 8000)
    .option('--api-key <key>', 'a key that clients of /v1 must show, repeatable (default: none)', collect)
    .option(
      '--api-key-file <file>',
      'the same from a file, one a line: needed with --host of other machines',
    );
}

function engineOptions(command: Command): Command {
  return command
    .option('--engine <engine>', 'native or wasm', oneOf('engine', ['native', 'wasm'] as const), 'native')
    .option(
      '--provider <provider>',
      'of the native engine: cpu, webgpu or cuda',
      oneOf('provider', ['cpu', 'webgpu', 'cuda'] as const),
      'cpu',
    )
    .option(
      '--threads <count>',
      'threads of the tensor engine',
      integer('--threads', { min: 1, max: 256 }),
      availableParallelism(),
    )
    .option(
      '--memory <size>',
      'what this node may use: a stage that is given to it fits (default: three quarters of the machine’s)',
      byteCount('--memory'),
    );
}

function trainingOptions(command: Command): Command {
  return command
    .option(
      '--rounds <count>',
      'stop after the network has closed this many rounds',
      integer('--rounds', { min: 1 }),
    )
    .option(
      '--held-out-batches <count>',
      'held-out batches to evaluate after each round',
      integer('--held-out-batches', { min: 0, max: 4096 }),
      4,
    )
    .option('--samples', 'write a short text after each round')
    .option(
      '--checkpoint <line>',
      'where to join the ledger, EPOCH:ROOT:MEMBERS, from somebody you trust (their node status --json says it)',
      checkpointLine,
    )
    .option(
      '--checkpoint-seconds <seconds>',
      'time between snapshots',
      decimal('--checkpoint-seconds', { min: 1, max: 86_400 }),
      120,
    );
}

function checkpointLine(text: string): Checkpoint {
  const parsed = parseCheckpoint(text.trim());
  if (parsed.ok) return parsed.value;
  throw new UsageError(
    'bad-checkpoint',
    `--checkpoint is ${parsed.detail.replace('not ', '')}, not '${text}'`,
  );
}

/** What `node-run.ts` needs, from the command line. */
export function runOptionsOf(options: NodeStartOptions, events: (event: NodeEvent) => void): NodeRunOptions {
  return {
    networkFile: options.network ?? join(options.data, 'network.json'),
    directory: options.data,
    dataset: options.dataset ?? null,
    listen: options.listen ?? [options.local ? '/ip4/127.0.0.1/tcp/0' : '/ip4/0.0.0.0/tcp/4001'],
    announce: options.announce ?? [],
    bootstrap: options.bootstrap ?? [],
    local: options.local === true,
    mdns: options.mdns === true,
    upnp: options.upnp === true,
    relayServer: options.relay === 'server',
    relayClient: options.relay === 'client',
    api: options.api ? { host: options.host, port: options.port, keys: apiKeysOf(options) } : null,
    compute: { engine: options.engine, provider: options.provider, threads: options.threads },
    memoryBytes: options.memory ?? Math.floor(memoryShare * machineMemoryBytes()),
    ...(options.rounds !== undefined && { rounds: options.rounds }),
    heldOutBatches: options.heldOutBatches,
    samples: options.samples === true,
    ...(options.checkpoint && { checkpoint: options.checkpoint }),
    checkpointSeconds: options.checkpointSeconds,
    ...(options.auditShare !== undefined && { auditShare: options.auditShare }),
    events,
    lingers: hasParentChannel(),
  };
}

async function nodeStart(options: NodeStartOptions, run: CommandRun): Promise<CommandResult | undefined> {
  let lastRound: NodeEvent | null = null;
  let reason: string | null = null;
  const show = (event: NodeEvent) => {
    if (event.type === 'round') lastRound = event;
    if (event.type === 'stopped') reason = event.reason;
    sendToParent(event);
    if (hasParentChannel()) return;
    const line = describeEvent(event);
    if (line) run.log(line);
  };
  if (options.network === undefined && !existsSync(join(options.data, 'network.json'))) {
    throw new UsageError(
      'missing-network',
      `${options.data} has no network.json yet: say which network to join with --network FILE`,
    );
  }
  const { runNode } = await import('./node-run.ts');
  await runNode(runOptionsOf(options, show), run.signal);
  return run.json ? { json: { reason, lastRound }, text: '' } : undefined;
}

/** One line for people; steps only now and then. */
export function describeEvent(event: NodeEvent): string | undefined {
  switch (event.type) {
    case 'started': {
      const place = event.apiPort === null ? '' : `, http://127.0.0.1:${event.apiPort}/api/status`;
      const { index, count, firstLayer, endLayer } = event.stage;
      const stage =
        count === 1 ? '' : ` of stage ${index + 1} of ${count} (layers ${firstLayer} to ${endLayer - 1})`;
      return `node ${event.nodeId.slice(0, 12)} with ${formatCount(event.parameters)} parameters${stage}, round ${event.round}${place}\n${event.addresses.map((one) => `  reachable at ${one}`).join('\n')}`;
    }
    case 'step':
      if (event.step % 10 !== 0 && event.step !== event.innerSteps) return undefined;
      return `round ${event.round} step ${describeStep(event.step, event.innerSteps)}: loss ${event.loss.toFixed(4)}, ${Math.round(event.tokensPerSecond)} tokens/s`;
    case 'contribution':
      return `round ${event.round}: contributed ${event.batches} batches, ${formatBytes(event.blobBytes)}`;
    case 'round': {
      const heldOut = event.heldOutLoss === null ? '' : `, held-out loss ${event.heldOutLoss.toFixed(4)}`;
      const rejected = event.rejected.map(({ node, code }) => ` ${node.slice(0, 8)} (${code})`).join(',');
      return `round ${event.round} closed with ${event.contributions.length} contributions${heldOut}, state ${event.stateHash.slice(0, 12)}${rejected && `; rejected${rejected}`}`;
    }
    case 'sample':
      return `> ${event.prompt}${event.text}`;
    case 'resync':
      return `fetched the agreed state of round ${event.toRound} (${event.reason}, was at ${event.fromRound})`;
    case 'restored':
      return `restored from a snapshot at round ${event.round} step ${event.step}${event.damaged.length > 0 ? `; damaged and left: ${event.damaged.join(', ')}` : ''}`;
    case 'peers':
      return `${event.connected} peers, ${event.membersConnected} of ${event.members} members connected`;
    case 'failover':
      return `stage ${event.stage + 1}: ${event.node.slice(0, 8)} given up (${event.code}) and replaced after ${Math.round(event.silentMs)} ms`;
    case 'warning':
      return `warning: ${event.code}: ${event.detail}`;
    case 'finished':
      return `finished at round ${event.round}`;
    case 'stopped':
      return `stopped: ${event.reason}`;
    case 'heldOut':
      return `held-out loss ${event.loss.toFixed(4)}`;
    case 'fetched': {
      const part = event.shard === null ? event.part : `shard ${event.shard}`;
      return `fetched the dataset’s ${part} from other nodes, ${formatBytes(event.bytes)}`;
    }
    case 'block':
      return `block ${event.number} with ${event.transactions} transactions, state root ${event.stateRoot.slice(0, 12)}: ${formatNeuro(BigInt(event.balance))} NEURO, ${formatNeuro(BigInt(event.pending))} pending`;
    case 'audit':
      return `audit of ${event.prover.slice(0, 8)}, round ${event.round}, interval ${event.interval}: ${event.code}${event.detail && ` (${event.detail})`}`;
    case 'refusedProof':
      return `a proof of ${event.node.slice(0, 8)} is refused: ${event.code}`;
    case 'checkpoint':
      return undefined;
  }
}
