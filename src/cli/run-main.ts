/**
 * The frame around every program of the package: real streams, signals, the fast hash, and an exit code. Knows no
 * command.
 */
import type { Command } from 'commander';
import { packageVersion } from '../platform/nodejs/installation.ts';
import { installNodeSha256 } from '../platform/nodejs/sha256.ts';
import type { Surroundings } from './command.ts';
import { watchInterrupts } from './interrupt.ts';
import { hasParentChannel, releaseParent, watchParent } from './parent-process.ts';
import { createProgram, runProgram } from './program.ts';

/** The longest that Node's timers take. */
const longMs = 0x7fff_ffff;
/** Something left open must not keep a finished command from ending. */
const exitGraceMs = 5_000;

/** Runs the command line of this process to its end. */
export async function runMain(commands: readonly ((program: Command) => void)[]): Promise<void> {
  installNodeSha256();
  endQuietlyWithoutReader();
  process.on('uncaughtException', (error) => {
    process.stderr.write(`neuroshard: bug: ${error instanceof Error ? error.stack : String(error)}\n`);
    process.exit(1);
  });
  const interrupts = watchInterrupts({
    ignoreInterrupt: hasParentChannel(),
    log: (line) => void process.stderr.write(`${line}\n`),
  });
  const surroundings: Surroundings = {
    stdout: process.stdout,
    stderr: process.stderr,
    signal: AbortSignal.any([interrupts, watchParent()]),
  };
  const program = createProgram(packageVersion(), surroundings, commands);
  // A command that waits for the clock alone holds nothing open: Node would end it in the middle.
  const held = setInterval(() => undefined, longMs);
  process.exitCode = await runProgram(program, process.argv.slice(2), surroundings);
  clearInterval(held);
  releaseParent();
  setTimeout(() => process.exit(), exitGraceMs).unref();
}

/** `neuroshard … | head` closes our output early: that is no error of ours, and the children stop with us. */
function endQuietlyWithoutReader(): void {
  for (const stream of [process.stdout, process.stderr]) {
    stream.on('error', (error: NodeJS.ErrnoException) => {
      if (error.code === 'EPIPE' || error.code === 'EIO') process.exit(0);
      throw error;
    });
  }
}
