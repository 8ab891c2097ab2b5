/** `network create`, `network info` and `network key`: the manifest that the nodes of one network share. */
import { randomBytes } from 'node:crypto';
import { access } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { multiaddr } from '@multiformats/multiaddr';
import type { Command } from 'commander';
import { toleratedFailures } from '../consensus/members.ts';
import type { AggregatorName } from '../diloco/aggregation/rules.ts';
import { toleratedHostile } from '../diloco/aggregation/rules.ts';
import type { CodecName } from '../diloco/compression/codec.ts';
import { isPublicKey, type KeyPair, nodeIdOf } from '../identity/keys.ts';
import { formatNeuro } from '../ledger/neuro.ts';
import { type ModelConfig, type PresetName, parameterCount, presetConfig, presets } from '../model/config.ts';
import { stageParameterCount } from '../model/parameters.ts';
import { cutStages } from '../model/stage-cut.ts';
import {
  createNetworkDocument,
  type NetworkManifest,
  requireNetwork,
  stagesProblem,
} from '../peer/network.ts';
import { stageBytes } from '../peer/plan.ts';
import {
  defaultInnerSteps,
  defaultLedger,
  defaultOuter,
  defaultTraining,
  type TrainingPolicy,
} from '../peer/policy.ts';
import { stagesFor } from '../pipeline/assignment.ts';
import { readManifest } from '../platform/nodejs/dataset-files.ts';
import { createFolder, writeFileAtomic } from '../platform/nodejs/files.ts';
import { loadOrCreateKeyFile } from '../platform/nodejs/key-file.ts';
import { must } from '../std/assert.ts';
import { fromHex, toHex, utf8 } from '../std/bytes.ts';
import { CodedError } from '../std/outcome.ts';
import { action, type CommandResult, commandGroup, defineCommand } from './command.ts';
import { checkVocabulary, datasetFor, readNetwork } from './dataset-choice.ts';
import { UsageError } from './errors.ts';
import { byteCount, collect, decimal, integer, oneOf } from './parse.ts';
import { passphraseFor } from './passphrase.ts';
import { formatBytes, formatCount } from './progress.ts';
import {
  activationsOption,
  microbatchOption,
  outerOptions,
  stagesHelp,
  tokenPriceOption,
} from './shared-options.ts';
import { chooseTraining, type TrainingChoice } from './training-choice.ts';

interface NetworkCreateOptions {
  readonly name: string;
  readonly preset: PresetName;
  readonly dataset?: string;
  readonly member?: readonly string[];
  readonly data: string;
  readonly innerSteps: number;
  readonly batch?: number;
  readonly learningRate?: number;
  readonly totalSteps?: number;
  readonly stages?: number;
  readonly nodeMemory?: number;
  readonly microbatches: number;
  readonly activations: TrainingPolicy['activations'];
  readonly aggregator: AggregatorName;
  readonly compression: CodecName;
  readonly bootstrap?: readonly string[];
  readonly auditedCohort?: number;
  readonly tokenPrice?: number;
  readonly out: string;
  readonly force?: boolean;
}

const dataDefault = join(homedir(), '.neuroshard');
const nameLengthMax = 64;
const membersMax = 256;
const addressesMax = 64;

export function register(program: Command): void {
  const group = commandGroup(program, 'network', 'make and read the manifest of a network');
  registerCreate(group);
  defineCommand(group, {
    name: 'info',
    summary: 'show what a network manifest says',
    description:
      'Checks the manifest and its signature, and shows the model, the policy, the members and what they withstand.',
    examples: [['network info network.json', 'what nodes with this file will do']],
  })
    .argument('<file>', 'the network manifest')
    .action(action(async (_options, _run, file) => describeNetwork(await readNetwork(file!))));
  defineCommand(group, {
    name: 'key',
    summary: "show this node's public key",
    description:
      'Shows the public key of a data folder, and makes the key if there is none yet. Give it to whoever creates the ' +
      'network, to become a member: members vote on which contributions count. Everyone else may train too.',
    examples: [['network key', 'of the usual data folder']],
  })
    .option('--data <folder>', 'data folder of the node', dataDefault)
    .action(action<{ data: string }>(({ data }) => networkKey(data)));
}

function registerCreate(group: Command): void {
  const names = Object.keys(presets) as PresetName[];
  const command = defineCommand(group, {
    name: 'create',
    summary: 'found a network: write its manifest',
    description:
      'Writes the signed manifest that every node of the network starts with: model, dataset, training policy, and the ' +
      'members who vote on which contributions count. The network id is its hash; bootstrap addresses are not part of it.',
    examples: [
      ['network create --name books', 'you are the only member; others may train and do not vote'],
      [
        'network create --name books --preset medium --node-memory 4GB --member 02ab… --member 03cd…',
        'cut into as few stages as nodes of 4 GB need',
      ],
      [
        'network create --name books --member 02ab… --member 03cd… --bootstrap /ip4/203.0.113.5/tcp/4001',
        'these members (network key shows a key), and where to begin',
      ],
    ],
  });
  tokenPriceOption(microbatchOption(activationsOption(outerOptions(command))))
    .requiredOption('--name <name>', 'what the network is called')
    .option('--preset <name>', `model: ${names.join(', ')}`, oneOf('preset', names), 'tiny')
    .option(
      '--audited-cohort <count>',
      'with fewer contributions to a stage than this, each is audited before it counts; 0: none (default: 3, and 0 with rounds under 100 steps)',
      integer('--audited-cohort', { min: 0, max: 16 }),
    )
    .option('--dataset <place>', 'folder or http(s) address of the dataset (default: the one shipped)')
    .option('--member <key>', 'public key of a member in hex, repeatable (default: your own)', collect)
    .option('--data <folder>', 'data folder whose key signs; made if there is none', dataDefault)
    .option(
      '--inner-steps <count>',
      'H: optimizer steps between two exchanges',
      integer('--inner-steps', { min: 1, max: 1_000_000 }),
      defaultInnerSteps,
    )
    .option(
      '--batch <sequences>',
      "sequences of a node's batch (default: the preset's)",
      integer('--batch', { min: 1, max: 4096 }),
    )
    .option(
      '--learning-rate <rate>',
      "peak inner learning rate (default: the preset's)",
      decimal('--learning-rate', { min: 1e-12, max: 1e3 }),
    )
    .option(
      '--total-steps <count>',
      'inner steps over which the rate decays',
      integer('--total-steps', { min: 1, max: 1_000_000_000 }),
    )
    .option(
      '--stages <count>',
      `${stagesHelp} (default: 1, or as --node-memory says)`,
      integer('--stages', { min: 1, max: 64 }),
    )
    .option(
      '--node-memory <size>',
      'what every node has, such as 4GB: as few stages as fit, without --stages',
      byteCount('--node-memory'),
    )
    .option('--bootstrap <address>', 'address of a node to begin with, repeatable', collect)
    .option('--out <file>', 'where to write it', 'network.json')
    .option('--force', 'replace an existing file')
    .action(action<NetworkCreateOptions>(networkCreate));
}

async function networkCreate(options: NetworkCreateOptions): Promise<CommandResult> {
  const { name, compression, aggregator, out } = options;
  const bootstrap = checkBootstrap(options.bootstrap ?? []);
  const named = options.member === undefined ? undefined : parseMembers(options.member);
  if (name.length === 0 || name.length > nameLengthMax)
    throw new UsageError('bad-name', `--name has 1 to ${nameLengthMax} characters, not ${name.length}`);
  if (!options.force) await refuseExisting(out);
  const model = presetConfig(options.preset);
  const { manifest, hash } = await readManifest(await datasetFor(model.vocabulary, options.dataset));
  checkVocabulary(model, { manifest });
  await createFolder(options.data, 0o700);
  const key = await loadKey(options.data);
  const { innerSteps, batch, learningRate, totalSteps = defaultTraining(model).totalSteps } = options;
  const { microbatches, activations, nodeMemory } = options;
  const given = { innerSteps, totalSteps, microbatches, activations };
  const choice = { ...given, ...(batch && { batch }), ...(learningRate && { learningRate }) };
  const members = (named ?? [key.publicKey]).map((publicKey) => ({ publicKey, weight: 1 }));
  if (options.stages !== undefined && nodeMemory !== undefined)
    throw new UsageError('bad-options', 'either --stages or --node-memory, not both');
  const stages = options.stages ?? (nodeMemory && stagesThatFit(model, choice, nodeMemory)) ?? 1;
  checkStages(model, stages, members.length);
  const document = createNetworkDocument(
    {
      name,
      createdMs: Date.now(),
      seed: randomBytes(32),
      model,
      dataset: hash,
      training: chooseTraining(model, { ...choice, stages }),
      outer: defaultOuter(compression, aggregator, innerSteps),
      ledger: {
        ...defaultLedger(innerSteps ?? defaultInnerSteps, stages),
        ...(options.tokenPrice !== undefined && { tokenPrice: options.tokenPrice }),
        ...(options.auditedCohort !== undefined && { auditedCohort: options.auditedCohort }),
      },
      members,
      bootstrap,
    },
    key,
  );
  const network = requireNetwork(document, out);
  await writeFileAtomic(out, utf8(document));
  const { json, text } = describeNetwork(network);
  return {
    json: { file: out, ...json, publicKey: toHex(key.publicKey) },
    text: `${out}\n${text}\nown key       ${toHex(key.publicKey)}`,
  };
}

/** The smallest number of stages whose heaviest fits; throws CodedError `no-cut-fits`. */
function stagesThatFit(model: ModelConfig, choice: TrainingChoice, memoryBytes: number): number {
  const training = chooseTraining(model, choice);
  const bill = (stages: number) => Math.max(...stageBytes({ model, training }, stages));
  const found = stagesFor(memoryBytes, bill, model.tiedEmbeddings ? 1 : model.layers);
  if (found.ok) return found.value;
  const [part, count] = model.tiedEmbeddings ? ['the model', 1] : ['one layer of it', model.layers];
  const detail = `${part} takes about ${formatBytes(bill(count))}, and a node has ${formatBytes(memoryBytes)}`;
  throw new CodedError(found.code, `the model cannot be cut so that it fits: ${detail} (--node-memory)`);
}

function checkStages(model: ModelConfig, stages: number, members: number): void {
  const problem = stagesProblem(model, stages, members);
  if (problem) throw new UsageError('bad-stages', problem);
}

/** The node's key; made if it is not there. */
function loadKey(data: string): Promise<KeyPair> {
  const path = join(data, 'node.key');
  return loadOrCreateKeyFile(path, () => passphraseFor(path, {}));
}

async function networkKey(data: string): Promise<CommandResult> {
  await createFolder(data, 0o700);
  const { publicKey, nodeId } = await loadKey(data);
  const json = { publicKey: toHex(publicKey), nodeId };
  return { json, text: `public key    ${json.publicKey}\nnode id       ${nodeId}` };
}

function parseMembers(keys: readonly string[]): Uint8Array[] {
  const members = new Map<string, Uint8Array>();
  if (keys.length > membersMax)
    throw new UsageError('bad-member', `at most ${membersMax} members, not ${keys.length}`);
  for (const text of keys) {
    const bytes = /^(?:[0-9a-f]{2})+$/i.test(text) ? fromHex(text) : new Uint8Array();
    const shown = text.length > 70 ? `${text.slice(0, 70)}…` : text;
    if (!isPublicKey(bytes))
      throw new UsageError(
        'bad-member',
        `--member is a public key (66 hex digits, see network key), not '${shown}'`,
      );
    if (members.has(toHex(bytes))) throw new UsageError('bad-member', `--member ${shown} is named twice`);
    members.set(toHex(bytes), bytes);
  }
  return [...members.values()];
}

function checkBootstrap(addresses: readonly string[]): readonly string[] {
  if (addresses.length > addressesMax)
    throw new UsageError(
      'bad-address',
      `at most ${addressesMax} bootstrap addresses, not ${addresses.length}`,
    );
  for (const address of addresses) {
    try {
      multiaddr(address);
    } catch {
      const hint = 'such as /ip4/203.0.113.5/tcp/4001';
      throw new UsageError(
        'bad-address',
        `--bootstrap is a multiaddress ${hint}, not '${address.slice(0, 80)}'`,
      );
    }
  }
  return addresses;
}

async function refuseExisting(file: string): Promise<void> {
  const there = await access(file).then(
    () => true,
    () => false,
  );
  if (!there) return;
  const reason = 'a network whose manifest is lost cannot be joined again';
  throw new CodedError(
    'already-exists',
    `${file} already exists (${reason}): choose another --out, or --force`,
  );
}

/** A network for people and for machines. */
export function describeNetwork(
  network: NetworkManifest,
): Pick<CommandResult, 'json' | 'text'> & { json: object } {
  const { model, training, outer, members } = network;
  const bytes = stageBytes(network);
  const stages = cutStages(model, training.stages).map((stage, index) => ({
    firstLayer: stage.firstLayer,
    endLayer: stage.endLayer,
    parameters: stageParameterCount(model, stage),
    memoryBytes: must(bytes[index], 'bill'),
    members: members.filter((member) => member.stage === index).length,
  }));
  const failures = toleratedFailures(members);
  // Contributions are aggregated stage by stage: the network withstands what its smallest cohort does.
  const cohort = Math.min(...stages.map((stage) => stage.members));
  const hostile = toleratedHostile(outer.aggregator, outer.compression, cohort);
  const isAudited = cohort < network.ledger.auditedCohort && members.length > 1;
  const json = {
    networkId: toHex(network.networkId),
    name: network.name,
    createdMs: network.createdMs ?? null,
    parameters: parameterCount(model),
    model,
    dataset: network.dataset,
    training,
    outer,
    tokenPrice: String(network.ledger.tokenPrice),
    auditedCohort: network.ledger.auditedCohort,
    stages,
    members: members.map(({ nodeId, publicKey, weight, stage }) => ({
      nodeId,
      publicKey: toHex(publicKey),
      weight,
      stage,
    })),
    founder: nodeIdOf(network.founder),
    bootstrap: network.bootstrap,
    tolerance: { members: members.length, failures, contributions: cohort, hostile },
  };
  const lines = [
    ['network', `${json.networkId}`],
    ['name', network.name],
    ...(network.createdMs === undefined ? [] : [['founded', new Date(network.createdMs).toISOString()]]),
    ['model', `${model.layers} layers × ${model.width}, ${formatCount(json.parameters)} parameters`],
    ...(stages.length > 1 ? stages : []).map((stage, i) => [`stage ${i + 1}`, describeStage(stage)]),
    [
      'memory',
      `about ${formatBytes(Math.max(...bytes))} for each node${stages.length > 1 ? ' at most' : ''}`,
    ],
    ['dataset', network.dataset],
    ['round', `${training.innerSteps} inner steps of ${describeStep(network)}`],
    ['exchange', `${outer.compression}, aggregated by ${outer.aggregator}`],
    ['members', `${members.length}: ${describeFailures(members.length, failures)}`],
    [
      'contributions',
      `of ${cohort} ${stages.length > 1 ? 'to a stage' : 'in a round'} ${describeHostile(hostile)}${isAudited ? '; each is audited before it counts' : ''}`,
    ],
    ['inference', describePrice(network)],
    ['bootstrap', network.bootstrap.join(', ') || 'no addresses: give them with node start --bootstrap'],
  ];
  return { json, text: lines.map(([name, value]) => `${name!.padEnd(14)}${value}`).join('\n') };
}

function describePrice({ ledger: { tokenPrice, unpaidTokensMax } }: NetworkManifest): string {
  if (tokenPrice === 0) return 'free';
  const price = formatNeuro(BigInt(tokenPrice));
  return `${price} NEURO for 1,000 tokens; ${formatCount(unpaidTokensMax)} an hour free`;
}

function describeStep({ training: { microbatches, batch, sequence, stages, activations } }: NetworkManifest) {
  const step = `${microbatches > 1 ? `${microbatches} × ` : ''}${batch} × ${sequence} tokens`;
  return stages > 1 ? `${step}, ${activations} between stages` : step;
}

interface StageDescription {
  readonly firstLayer: number;
  readonly endLayer: number;
  readonly parameters: number;
  readonly memoryBytes: number;
  readonly members: number;
}

function describeStage({ firstLayer, endLayer, parameters, memoryBytes, members }: StageDescription): string {
  const layers =
    endLayer - firstLayer === 1 ? `layer ${firstLayer}` : `layers ${firstLayer} to ${endLayer - 1}`;
  const size = `${formatCount(parameters)} parameters, about ${formatBytes(memoryBytes)}`;
  return `${layers}, ${size}, ${members} ${members === 1 ? 'member' : 'members'}`;
}

function describeFailures(members: number, failures: number): string {
  if (failures > 0) return `${failures} may fail or lie, and rounds still close`;
  return members === 1 ? 'rounds close while it runs' : 'rounds close only while all of them run';
}

function describeHostile(hostile: number): string {
  return hostile > 0 ? `${hostile} may be hostile` : 'none may be hostile';
}
