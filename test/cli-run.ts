/** Runs the program with some of its commands, as from the command line, and keeps what it writes. */
import type { Command } from 'commander';
import { createProgram, runProgram } from '../src/cli/program.ts';

export async function runCommand(register: (program: Command) => void, argv: readonly string[]) {
  let stdout = '';
  let stderr = '';
  const surroundings = {
    stdout: { write: (text: string) => (stdout += text) },
    stderr: { write: (text: string) => (stderr += text) },
    signal: new AbortController().signal,
  };
  const program = createProgram('0.0.0', surroundings, [register]);
  const code = await runProgram(program, [...argv], surroundings);
  return { code, stdout, stderr };
}
