/**
 * A hostile member as a process of its own: the product's node with other steps, or other parts, in the place of honest
 * ones. An attacker keeps to every rule but that of its contribution; a cheater claims what it has not done. Started by
 * `swarm`.
 */
import type { Command } from 'commander';
import { action, type CommandRun, commandGroup } from '../src/cli/command.ts';
import { UsageError } from '../src/cli/errors.ts';
import { type NodeStartOptions, nodeStartCommand, runOptionsOf } from '../src/cli/node.ts';
import { runNode } from '../src/cli/node-run.ts';
import { sendToParent } from '../src/cli/parent-process.ts';
import { decimal, integer, oneOf } from '../src/cli/parse.ts';
import { runMain } from '../src/cli/run-main.ts';
import { type AttackName, attackNames, type CheatName, cheatNames } from '../src/cli/shared-options.ts';
import type { Peer, PeerSteps } from '../src/peer/peer.ts';
import { defaultFactor } from './attacks.ts';
import { disguiseOf } from './cheats.ts';
import { contributeHostile } from './hostile-contribution.ts';

interface HostileOptions extends NodeStartOptions {
  readonly attack?: AttackName;
  readonly attackFactor?: number;
  /** How many members collude, this one included. */
  readonly hostileMembers: number;
  readonly cheat?: CheatName;
  readonly cheatFrom: number;
}

function hostileSteps(attack: AttackName, options: HostileOptions) {
  const factor = options.attackFactor ?? defaultFactor[attack];
  const { hostileMembers } = options;
  return (peer: Peer): Partial<PeerSteps> => {
    const honest = peer.steps;
    if (attack === 'label-flip') {
      const last = peer.options.network.model.vocabulary - 1;
      return {
        batch: async (round, step, index) => {
          const batch = await honest.batch(round, step, index);
          return { ...batch, labels: batch.labels.map((label) => last - label) };
        },
      };
    }
    return {
      contribute: async (round) =>
        contributeHostile(peer, await honest.contribute(round), round, { attack, factor, hostileMembers }),
    };
  };
}

async function start(options: HostileOptions, run: CommandRun): Promise<undefined> {
  const base = runOptionsOf(options, sendToParent);
  const { attack, cheat, cheatFrom: fromRound } = options;
  if (cheat) await runNode({ ...base, disguise: disguiseOf({ name: cheat, fromRound }) }, run.signal);
  else if (attack) await runNode({ ...base, steps: hostileSteps(attack, options) }, run.signal);
  else throw new UsageError('bad-options', 'a hostile node needs --attack or --cheat');
  return undefined;
}

function register(program: Command): void {
  nodeStartCommand(commandGroup(program, 'node', 'a hostile node'))
    .option('--attack <name>', attackNames.join(', '), oneOf('attack', attackNames))
    .option('--attack-factor <number>', 'strength of the attack', decimal('--attack-factor'))
    .option('--hostile-members <count>', 'how many collude', Number, 1)
    .option('--cheat <name>', cheatNames.join(', '), oneOf('cheat', cheatNames))
    .option('--cheat-from <round>', 'the first round it cheats in', integer('--cheat-from', { min: 0 }), 0)
    .action(action<HostileOptions>(start));
}

await runMain([register]);
