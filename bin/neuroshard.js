#!/usr/bin/env node
/**
 * The launcher: plain JavaScript that any Node can read, so that an old one gets a clear sentence and not a stack
 * trace. A checkout runs `src/cli/main.ts` with Node 24 (its own `node` devDependency when the caller's is older); the
 * published package holds no `src/` and runs the compiled `dist/src/cli/main.js`.
 */
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

const nodeMajorMin = 24;
const root = dirname(dirname(fileURLToPath(import.meta.url)));
const isCheckout = existsSync(join(root, 'src', 'cli', 'main.ts'));
const main = isCheckout ? join(root, 'src', 'cli', 'main.ts') : join(root, 'dist', 'src', 'cli', 'main.js');
const isNewEnough = Number(process.versions.node.split('.')[0]) >= nodeMajorMin;

if (isCheckout && !existsSync(join(root, 'node_modules', 'commander'))) {
  fail(`the dependencies are not installed: run 'npm ci' in ${root} (with Node 20 or newer) and try again`);
} else if (isNewEnough) {
  await import(pathToFileURL(main).href);
} else {
  const pinnedNode = join(
    root,
    'node_modules',
    'node',
    'bin',
    process.platform === 'win32' ? 'node.exe' : 'node',
  );
  if (isCheckout && existsSync(pinnedNode)) runWith(pinnedNode);
  else if (isCheckout) {
    fail(
      `needs Node ${nodeMajorMin}, this is ${process.version}, and the one that 'npm ci' installs is missing: run 'npm ci' again`,
    );
  } else
    fail(`needs Node ${nodeMajorMin} or newer, this is ${process.version}: https://nodejs.org/en/download`);
}

function fail(message) {
  process.stderr.write(`neuroshard: ${message}\n`);
  process.exitCode = 1;
}

/** Runs the same command line with another Node, passing signals down and the exit code up. */
function runWith(node) {
  const child = spawn(node, [main, ...process.argv.slice(2)], {
    stdio: 'inherit',
    env: { ...process.env, NEUROSHARD_LAUNCHER_PID: String(process.pid) },
  });
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => child.kill(signal));
  child.on('error', (error) => fail(`cannot start ${node}: ${error.message}`));
  child.on('exit', (code, signal) => {
    if (signal === null) process.exit(code ?? 1);
    process.removeAllListeners(signal);
    process.kill(process.pid, signal);
  });
}
