/** `wallet`: the account that belongs to a key. Reads from any node, signs here. */
import { homedir } from 'node:os';
import { dirname, join } from 'node:path';
import type { Command } from 'commander';
import { generateKeyPair } from '../identity/keys.ts';
import { formatNeuro, parseNeuro } from '../ledger/neuro.ts';
import type { TransactionRule } from '../ledger/rules.ts';
import type { Amount } from '../ledger/tables.ts';
import { stake } from '../ledger/transactions/stake.ts';
import { transfer } from '../ledger/transactions/transfer.ts';
import { unstake } from '../ledger/transactions/unstake.ts';
import { systemClock } from '../platform/nodejs/clock.ts';
import { createFolder } from '../platform/nodejs/files.ts';
import { createKeyFile, inspectKeyFile, loadKeyFile } from '../platform/nodejs/key-file.ts';
import { action, type CommandResult, type CommandRun, commandGroup, defineCommand } from './command.ts';
import { UsageError } from './errors.ts';
import { ledgerClient } from './ledger-client.ts';
import { integer } from './parse.ts';
import { givenPassphrase, newPassphrase, passphraseFor, passphraseVariable } from './passphrase.ts';
import { type Submission, submitTransaction } from './wallet-submit.ts';
import { balanceText, historyText } from './wallet-text.ts';

interface KeyOptions {
  readonly key?: string;
  readonly data: string;
  readonly passphraseFile?: string;
}

interface ReadOptions extends KeyOptions {
  readonly node: string;
}

interface NewOptions extends KeyOptions {
  readonly encrypt?: boolean;
}

interface HistoryOptions extends ReadOptions {
  readonly limit: number;
  readonly before?: string;
}

interface SendOptions extends ReadOptions {
  readonly wait: boolean;
  readonly timeout: number;
}

const summary = 'your account: balance, payments, stake';

export function register(program: Command): void {
  const group = commandGroup(program, 'wallet', summary);
  registerKeys(group);
  registerReading(group);
  registerPaying(group);
}

function registerKeys(group: Command): void {
  keyOptions(
    defineCommand(group, {
      name: 'new',
      summary: 'make a key',
      description:
        'Makes a secret key in a file that only you can read, and prints the address that belongs to it. The file is all ' +
        'there is: whoever loses it loses the account. A node uses the same file as its own key.',
      examples: [
        ['wallet new', 'a key in ~/.neuroshard, for a node or for payments alone'],
        ['wallet new --key savings.key --encrypt', 'one under a passphrase, which is asked for'],
      ],
    }),
  )
    .option(
      '--encrypt',
      `hide it under a passphrase (asked for, or ${passphraseVariable}, or --passphrase-file)`,
    )
    .action(action<NewOptions>(walletNew));
  keyOptions(
    defineCommand(group, {
      name: 'address',
      summary: 'the address of a key',
      description:
        'Prints the address: the id of the node that has this key. It needs no passphrase and no node.',
      examples: [['wallet address', 'what others send to']],
    }),
  ).action(action<KeyOptions>(walletAddress));
}

function registerReading(group: Command): void {
  nodeOption(
    keyOptions(
      defineCommand(group, {
        name: 'balance',
        summary: 'what an account has',
        description: 'Asks a node for balance, stake, and what is on its way. All of it is final.',
        examples: [
          ['wallet balance', 'of your own key'],
          ['wallet balance ADDRESS --node http://203.0.113.5:8000', 'of anybody, from another node'],
        ],
      }),
    ),
  )
    .argument('[address]', 'whose (default: your own)')
    .action(action<ReadOptions>(walletBalance));
  nodeOption(
    keyOptions(
      defineCommand(group, {
        name: 'history',
        summary: 'what happened to an account',
        description:
          'Final transactions that concern an account, newest first, as far back as the node keeps blocks.',
        examples: [['wallet history --limit 50', 'the last fifty']],
      }),
    ),
  )
    .argument('[address]', 'whose (default: your own)')
    .option('--limit <count>', 'how many', integer('--limit', { min: 1, max: 50 }), 20)
    .option('--before <place>', 'go on from where the last page ended')
    .action(action<HistoryOptions>(walletHistory));
}

function registerPaying(group: Command): void {
  payingOptions(
    defineCommand(group, {
      name: 'send',
      summary: 'pay somebody',
      description: 'Signs a transfer with your key, hands it to a node, and waits until it is final.',
      examples: [['wallet send ADDRESS 12.5', '12.5 NEURO to ADDRESS']],
    }),
  )
    .argument('<address>', 'to whom')
    .argument('<amount>', 'NEURO, with up to six digits after the point')
    .action(action<SendOptions>(walletSend));
  payingOptions(
    defineCommand(group, {
      name: 'stake',
      summary: 'bond part of the balance',
      description:
        'Bonds NEURO: a trainer earns more with stake, and a validator votes with it. It answers for what your node does.',
      examples: [['wallet stake 1000', 'bond 1000 NEURO']],
    }),
  )
    .argument('<amount>', 'NEURO')
    .action(action<SendOptions>((options, run, text) => walletBond(stake, 'balance', options, run, text)));
  payingOptions(
    defineCommand(group, {
      name: 'unstake',
      summary: 'take stake back',
      description: 'Begins to take stake back. It can be spent once the network’s unbonding time has passed.',
      examples: [['wallet unstake 1000', 'take 1000 NEURO back']],
    }),
  )
    .argument('<amount>', 'NEURO')
    .action(action<SendOptions>((options, run, text) => walletBond(unstake, 'stake', options, run, text)));
}

function keyOptions(command: Command): Command {
  return command
    .option('--key <file>', 'the key file (default: node.key of the data folder)')
    .option('--data <folder>', 'a node’s data folder', join(homedir(), '.neuroshard'))
    .option(
      '--passphrase-file <file>',
      `passphrase of an encrypted key (or ${passphraseVariable}, or asked for)`,
    );
}

function nodeOption(command: Command): Command {
  return command.option('--node <url>', 'a node’s HTTP API', 'http://127.0.0.1:8000');
}

function payingOptions(command: Command): Command {
  return nodeOption(keyOptions(command))
    .option('--no-wait', 'do not wait until it is final')
    .option('--timeout <seconds>', 'wait at most so long', integer('--timeout', { min: 1, max: 3600 }), 120);
}

function keyPath({ key, data }: KeyOptions): string {
  return key ?? join(data, 'node.key');
}

async function walletNew(options: NewOptions): Promise<CommandResult> {
  const path = keyPath(options);
  const given = await givenPassphrase(options);
  const passphrase = given ?? (options.encrypt ? await newPassphrase('the new key', options) : undefined);
  await createFolder(dirname(path), 0o700);
  const { nodeId: address } = await createKeyFile(path, generateKeyPair(), passphrase);
  const encrypted = passphrase !== undefined;
  const how = encrypted ? 'under the passphrase' : 'without a passphrase';
  return {
    json: { address, file: path, encrypted },
    text: `address ${address}\nsecret key in ${path}, ${how}: keep a copy, it cannot be made again`,
  };
}

async function walletAddress(options: KeyOptions): Promise<CommandResult> {
  const file = keyPath(options);
  const { nodeId: address, encrypted } = await inspectKeyFile(file);
  return { json: { address, file, encrypted }, text: address };
}

async function walletBalance(options: ReadOptions, run: CommandRun, given?: string): Promise<CommandResult> {
  const address = await addressOf(options, given);
  const account = await ledgerClient(options.node, run.signal).account(address);
  return { json: account, text: balanceText(account) };
}

async function walletHistory(
  options: HistoryOptions,
  run: CommandRun,
  given?: string,
): Promise<CommandResult> {
  const address = await addressOf(options, given);
  const { limit, before, node } = options;
  const page = await ledgerClient(node, run.signal).history(address, { limit, before });
  return { json: { address, ...page }, text: historyText(address, page) };
}

async function walletSend(
  options: SendOptions,
  run: CommandRun,
  address?: string,
  text?: string,
): Promise<CommandResult> {
  const to = checkedAddress(address!);
  const amount = amountOf(text!);
  if (to === (await inspectKeyFile(keyPath(options))).nodeId)
    throw new UsageError('own-account', 'that is your own address');
  return await pay(options, run, {
    rule: transfer,
    body: { to, amount },
    needs: { amount, from: 'balance' },
    said: `${formatNeuro(amount)} NEURO to ${to.slice(0, 16)}`,
    json: { to },
  });
}

async function walletBond(
  rule: TransactionRule<{ readonly amount: Amount }>,
  from: 'balance' | 'stake',
  options: SendOptions,
  run: CommandRun,
  text?: string,
): Promise<CommandResult> {
  const amount = amountOf(text!);
  const said = `${formatNeuro(amount)} NEURO ${from === 'balance' ? 'bonded' : 'on their way back'}`;
  return await pay(options, run, { rule, body: { amount }, needs: { amount, from }, said, json: {} });
}

interface Payment<Body> extends Pick<Submission<Body>, 'rule' | 'body' | 'needs'> {
  readonly said: string;
  readonly json: object;
}

async function pay<Body>(
  options: SendOptions,
  { signal }: CommandRun,
  { rule, body, needs, said, json }: Payment<Body>,
): Promise<CommandResult> {
  const path = keyPath(options);
  const client = ledgerClient(options.node, signal);
  const key = await loadKeyFile(path, () => passphraseFor(path, options));
  const waitMs = options.wait ? 1000 * options.timeout : 0;
  const common = { client, key, rule, body, needs, signal, waitMs };
  const submitted = await submitTransaction({ ...common, clock: systemClock() });
  const where = submitted.final ? `final in block ${submitted.block}` : 'waits for a block';
  return {
    json: { ...submitted, from: key.nodeId, ...json, amount: String(needs.amount) },
    text: `${said}: ${where}\ntransaction ${submitted.id}`,
  };
}

async function addressOf(options: KeyOptions, given?: string): Promise<string> {
  return given === undefined ? (await inspectKeyFile(keyPath(options))).nodeId : checkedAddress(given);
}

function checkedAddress(text: string): string {
  const address = text.toLowerCase();
  if (!/^[0-9a-f]{64}$/.test(address))
    throw new UsageError('bad-address', `an address has 64 hex digits, not '${text}'`);
  return address;
}

function amountOf(text: string): Amount {
  const parsed = parseNeuro(text);
  if (!parsed.ok) throw new UsageError(parsed.code, parsed.detail);
  return parsed.value;
}
