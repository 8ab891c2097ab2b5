/**
 * What all commands share: `--json`, examples in their help, where lines go, and how a result is shown. A command file
 * exports `register(program)`, calls `defineCommand` there, and loads what is heavy only when it runs.
 */
import type { Command } from 'commander';
import { exitFailure, InterruptedError, ReportedFailure } from './errors.ts';
import { createProgress, type Progress, type ProgressOptions, type TextStream } from './progress.ts';

/** What a running command is given besides its options. */
export interface CommandRun {
  /** Aborts when the user asks to stop; the reason is an `InterruptedError`. */
  readonly signal: AbortSignal;
  /** One JSON document is expected on stdout: nothing else may be written there. */
  readonly json: boolean;
  /** Where people watch: stdout, or stderr with `--json`. */
  readonly screen: TextStream;
  /** A line for people, on stderr. */
  readonly log: (line: string) => void;
  /** A bar on stderr. */
  readonly progress: (options: ProgressOptions) => Progress;
}

/** What a command ends with: the document for `--json`, and the same for people (without a final newline). */
export interface CommandResult {
  readonly json: unknown;
  readonly text: string;
  /** The result itself is a failure (a shard that does not verify): shown like any result, then exit code 1. */
  readonly failed?: boolean;
  /** Asked to stop, it ended early with what it had: shown like any result, then the exit code of the signal. */
  readonly interrupted?: boolean;
}

export interface CommandSpec {
  readonly name: string;
  /** One line in the list of commands. */
  readonly summary: string;
  /** What it does, for somebody who has never run it. */
  readonly description: string;
  /** Command lines without the program's name, each with what it does. */
  readonly examples: readonly (readonly [command: string, what: string])[];
}

/** Adds a command to the program or to a group; options and the action follow by chaining. */
export function defineCommand(parent: Command, spec: CommandSpec): Command {
  return parent
    .command(spec.name)
    .summary(spec.summary)
    .description(spec.description)
    .option('--json', 'print exactly one JSON document on stdout; logs go to stderr')
    .addHelpText('after', examplesText(spec.examples));
}

/** A command that only holds others (`genesis build`, `node start`); made once, whoever asks first. */
export function commandGroup(program: Command, name: string, summary: string): Command {
  const existing = program.commands.find((each) => each.name() === name);
  return existing ?? program.command(name).summary(summary).description(summary).helpCommand(false);
}

export function examplesText(examples: CommandSpec['examples']): string {
  if (examples.length === 0) return '';
  const lines = examples.map(([command, what]) => `  neuroshard ${command}\n      ${what}`);
  return `\nExamples:\n${lines.join('\n')}`;
}

export interface Surroundings {
  readonly stdout: TextStream;
  readonly stderr: TextStream;
  readonly signal: AbortSignal;
}

/** Commands find their surroundings on the program, so that `register` needs nothing but the program. */
const surroundingsOf = new WeakMap<Command, Surroundings>();

export function setSurroundings(program: Command, surroundings: Surroundings): void {
  surroundingsOf.set(program, surroundings);
}

type Action<Options> = (
  options: Options,
  run: CommandRun,
  ...operands: string[]
) => Promise<CommandResult | undefined>;

/**
 * Wraps an action for commander: `defineCommand(…).option(…).action(action(async (options, run) => …))`. A result is
 * written once, at the end; an action that shows everything itself returns undefined without `--json`.
 */
export function action<Options extends object>(
  act: Action<Options>,
): (this: Command, ...parameters: unknown[]) => Promise<void> {
  return async function (this: Command): Promise<void> {
    const { stdout, stderr, signal } = surroundingsOf.get(rootOf(this))!;
    const options = this.opts<Options & { json?: boolean }>();
    const json = options.json === true;
    const run: CommandRun = {
      signal,
      json,
      screen: json ? stderr : stdout,
      log: (line) => void stderr.write(`${line}\n`),
      progress: (each) => createProgress(stderr, each),
    };
    const result = await act(options, run, ...this.args);
    if (result === undefined) return;
    stdout.write(`${json ? toJson(result.json) : result.text}\n`);
    if (result.failed) throw new ReportedFailure();
    if (result.interrupted) throw new ReportedFailure(exitCodeOf(signal.reason));
  };
}

function exitCodeOf(reason: unknown): number {
  return reason instanceof InterruptedError ? reason.exitCode : exitFailure;
}

function rootOf(command: Command): Command {
  return command.parent === null ? command : rootOf(command.parent);
}

/** Integers beyond 2^53 as decimal strings, bytes as hex, non-finite numbers as null. */
export function toJson(value: unknown): string {
  const replace = (_key: string, each: unknown) => {
    if (typeof each === 'bigint') return each.toString();
    if (each instanceof Uint8Array) return Buffer.from(each).toString('hex');
    return each;
  };
  return JSON.stringify(value, replace, 2);
}
