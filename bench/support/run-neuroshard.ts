/** Runs one command of the program as a user would, and gives its JSON document. */
import { spawn } from 'node:child_process';
import { programFile } from '../../src/platform/nodejs/installation.ts';

/** Rejects with the last lines of stderr when the command fails. Its log lines go to our stderr with `--verbose`. */
export function runNeuroshard<T>(args: readonly string[], env: NodeJS.ProcessEnv = {}): Promise<T> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [programFile('src/cli/main'), ...args, '--json'], {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, ...env },
    });
    let out = '';
    let log = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => (out += text));
    child.stderr.setEncoding('utf8').on('data', (text: string) => (log = (log + text).slice(-4000)));
    child.once('error', reject);
    child.once('close', (code) => {
      if (code === 0) resolve(JSON.parse(out) as T);
      else reject(new Error(`neuroshard ${args.join(' ')} ended with ${code}: ${log}`));
    });
  });
}

/** A table for people: columns padded, numbers right-aligned. */
export function table(header: readonly string[], rows: readonly (readonly string[])[]): string {
  const widths = header.map((name, i) => Math.max(name.length, ...rows.map((row) => row[i]?.length ?? 0)));
  const line = (cells: readonly string[]) =>
    cells.map((cell, i) => (i === 0 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!))).join('  ');
  return [line(header), ...rows.map(line)].join('\n');
}
