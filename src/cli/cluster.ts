/**
 * A network of node processes on this machine, as `demo` and `swarm` run it: keys and ports, the network manifest, a
 * data folder for each, and their command lines. Starting and watching them is `child-nodes.ts`'s.
 */
import { writeFile } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { type KeyPair, keyPairFrom } from '../identity/keys.ts';
import type { LedgerPolicy } from '../ledger/policy.ts';
import type { ModelConfig } from '../model/config.ts';
import { createNetworkDocument, type NetworkManifest, requireNetwork } from '../peer/network.ts';
import { defaultLedger, type OuterPolicy, type TrainingPolicy } from '../peer/policy.ts';
import { createFolder } from '../platform/nodejs/files.ts';
import { programFile } from '../platform/nodejs/installation.ts';
import { createKeyFile } from '../platform/nodejs/key-file.ts';
import { utf8 } from '../std/bytes.ts';
import { taggedHash } from '../std/hash.ts';
import { type ChildSpec, freePorts } from './child-nodes.ts';

export interface ClusterOptions {
  /** Where everything is kept; made if it is not there. */
  readonly directory: string;
  /** Keys, and so batches, follow from it: a run can be repeated. */
  readonly seed: number;
  readonly nodes: number;
  /** The last so many nodes are hostile. */
  readonly attackers: number;
  readonly attack?: { readonly name: string; readonly factor?: number };
  /** In place of an attack: they cheat the ledger, from that round on. */
  readonly cheat?: { readonly name: string; readonly fromRound: number };
  readonly model: ModelConfig;
  readonly datasetDirectory: string;
  readonly datasetHash: string;
  readonly training: TrainingPolicy;
  readonly outer: OuterPolicy;
  /** `defaultLedger` of the rounds' length. */
  readonly ledger?: LedgerPolicy;
  readonly rounds?: number;
  /** Held-out batches that the first node evaluates after each round. */
  readonly heldOutBatches: number;
  /** Whether the first node also writes a short text after each round. */
  readonly samples: boolean;
  /** Where the first node serves its API; without it none does. */
  readonly apiPort?: number;
  /** The port of 127.0.0.1 where others reach the node that listens on `port`; without it that one. */
  readonly reachedAt?: (port: number) => Promise<number>;
  /** Further arguments for every node. */
  readonly nodeArgs?: readonly string[];
}

export interface ClusterNode {
  readonly spec: ChildSpec;
  readonly nodeId: string;
  readonly hostile: boolean;
  readonly directory: string;
}

export interface Cluster {
  readonly network: NetworkManifest;
  readonly networkFile: string;
  readonly nodes: readonly ClusterNode[];
}

/** The key of one node of a local cluster. Never for anything of worth: whoever knows the seed knows the key. */
export function clusterKey(seed: number, index: number): KeyPair {
  return keyPairFrom(taggedHash('neuroshard/cluster-key', utf8(`${seed}/${index}`)));
}

export interface ClusterNetworkOptions
  extends Pick<ClusterOptions, 'seed' | 'model' | 'datasetHash' | 'training' | 'outer' | 'ledger'> {
  readonly keys: readonly KeyPair[];
  readonly bootstrap?: readonly string[];
}

/** The network manifest of a local cluster: initial weights follow from the seed, whoever runs it and however. */
export function clusterNetwork(options: ClusterNetworkOptions): string {
  const { seed, model, datasetHash, training, outer, keys, bootstrap = [] } = options;
  return createNetworkDocument(
    {
      name: `swarm-${seed}`,
      seed: taggedHash('neuroshard/cluster-seed', utf8(String(seed))),
      model,
      dataset: datasetHash,
      training,
      outer,
      ledger: options.ledger ?? defaultLedger(training.innerSteps, training.stages),
      members: keys.map(({ publicKey }) => ({ publicKey, weight: 1 })),
      bootstrap,
    },
    keys[0]!,
  );
}

export async function prepareCluster(options: ClusterOptions): Promise<Cluster> {
  const { directory, seed, nodes: count, attackers } = options;
  await createFolder(directory);
  const keys = Array.from({ length: count }, (_, index) => clusterKey(seed, index));
  const ports = await freePorts(count);
  const { reachedAt = async (port: number) => port } = options;
  const addresses = ports.map(addressOf);
  const announced = (await Promise.all(ports.map(reachedAt))).map(addressOf);
  const document = clusterNetwork({ ...options, keys, bootstrap: announced });
  const networkFile = join(directory, 'network.json');
  await writeFile(networkFile, document);
  const nodes: ClusterNode[] = [];
  for (const [index, key] of keys.entries()) {
    const hostile = index >= count - attackers;
    const role = options.cheat ? 'cheater' : 'hostile';
    const name = hostile ? `${role}-${index - (count - attackers) + 1}` : `node-${index + 1}`;
    const home = join(directory, name);
    await createFolder(home);
    await createKeyFile(join(home, 'node.key'), key);
    const listen = addresses[index]!;
    const announce = announced[index]!;
    const args = nodeArguments(options, { networkFile, home, listen, announce, first: index === 0 });
    const attack = hostile ? hostileArguments(options) : [];
    const program = hostile ? programFile('sim/hostile-node') : programFile('src/cli/main');
    nodes.push({
      spec: { name, program, args: [...args, ...attack] },
      nodeId: key.nodeId,
      hostile,
      directory: home,
    });
  }
  return { network: requireNetwork(document, networkFile), networkFile, nodes };
}

function addressOf(port: number): string {
  return `/ip4/127.0.0.1/tcp/${port}`;
}

function nodeArguments(
  options: ClusterOptions,
  node: { networkFile: string; home: string; listen: string; announce: string; first: boolean },
): string[] {
  const threads = Math.max(1, Math.floor(availableParallelism() / options.nodes));
  const args = ['node', 'start', '--network', node.networkFile, '--data', node.home];
  args.push('--dataset', options.datasetDirectory, '--listen', node.listen, '--local');
  if (node.announce !== node.listen) args.push('--announce', node.announce);
  if (node.first && options.apiPort !== undefined) args.push('--port', String(options.apiPort));
  else args.push('--no-api');
  args.push('--threads', String(threads));
  if (options.rounds !== undefined) args.push('--rounds', String(options.rounds));
  args.push('--held-out-batches', String(node.first ? options.heldOutBatches : 0));
  if (node.first && options.samples) args.push('--samples');
  return [...args, ...(options.nodeArgs ?? [])];
}

function hostileArguments({ attack, cheat, attackers }: ClusterOptions): string[] {
  if (cheat) return ['--cheat', cheat.name, '--cheat-from', String(cheat.fromRound)];
  if (!attack) return [];
  const factor = attack.factor === undefined ? [] : ['--attack-factor', String(attack.factor)];
  return ['--attack', attack.name, '--hostile-members', String(attackers), ...factor];
}
