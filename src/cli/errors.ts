/**
 * Failures as the command line shows them: one clear line on stderr, an exit code, and with `--json` the same as one
 * document on stdout. Knows no command.
 */
import { CommanderError } from 'commander';
import { CodedError } from '../std/outcome.ts';

export const exitFailure = 1;
export const exitUsage = 2;

/** The command line itself is wrong: exit code 2. */
export class UsageError extends CodedError {
  override name = 'UsageError';
}

/** The user asked the process to stop before it was done: exit code 128 + signal number, as shells expect. */
export class InterruptedError extends CodedError {
  override name = 'InterruptedError';
  readonly exitCode: number;
  constructor(signalName: string, exitCode: number) {
    super('interrupted', `stopped by ${signalName}`);
    this.exitCode = exitCode;
  }
}

/** The command has already said what failed: only the exit code is left to give. */
export class ReportedFailure extends Error {
  override name = 'ReportedFailure';
  readonly exitCode: number;
  constructor(exitCode = exitFailure) {
    super();
    this.exitCode = exitCode;
  }
}

export interface Failure {
  readonly code: string;
  /** One line. */
  readonly message: string;
  readonly exitCode: number;
  /** Where a bug happened; undefined for expected failures. */
  readonly stack?: string;
}

/** What to say and how to exit; undefined when there is nothing to say (help and version were asked for). */
export function describeFailure(error: unknown, command = 'neuroshard'): Failure | undefined {
  if (error instanceof CommanderError) return describeCommanderError(error, command);
  if (error instanceof InterruptedError) return failure(error.code, error.message, error.exitCode);
  if (error instanceof UsageError)
    return failure(error.code, `${error.message} (see ${command} --help)`, exitUsage);
  if (error instanceof CodedError) return failure(error.code, error.message, exitFailure);
  const bug = error instanceof Error ? error : new Error(String(error));
  return {
    ...failure('bug', `bug: ${bug.name}: ${bug.message}`, exitFailure),
    ...(bug.stack ? { stack: bug.stack } : {}),
  };
}

function describeCommanderError(error: CommanderError, command: string): Failure | undefined {
  if (error.exitCode === 0) return undefined;
  const code = error.code.replace('commander.', '').replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
  if (code === 'help')
    return failure('missing-command', `say which command (see ${command} --help)`, exitUsage);
  return failure(code, `${error.message.replace(/^error: /, '')} (see ${command} --help)`, exitUsage);
}

function failure(code: string, message: string, exitCode: number): Failure {
  return { code, message: message.replace(/\s*\n\s*/g, ' ').trim(), exitCode };
}
