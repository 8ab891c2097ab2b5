/** The command line as a whole: its commands, its help, and one run of it from arguments to exit code. */
import { Command } from 'commander';
import { examplesText, type Surroundings, setSurroundings, toJson } from './command.ts';
import { describeFailure, ReportedFailure } from './errors.ts';

type Register = (program: Command) => void;

const description = `Trains one language model together with other machines, over ordinary internet links.

New here? Run 'neuroshard demo': four nodes on this machine learn together, and you watch.`;

const examples = [
  ['demo', 'four nodes on this machine train one small model; Ctrl-C stops them'],
  ['doctor', 'what this machine can do, and what to install for its GPU'],
  ['COMMAND --help', 'what a command does, its options and examples'],
] as const;

/** `surroundings` are handed in so that a test can run the whole program in memory. */
export function createProgram(
  version: string,
  surroundings: Surroundings,
  commands: readonly Register[],
): Command {
  const program = new Command('neuroshard')
    .description(description)
    .version(version)
    .showSuggestionAfterError(true)
    .exitOverride()
    .configureOutput({
      writeOut: (text) => void surroundings.stdout.write(text),
      writeErr: (text) => void surroundings.stderr.write(text),
      // Reported once, in our own form, by `runProgram`.
      outputError: () => undefined,
      getOutHelpWidth: () => Math.min(surroundings.stdout.columns ?? 100, 120),
    })
    .configureHelp({ sortSubcommands: false, showGlobalOptions: false })
    .helpCommand(false)
    .addHelpText('after', examplesText(examples));
  setSurroundings(program, surroundings);
  for (const register of commands) register(program);
  return program;
}

/** Runs one command line; never throws. The result is the exit code: 0, 1 (failure), 2 (usage) or 128 + signal. */
export async function runProgram(
  program: Command,
  argv: readonly string[],
  surroundings: Surroundings,
): Promise<number> {
  if (argv.length === 0) {
    program.outputHelp();
    return 0;
  }
  try {
    await program.parseAsync(withoutStrayHelp(program, argv), { from: 'user' });
    return 0;
  } catch (error) {
    if (error instanceof ReportedFailure) return error.exitCode;
    const failure = describeFailure(error, commandNamed(program, argv));
    if (failure === undefined) return 0;
    if (argv.includes('--json')) {
      surroundings.stdout.write(`${toJson({ error: { code: failure.code, message: failure.message } })}\n`);
    }
    surroundings.stderr.write(`neuroshard: ${failure.message}\n`);
    if (failure.stack !== undefined) surroundings.stderr.write(`${failure.stack}\n`);
    return failure.exitCode;
  }
}

/** `frobnicate --help` asks for help about what is not there: without the `--help` it is an unknown command. */
function withoutStrayHelp(program: Command, argv: readonly string[]): string[] {
  let command: Command | undefined = program;
  for (const word of argv) {
    if (word.startsWith('-') || command.commands.length === 0) return [...argv];
    command = command.commands.find((each) => each.name() === word);
    if (command === undefined) return argv.filter((each) => each !== '--help' && each !== '-h');
  }
  return [...argv];
}

/** The longest known command that the arguments begin with, for pointing at its help. */
function commandNamed(program: Command, argv: readonly string[]): string {
  let command = program;
  const names = ['neuroshard'];
  for (const word of argv) {
    const next = command.commands.find((each) => each.name() === word);
    if (next === undefined) break;
    names.push(word);
    command = next;
  }
  return names.join(' ');
}
