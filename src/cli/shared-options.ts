/** Options that mean the same in several commands, and the names they choose from. */
import type { Command } from 'commander';
import { aggregatorNames, compressionNames } from '../peer/policy.ts';
import { integer, oneOf } from './parse.ts';

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
