/** Options that mean the same in several commands, and the names they choose from. */
import type { Command } from 'commander';
import { formatNeuro } from '../ledger/neuro.ts';
import { activationNames, aggregatorNames, compressionNames, tokenPriceDefault } from '../peer/policy.ts';
import { decimal, integer, neuroAmount, oneOf } from './parse.ts';

/** What the hostile nodes of `sim/` can do; here, because the product starts them and never imports them. */
export const attackNames = [
  'sign-flip',
  'scaled',
  'gaussian',
  'alie',
  'inner-product',
  'label-flip',
  'constant',
  'zero',
  'copycat',
] as const;
export type AttackName = (typeof attackNames)[number];

/** How the cheating nodes of `sim/` claim what they have not done; what the ledger does about each: docs/proofs.md. */
export const cheatNames = [
  'idle',
  'fewer-steps',
  'wrong-data',
  'garbage-labels',
  'every-kth',
  'garbage-onward',
  'copycat',
  'poison',
  'withhold',
  'replay',
  'future',
  'inflate',
  'accuser',
  'rubber-stamp',
  'equivocate',
  'silent',
] as const;
export type CheatName = (typeof cheatNames)[number];

/** `--aggregator` and `--compression`: how contributions are sent and combined. */
export function outerOptions(command: Command): Command {
  return command
    .option(
      '--aggregator <name>',
      aggregatorNames.join(', '),
      oneOf('aggregator', aggregatorNames),
      'default',
    )
    .option(
      '--compression <name>',
      compressionNames.join(', '),
      oneOf('compression', compressionNames),
      'int8',
    );
}

/** `--attackers`, `--attack` and `--seed`: who is hostile among the nodes of this machine, and which run it is. */
export function clusterOptions(command: Command, attackersMax: number): Command {
  return command
    .option(
      '--attackers <count>',
      'how many of the nodes are hostile',
      integer('--attackers', { min: 0, max: attackersMax }),
      0,
    )
    .option('--attack <name>', attackNames.join(', '), oneOf('attack', attackNames), 'sign-flip')
    .option(
      '--seed <number>',
      'keys, initial weights and batches follow from it',
      integer('--seed', { min: 0 }),
      1,
    );
}

/** `--cheaters`, `--cheat` and when they begin, and what audits may cost to find them. */
export function cheatOptions(command: Command, cheatersMax: number): Command {
  return command
    .option(
      '--cheaters <count>',
      'how many of the nodes cheat the ledger; what is claimed is audited densely then',
      integer('--cheaters', { min: 0, max: cheatersMax }),
      0,
    )
    .option('--cheat <name>', cheatNames.join(', '), oneOf('cheat', cheatNames), 'idle')
    .option(
      '--cheat-from <round>',
      'the first round they cheat in: what they earned before is what they lose',
      integer('--cheat-from', { min: 0 }),
      3,
    );
}

/** `--audit-share`: what a node spends on others' proofs. */
export function auditShareOption(command: Command): Command {
  return command.option(
    '--audit-share <share>',
    'share of one core that a node spends on audits at most (default: 0.1)',
    decimal('--audit-share', { min: 0, max: 16 }),
  );
}

/** `--token-price`: what asking costs. */
export function tokenPriceOption(command: Command): Command {
  return command.option(
    '--token-price <neuro>',
    `NEURO for 1,000 tokens that other nodes work on, 0: free (default: ${formatNeuro(BigInt(tokenPriceDefault))})`,
    neuroAmount('--token-price'),
  );
}

/** `--microbatches`: of one inner step, by whoever begins them. */
export function microbatchOption(command: Command): Command {
  return command.option(
    '--microbatches <count>',
    'microbatches of one inner step',
    integer('--microbatches', { min: 1, max: 4096 }),
    1,
  );
}

/** `--stages`, `--replicas`, `--microbatches` and `--activations`: a model cut over several nodes. */
export function pipelineOptions(command: Command): Command {
  command
    .option('--stages <count>', stagesHelp, integer('--stages', { min: 1, max: 64 }), 1)
    .option(
      '--replicas <count>',
      'nodes that hold the same stage, in place of --nodes',
      integer('--replicas', { min: 1, max: 64 }),
    );
  return microbatchOption(activationsOption(command));
}

export const stagesHelp = 'cut the model into so many parts, each held by other nodes';

export function activationsOption(command: Command): Command {
  return command.option(
    '--activations <name>',
    `what crosses stage boundaries: ${activationNames.join(', ')}`,
    oneOf('activations', activationNames),
    'bf16',
  );
}
